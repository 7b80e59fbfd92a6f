"""Why two losses differ on the same outputs and labels.

Both are read into one `Criterion`, which must give the loss and its gradient by the
outputs again; where it does not, or a loss can't be read, those that do are searched.
Then what differs is exchanged, until PyTorch's criterion gives Keras's loss.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from parity.frameworks import keras
from parity.diagnosis.causes import CAUSES, fixes
from parity.diagnosis.findings import Finding
from parity.diagnosis.training.criterion import (
    LOG_PROBABILITIES,
    LOGITS,
    NO_LOGARITHM,
    PROBABILITIES,
    TWICE,
    Criterion,
    Labels,
    Value,
    compute,
    denominator,
    read_keras,
    read_torch,
)
from parity.diagnosis.training.evaluation import Loss, evaluate_keras, evaluate_torch
from parity.spec.tolerances import relative_error

# Losses that are nearer are the same. What float32 constants inside a loss may leave
# is larger: a difference of that size counts only where it has a name.
TOLERANCE = 1e-10
ROUNDED = 1e-6

# The fields of a criterion that a cause is about.
FIELDS = {
    "loss.from_logits": ("scores",),
    "loss.reduction": ("reduction", "factor"),
    "loss.label_smoothing": ("smoothing",),
    "loss.class_weights": ("weights", "divisor", "ignored"),
    "loss.kind": ("kind", "delta"),
}


def explain_loss(
    keras_loss: Loss,
    torch_loss: Loss,
    keras_outputs: np.ndarray,
    torch_outputs: np.ndarray | None,
    labels: np.ndarray,
    *,
    keras_penalty: float = 0.0,
    torch_decays: bool = False,
) -> list[Finding]:
    """Returns why two losses differ; nothing where they do not.

    Both are given Keras's outputs. Where the two models end differently, one in a
    softmax and the other in logits, and the losses make up for it, nothing is found
    here: the difference is one of the models.

    Args:
        keras_loss: called with labels and outputs; or its name. What it gives for each
            sample is averaged, as `compile` does, unless a reduction of None is asked.
        torch_loss: called with outputs and labels.
        keras_outputs: (N, K), or (N, ..., K).
        torch_outputs: the same in Keras's layout; None for Keras's.
        labels: (N, ...) of integers, or of the outputs' shape.
        keras_penalty: what the Keras model's regularizers add, see `penalty`.
        torch_decays: whether the PyTorch optimizer has a weight decay, which may stand
            for that: then the steps say so.

    Raises:
        ValueError: a loss can't be called with such outputs and labels.
    """
    given = Labels.of(np.asarray(labels), np.asarray(keras_outputs, np.float64))
    outputs = np.asarray(keras_outputs, np.float64)
    ours = evaluate_keras(keras_loss, outputs, given)
    theirs = evaluate_torch(torch_loss, outputs, given)
    criterion_k = _identify(read_keras(keras_loss), keras_loss, ours, outputs, given)
    criterion_t = _identify(read_torch(torch_loss), torch_loss, theirs, outputs, given)
    offset = 0.0
    if criterion_t:
        offset = theirs.total - compute(criterion_t, outputs, given).total
        if abs(offset) <= ROUNDED * abs(theirs.total):
            offset = 0.0
    theirs = replace(theirs, total=theirs.total - offset)
    found = []
    if not _made_up_for(keras_loss, torch_loss, outputs, torch_outputs, given, offset):
        found = _explain(ours, theirs, criterion_k, criterion_t, outputs, given)
    return found + _explain_penalty(ours, keras_penalty, offset, torch_decays)


def penalty(model: keras.Model) -> float:
    """Returns what a Keras model's regularizers add to the loss."""
    return float(sum(float(value) for value in model.losses))


def accepted(
    cause: str,
    before: float,
    after: float | None,
    keras: object = None,
    torch: object = None,
    *,
    names: tuple[str | None, str | None] = ("loss", "loss"),
    level: str = "backward",
    ties: tuple[str, ...] = (),
) -> Finding:
    """Returns a finding with its fixes.

    Args:
        cause: its identifier.
        before: the error with it.
        after: the error without it.
        keras: what differs, in Keras.
        torch: likewise in PyTorch.
        names: of the layers.
        level: of the diagnosis.
        ties: further causes.
    """
    texts = (f"make it {keras} (now {torch})", f"make it {torch} (now {keras})")
    if cause in CAUSES:
        texts = fixes(cause, keras, torch)
    values = {"keras": keras, "torch": torch} if cause != "unexplained" else {}
    errors = (float(before), None if after is None else float(after))
    return Finding(cause, *names, *errors, *texts, level, values, ties)


