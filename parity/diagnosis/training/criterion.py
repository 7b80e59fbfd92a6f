"""One description of a loss of either framework, and what it computes."""

import functools
from dataclasses import dataclass, replace

import numpy as np

from parity.frameworks import keras, torch

F = torch.nn.functional

LOGITS = "logits"
PROBABILITIES = "probabilities"
CLIPPED_FIRST = "probabilities, clipped before their sum"
LOG_PROBABILITIES = "log-probabilities"
TWICE = "logits, with a softmax too many"
NO_LOGARITHM = "logits, without the logarithm"
SUM_OF_WEIGHTS = "the sum of weights"

# Keras clips probabilities to this and to 1 minus this.
CLIP = 1e-7


@dataclass(frozen=True)
class Criterion:
    """What a loss is.

    Attributes:
        kind: "cross-entropy", "binary cross-entropy", "squared error", "absolute error"
            or "Huber".
        scores: what the outputs are read as; "" where they are no scores.
        reduction: "mean", "sum", "none" (whose gradient is the sum's), "mean of sums"
            (over a sample's numbers) or "sum of means".
        factor: of the whole.
        smoothing: of the labels.
        weights: of the classes.
        divisor: what a weighted sum is divided by: "the count" or "the sum of weights".
        ignored: a label that does not count.
        delta: where Huber's loss becomes linear.
    """

    kind: str
    scores: str = ""
    reduction: str = "mean"
    factor: float = 1.0
    smoothing: float = 0.0
    weights: tuple[float, ...] | None = None
    divisor: str = "the count"
    ignored: int | None = None
    delta: float = 1.0

    def said(self, cause: str) -> object:
        """Returns what a cause is about, in words or as a number."""
        if cause == "loss.kind":
            by = f" of {self.scores}" if self.scores else ""
            return f"{self.kind}{by}"
        if cause == "loss.reduction":
            times = "" if self.factor == 1 else f", times {self.factor:.6g}"
            return f"{self.reduction}{times}"
        if cause == "loss.label_smoothing":
            return self.smoothing
        if cause == "loss.class_weights":
            if self.weights is None:
                return None if self.ignored is None else f"all but {self.ignored}"
            weights = ", ".join(f"{x:.4g}" for x in self.weights)
            return f"({weights}), divided by {self.divisor}"
        return self.scores


@dataclass(frozen=True)
class Labels:
    """Labels in both forms.

    Attributes:
        given: as they came.
        targets: of the outputs' shape, one-hot where they were integers.
        classes: integers, None where they are not classes.
    """

    given: np.ndarray
    targets: np.ndarray
    classes: np.ndarray | None

    @classmethod
    def of(cls, labels: np.ndarray, outputs: np.ndarray) -> "Labels":
        """Returns labels for outputs (N, ..., K).

        Raises:
            ValueError: they do not fit.
        """
        classes, targets = None, labels
        count = outputs.shape[-1] if outputs.ndim > 1 else 1
        if labels.shape == (*outputs.shape[:-1], 1) and count > 1:
            labels = labels[..., 0]
        if labels.shape == outputs.shape:
            hot = labels.max(-1) == 1 if count > 1 else np.zeros(1, bool)
            if hot.all() and (labels != 0).sum() == hot.size:
                classes = labels.argmax(-1)
        elif labels.shape == outputs.shape[:-1] and count > 1:
            classes = labels.astype(np.int64)
            targets = (classes[..., None] == np.arange(count)).astype(np.float64)
        elif labels.size == outputs.size:
            targets = labels.reshape(outputs.shape)
        else:
            raise ValueError(
                f"labels of shape {labels.shape} do not fit outputs of shape "
                f"{outputs.shape}"
            )
        return cls(labels, targets.astype(np.float64), classes)

    def taken(self, indices: np.ndarray) -> "Labels":
        """Returns the labels of some samples."""
        arrays = (self.given, self.targets, self.classes)
        return Labels(*(x if x is None else x[indices] for x in arrays))


@dataclass(frozen=True)
class Value:
    """A loss and its gradient by the outputs, of which all items are summed.

    Attributes:
        total: the loss.
        gradient: along the probabilities of a softmax where the outputs are such: the
            rest of it has no effect.
        exact: whether in float64.
        side: "keras" or "torch".
    """

    total: float
    gradient: np.ndarray
    exact: bool = True
    side: str = ""