def _error(value: Value, goal: Value) -> float:
    """Returns the error of a loss or of its gradient, whichever is larger."""
    error = relative_error(value.gradient, goal.gradient)
    return max(error, relative_error(value.total, goal.total))


def _explain(
    ours: Value,
    theirs: Value,
    criterion_k: Criterion | None,
    criterion_t: Criterion | None,
    outputs: np.ndarray,
    labels: Labels,
) -> list[Finding]:
    before = _error(theirs, ours)
    exact = ours.exact and theirs.exact
    if before <= (TOLERANCE if exact else 1e-5):
        return []
    if criterion_k and criterion_t:

        def error(causes: Sequence[str]) -> float:
            changed = _changed(criterion_t, criterion_k, causes)
            return _error(compute(changed, outputs, labels), ours)

        limit = max(TOLERANCE, 4 * error(list(FIELDS)))
        causes = [
            cause
            for cause, names in FIELDS.items()
            if any(getattr(criterion_k, n) != getattr(criterion_t, n) for n in names)
        ]
        if criterion_k.kind != criterion_t.kind:
            causes = [cause for cause in causes if cause != "loss.from_logits"]
        for size in range(1, len(causes) + 1):
            sets = [
                chosen
                for chosen in itertools.combinations(causes, size)
                if error(chosen) <= limit < before
            ]
            if sets:
                ties = tuple(c for (c, *_) in sets[1:]) if size == 1 else ()
                chosen = sets[0]
                return [
                    accepted(
                        cause,
                        error([other for other in chosen if other != cause]),
                        error(chosen),
                        criterion_k.said(cause),
                        criterion_t.said(cause),
                        ties=ties,
                    )
                    for cause in chosen
                ]
    return [accepted("unexplained", before, None)] if before > ROUNDED else []


def _changed(criterion: Criterion, goal: Criterion, causes: Sequence[str]) -> Criterion:
    names = {name for cause in causes for name in FIELDS[cause]}
    if "loss.kind" in causes:
        names |= {"scores"}
    return replace(criterion, **{name: getattr(goal, name) for name in names})


def _explain_penalty(
    ours: Value, keras_penalty: float, torch_penalty: float, torch_decays: bool
) -> list[Finding]:
    difference = abs(keras_penalty - torch_penalty)
    if difference <= 1e-5 * max(abs(keras_penalty), abs(torch_penalty)):
        return []
    if torch_decays and not torch_penalty:
        return []
    before = difference / max(abs(ours.total + keras_penalty), 1e-300)
    values = [
        f"a penalty, now {value:.4g}" if value else None
        for value in (keras_penalty, torch_penalty)
    ]
    return [accepted("loss.regularizer", before, 0.0, *values)]


def _made_up_for(
    keras_loss: Loss,
    torch_loss: Loss,
    outputs: np.ndarray,
    torch_outputs: np.ndarray | None,
    labels: Labels,
    offset: float,
) -> bool:
    """Returns whether one model's last softmax is in the other side's loss."""
    if torch_outputs is None:
        return False
    others = np.asarray(torch_outputs, np.float64)
    if others.shape != outputs.shape or relative_error(others, outputs) <= ROUNDED:
        return False
    forms = (_softmax, lambda x: np.log(_softmax(x)), lambda x: 1 / (1 + np.exp(-x)))
    with np.errstate(all="ignore"):
        related = any(
            relative_error(form(one), other) <= ROUNDED
            for form in forms
            for one, other in ((outputs, others), (others, outputs))
        )
    if not related:
        return False
    ours = evaluate_keras(keras_loss, outputs, labels).total
    theirs = evaluate_torch(torch_loss, others, labels).total - offset
    return math.isclose(ours, theirs, rel_tol=ROUNDED)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _identify(
    read: Criterion | None,
    loss: Loss,
    value: Value,
    outputs: np.ndarray,
    labels: Labels,
) -> Criterion | None:
    """Returns the criterion that gives a loss's gradient, None where none does."""
    tolerance = ROUNDED if value.exact else 1e-4
    if read is not None:
        gradient = compute(read, outputs, labels).gradient
        if relative_error(gradient, value.gradient) <= tolerance:
            return read
    evaluate = evaluate_torch if value.side == "torch" else evaluate_keras
    rng = np.random.default_rng(0)
    others = rng.normal(size=outputs.shape)
    if _are_probabilities(outputs):
        others = _softmax(others)
    # Other shares of the classes: what a sum of weights is divided by shows.
    shuffled = labels.taken(rng.integers(0, len(outputs), len(outputs)))
    again = evaluate(loss, others, shuffled)
    for base in _bases():
        for found in _fitted(base, value, outputs, labels):
            if all(
                relative_error(compute(found, x, y).gradient, goal.gradient)
                <= tolerance
                for x, y, goal in (
                    (outputs, labels, value),
                    (others, shuffled, again),
                )
            ):
                return found
    return None


def _are_probabilities(outputs: np.ndarray) -> bool:
    sums = outputs.sum(-1)
    return bool(outputs.min() >= 0 and np.allclose(sums, 1, rtol=0, atol=1e-5))


def _bases() -> list[Criterion]:
    """Returns the losses that one of one's own may be."""
    crosses = (LOGITS, PROBABILITIES, LOG_PROBABILITIES, TWICE, NO_LOGARITHM)
    return [
        *(Criterion("cross-entropy", scores) for scores in crosses),
        *(Criterion("binary cross-entropy", s) for s in (LOGITS, PROBABILITIES)),
        Criterion("squared error"),
        Criterion("absolute error"),
        Criterion("Huber"),
    ]


def _fitted(
    base: Criterion, value: Value, outputs: np.ndarray, labels: Labels
) -> list[Criterion]:
    """Returns variants of a loss with constants that fit a gradient best."""
    gradient = compute(base, outputs, labels).gradient
    goal = value.gradient
    size = float((gradient**2).sum())
    if not size or not np.isfinite(gradient).all():
        return []
    found = [_scaled(base, float((goal * gradient).sum()) / size, labels)]
    if "entropy" not in base.kind:
        return found
    # A gradient is linear in the smoothing.
    smooth = compute(replace(base, smoothing=1.0), outputs, labels).gradient
    columns = np.stack([gradient.ravel(), smooth.ravel()], 1)
    (sharp, even), *_ = np.linalg.lstsq(columns, goal.ravel(), rcond=None)
    if sharp + even:
        smoothing = _short(float(even / (sharp + even)))
        smoothed = replace(base, smoothing=smoothing)
        found.append(_scaled(smoothed, float(sharp + even), labels))
    if labels.classes is not None and base.kind == "cross-entropy":
        found += _weighted(base, goal, gradient, labels)
    return found


def _weighted(
    base: Criterion, goal: np.ndarray, gradient: np.ndarray, labels: Labels
) -> list[Criterion]:
    """Returns variants whose class weights fit a gradient best."""
    rows, columns = (x.reshape(-1, x.shape[-1]) for x in (goal, gradient))
    ratios = (rows * columns).sum(1) / np.maximum((columns**2).sum(1), 1e-300)
    classes = labels.classes.ravel()
    weights = np.ones(goal.shape[-1])
    for label in np.unique(classes):
        weights[label] = ratios[classes == label].mean()
    total = weights[classes].mean()
    by_count = tuple(_short(float(x)) for x in weights)
    found = [replace(base, weights=by_count)]
    if math.isclose(total, 1, rel_tol=1e-6):  # so that only their ratios are known
        found.append(replace(base, weights=by_count, divisor="the sum of weights"))
    return found


def _scaled(base: Criterion, factor: float, labels: Labels) -> Criterion:
    """Returns a criterion times a factor, which may be another reduction's."""
    mean = denominator(base, labels)
    for reduction in ("mean", "sum", "mean of sums", "sum of means"):
        changed = replace(base, reduction=reduction)
        if math.isclose(factor, mean / denominator(changed, labels), rel_tol=1e-7):
            return changed
    return replace(base, factor=_short(factor))


def _short(value: float) -> float:
    """Returns a constant as it was written, if it is near a short number."""
    short = float(f"{value:.4g}")
    return short if math.isclose(value, short, rel_tol=1e-7, abs_tol=1e-9) else value