def along(gradient: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns a gradient by the logits where the outputs are a softmax's.

    What is constant over the classes of a sample the softmax takes away: losses may
    differ in it, as those that divide by the sum of the probabilities do.
    """
    if outputs.ndim < 2 or outputs.shape[-1] < 2 or outputs.min() < 0:
        return gradient
    if not np.allclose(outputs.sum(-1), 1, rtol=0, atol=1e-5):
        return gradient
    mean = (gradient * outputs).sum(-1, keepdims=True)
    return outputs * (gradient - mean)


def compute(criterion: Criterion, outputs: np.ndarray, labels: Labels) -> Value:
    """Returns what a criterion gives, in float64."""
    leaf = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
    width = outputs.shape[-1] if outputs.ndim > 1 else 1
    scores = leaf.reshape(-1, width)
    targets = torch.tensor(labels.targets.reshape(-1, width), dtype=torch.float64)
    losses = _KINDS[criterion.kind](criterion, scores, targets)
    divisor = denominator(criterion, labels)
    if labels.classes is not None and losses.dim() == 1:
        classes = torch.tensor(labels.classes.ravel())
        counted = torch.ones_like(losses)
        if criterion.ignored is not None:
            counted = (classes != criterion.ignored).double()
            losses = torch.where(counted > 0, losses, 0.0)
        weight = counted
        if criterion.weights and criterion.divisor == SUM_OF_WEIGHTS:
            known = torch.tensor(criterion.weights, dtype=torch.float64)
            weight = counted * known[classes.clamp(0, width - 1)]
        if criterion.reduction == "mean":
            divisor = float(weight.sum()) or 1.0
    total = criterion.factor * losses.sum() / divisor
    (gradient,) = torch.autograd.grad(total, leaf)
    return Value(float(total.detach()), along(gradient.numpy(), outputs))


def denominator(criterion: Criterion, labels: Labels) -> float:
    """Returns what the sum of all losses is divided by, without weights."""
    shape = labels.targets.shape
    width = shape[-1] if len(shape) > 1 else 1
    rows = labels.targets.size // width
    by_sample = criterion.kind == "cross-entropy"
    return float(
        {
            "mean": rows if by_sample else rows * width,
            "mean of sums": shape[0],
            "sum of means": 1 if by_sample else width,
        }.get(criterion.reduction, 1)
    )


def _cross_entropy(criterion: Criterion, scores, targets):
    if criterion.scores == LOGITS:
        logs = scores.log_softmax(-1)
    elif criterion.scores == TWICE:
        logs = scores.softmax(-1).log_softmax(-1)
    elif criterion.scores == NO_LOGARITHM:
        logs = scores.softmax(-1)
    elif criterion.scores == PROBABILITIES:
        shares = scores / scores.sum(-1, keepdim=True)
        logs = shares.clamp(CLIP, 1 - CLIP).log()
    elif criterion.scores == CLIPPED_FIRST:
        logs = scores.clamp(CLIP, 1 - CLIP).log().log_softmax(-1)
    else:
        logs = scores
    even = criterion.smoothing / scores.shape[-1]
    targets = targets * (1 - criterion.smoothing) + even
    if criterion.weights:
        targets = targets * torch.tensor(criterion.weights, dtype=torch.float64)
    return -(targets * logs).sum(-1)


def _binary(criterion: Criterion, scores, targets):
    smoothing = criterion.smoothing
    targets = targets * (1 - smoothing) + smoothing / 2
    if criterion.scores == LOGITS:
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    scores = scores.clamp(CLIP, 1 - CLIP)
    return -(targets * scores.log() + (1 - targets) * torch.log1p(-scores))


_KINDS = {
    "cross-entropy": _cross_entropy,
    "binary cross-entropy": _binary,
    "squared error": lambda _, x, y: (x - y) ** 2,
    "absolute error": lambda _, x, y: (x - y).abs(),
    "Huber": lambda c, x, y: F.huber_loss(x, y, reduction="none", delta=c.delta),
}


def read_keras(loss: object) -> Criterion | None:
    """Returns what a Keras loss is, None for one that is not known."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    known = keras.losses
    kinds = {
        known.SparseCategoricalCrossentropy: Criterion("cross-entropy", CLIPPED_FIRST),
        known.CategoricalCrossentropy: Criterion("cross-entropy", PROBABILITIES),
        known.BinaryCrossentropy: Criterion("binary cross-entropy", PROBABILITIES),
        known.MeanSquaredError: Criterion("squared error"),
        known.MeanAbsoluteError: Criterion("absolute error"),
        known.Huber: Criterion("Huber"),
    }
    functions = {
        known.sparse_categorical_crossentropy: known.SparseCategoricalCrossentropy,
        known.categorical_crossentropy: known.CategoricalCrossentropy,
        known.binary_crossentropy: known.BinaryCrossentropy,
        known.mean_squared_error: known.MeanSquaredError,
        known.mean_absolute_error: known.MeanAbsoluteError,
        known.huber: known.Huber,
    }
    try:
        if loss in functions:
            return kinds[functions[loss]]
    except TypeError:  # it can't be hashed
        return None
    criterion = next((v for k, v in kinds.items() if type(loss) is k), None)
    if criterion is None:
        return None
    config = loss.get_config()
    if config.get("from_logits"):
        criterion = replace(criterion, scores=LOGITS)
    sums = "sum" if criterion.kind == "cross-entropy" else "sum of means"
    reductions = {"sum": sums, "none": "none", None: "none"}
    if criterion.kind != "cross-entropy":
        reductions |= {"none": sums, None: sums}
    return replace(
        criterion,
        reduction=reductions.get(config.get("reduction"), "mean"),
        smoothing=float(config.get("label_smoothing") or 0.0),
        ignored=config.get("ignore_class"),
        delta=float(config.get("delta") or 1.0),
    )


def read_torch(loss: object) -> Criterion | None:
    """Returns what a PyTorch loss is, None for one that is not known."""
    settings: dict[str, object] = {}
    if isinstance(loss, functools.partial):
        if loss.args:
            return None
        settings, loss = dict(loss.keywords), loss.func
    nn = torch.nn
    kinds = {
        (nn.CrossEntropyLoss, F.cross_entropy): Criterion("cross-entropy", LOGITS),
        (nn.NLLLoss, F.nll_loss): Criterion("cross-entropy", LOG_PROBABILITIES),
        (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits): Criterion(
            "binary cross-entropy", LOGITS
        ),
        (nn.BCELoss, F.binary_cross_entropy): Criterion(
            "binary cross-entropy", PROBABILITIES
        ),
        (nn.MSELoss, F.mse_loss): Criterion("squared error"),
        (nn.L1Loss, F.l1_loss): Criterion("absolute error"),
        (nn.HuberLoss, F.huber_loss): Criterion("Huber"),
        (nn.SmoothL1Loss, F.smooth_l1_loss): Criterion("Huber"),
    }
    for (module, function), criterion in kinds.items():
        if loss is function:
            return _from_settings(criterion, settings, module)
        if type(loss) is module:
            names = ("reduction", "label_smoothing", "weight", "ignore_index")
            names += ("delta", "beta", "pos_weight")
            settings = {name: getattr(loss, name, None) for name in names}
            return _from_settings(criterion, settings, module)
    return None


def _from_settings(
    criterion: Criterion, settings: dict, module: type
) -> Criterion | None:
    weights = settings.get("weight")
    ignored = settings.get("ignore_index")
    if settings.get("pos_weight") is not None:
        return None
    if weights is not None and criterion.kind != "cross-entropy":
        return None
    delta = settings.get("delta") or settings.get("beta") or 1.0
    if weights is not None:
        weights = tuple(float(f"{x:.7g}") for x in weights.tolist())
    return replace(
        criterion,
        reduction=settings.get("reduction") or "mean",
        smoothing=float(settings.get("label_smoothing") or 0.0),
        weights=weights,
        divisor=SUM_OF_WEIGHTS if weights else "the count",
        ignored=None if ignored in (None, -100) else ignored,
        delta=float(delta),
        factor=1 / float(delta) if module is torch.nn.SmoothL1Loss else 1.0,
    )
