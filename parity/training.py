"""Trains both sides step by step, from the same weights on the same batches."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import weights as keras_weights
from keras_impl.optim import create_optimizer as create_keras_optimizer
from keras_impl.optim import set_learning_rate as set_keras_learning_rate
from keras_impl.steps import compute_gradients as keras_gradients
from keras_impl.steps import make_predictor as make_keras_predictor
from parity import rounding
from parity.comparison import check_settings
from parity.masks import Masks, keras_masks, torch_masks
from parity.precision import keras_as, torch_as
from parity.spec.errors import UsageError, unknown
from parity.spec.files import write_json
from parity.spec.metrics import accuracy
from parity.spec.recipes import OPTIMIZERS
from parity.spec.tolerances import TOLERANCES, relative_error
from parity.traces import gradient_or_nan
from torch_impl import weights as torch_weights
from torch_impl.optim import create_optimizer as create_torch_optimizer
from torch_impl.optim import set_learning_rate as set_torch_learning_rate
from torch_impl.steps import compute_gradients as torch_gradients
from torch_impl.steps import make_predictor as make_torch_predictor

QUANTITIES = ("batch", "loss", "gradients", "weights")

# A tensor is compared relative to its own norm, but at least to this part of the norm
# of all tensors together: the gradient of a bias before a BatchNorm is 0 but for
# rounding.
SMALLEST_PART = {"batch": 0.0, "gradients": 1e-4, "weights": 1e-3}

# A gradient of no more than this part of all gradients, on both sides, is rounding: a
# hundred units of it. What Adam makes of such a gradient, which it divides by its own
# size, is chance. While a parameter has had no other, its value is not judged.
NOISE = {"float64": 100 * 2.0**-53, "float32": 100 * rounding.UNIT}


@dataclass(frozen=True)
class Step:
    """One training step on both sides.

    Attributes:
        number: from 1.
        keras_loss: before the step.
        torch_loss: likewise.
        errors: relative L2 error of "batch", "loss", "gradients" and "weights" (after
            the step): the largest over all tensors.
        verdict: "equal", "rounding" or "different".
        culprit: the first quantity and tensor that differ, None when none does.
        bounds: in float32, what rounding explains of each quantity, and the loss of a
            float64 training, from which either side's loss is measured.
        exceeding: quantity, tensor and error of all that differ by more than the
            bounds; where float64's rounding explains them all, the verdict is
            "rounding".
    """

    number: int
    keras_loss: float
    torch_loss: float
    errors: dict[str, float]
    verdict: str
    culprit: str | None = None
    bounds: dict[str, float] | None = None
    exceeding: tuple[tuple[str, str, float], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class LockstepReport:
    """The outcome of a training in lockstep; `print(report)` shows a table.

    Attributes:
        verdict: the worst of the steps' verdicts; "different" also when the final
            accuracies differ in float64.
        keras_accuracy: on the test images after the last step, None without any.
        torch_accuracy: likewise.
        undetermined: parameters whose gradient was 0 but for rounding in every step, on
            both sides; their gradients are compared, what became of them is not.
    """

    optimizer: str
    dtype: str
    device: str
    verdict: str
    steps: list[Step] = field(repr=False)
    keras_accuracy: float | None = None
    torch_accuracy: float | None = None
    undetermined: tuple[str, ...] = ()

    @property
    def first_divergence(self) -> Step | None:
        """The first step that is different, None when none is."""
        return next((x for x in self.steps if x.verdict == "different"), None)

    def to_json(self, path: str | Path) -> None:
        """Writes the whole report; an infinite error is the string "Infinity"."""
        first = self.first_divergence
        content = asdict(self) | {"first_divergence": first and asdict(first)}
        write_json(Path(path), content)

    def __str__(self) -> str:
        """Returns the table; of many steps, some."""
        lines = [
            f"{len(self.steps)} steps of {self.optimizer} in {self.dtype} on "
            f"{self.device}: {self.verdict}",
            "    step   keras loss   torch loss  loss error   gradients     weights",
        ]
        shown = {1, 2, 3, 5, 10, 20, 50, len(self.steps)}
        first = self.first_divergence
        for step in self.steps:
            if step.number in shown or step.number % 100 == 0 or step is first:
                errors = "  ".join(
                    f"{step.errors[name]:10.1e}"
                    for name in ("loss", "gradients", "weights")
                )
                line = f"  {step.number:6}  {step.keras_loss:11.6g}  "
                line += f"{step.torch_loss:11.6g}  {errors}  {step.verdict}"
                if step.bounds is not None:
                    line += f" (rounding of the loss {step.bounds['loss']:.1e})"
                lines.append(line)
        if first:
            lines.append(f"first divergence: step {first.number}, {first.culprit}")
        if self.undetermined:
            names = ", ".join(self.undetermined)
            lines.append(f"undetermined (the gradient is 0 but for rounding): {names}")
        if self.keras_accuracy is not None:
            lines.append(
                f"test accuracy: keras {self.keras_accuracy:.4f}, "
                f"torch {self.torch_accuracy:.4f}"
            )
        return "\n".join(lines)


class _State(NamedTuple):
    """One side's tensors around one step, in PyTorch's names and layout."""

    batch: dict[str, np.ndarray]
    loss: float
    gradients: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def lockstep(
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    keras_batches: Iterable[tuple[tf.Tensor, tf.Tensor]],
    torch_batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    optimizer: str = "adam",
    learning_rate: float | Sequence[float] = 1e-3,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    dtype: str = "float64",
    device: str = "cpu",
    keras_test: tuple[tf.Tensor, tf.Tensor] | None = None,
    torch_test: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> LockstepReport:
    """Trains both models and compares batch, loss, gradients and weights every step.

    The models are as they were afterwards. Dropout layers have the same masks on both
    sides (`parity/masks.py`); of a model that returns a tuple while training, the first
    item is the logits and the rest are those of auxiliary heads.

    float64 shows whether both make the same steps. What exceeds its bounds is
    "rounding" where a training under simulated float64 rounding parts as far, tensor by
    tensor. float32 shows whether each side's losses are as near to those of a float64
    training as rounding allows (`parity/rounding.py`).

    Args:
        keras_model: a built model.
        torch_model: its twin, with the same weights.
        keras_batches: images (N, H, W, C) and labels (N,).
        torch_batches: the same images (N, C, H, W) and labels.
        optimizer: a name in the recipes.
        learning_rate: constant, or one for each step.
        weight_decay: of the optimizer, decoupled in AdamW; None is the recipe's.
        clip_norm: what the norm of all gradients together is kept within; the gradients
            compared are those before.
        dtype: "float64" or "float32".
        device: "cpu" or "gpu".
        keras_test: images and labels to measure the accuracy on after the last step.
        torch_test: likewise.

    Raises:
        UsageError: an unknown optimizer, dtype or device, no batch, or a dropout layer
            that cannot be given masks.
    """
    check_settings(dtype, device)
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    options = {"weight_decay": weight_decay, "clip_norm": clip_norm}
    settings = (optimizer, _rates(learning_rate), options)
    if iter(torch_batches) is torch_batches:
        torch_batches = list(torch_batches)  # the simulations need them too
    simulation = (torch_model, torch_batches, settings, device)
    bounds = _float32_bounds(*simulation) if dtype == "float32" else None
    with (
        keras_as(keras_model, dtype, device) as ours,
        torch_as(torch_model, dtype, device) as theirs,
        keras_masks(ours) as our_masks,
        torch_masks(theirs) as their_masks,
    ):
        keras_states = _keras_steps(ours, keras_batches, settings, our_masks, dtype)
        torch_states = _torch_steps(theirs, torch_batches, settings, their_masks, dtype)
        pairs = zip(keras_states, torch_states, strict=True)
        steps = []
        noise = None
        for number, pair in enumerate(pairs, start=1):
            now = _noise(*pair, NOISE[dtype])
            noise = now if noise is None else noise & now
            bound = bounds and bounds[number - 1]
            steps.append(_compare_step(number, *pair, noise, bound))
        accuracies = (None, None)
        if keras_test and torch_test:
            accuracies = (
                _accuracy(
                    make_keras_predictor(ours),
                    tf.cast(keras_test[0], dtype),
                    keras_test[1],
                ),
                _accuracy(
                    make_torch_predictor(theirs),
                    torch_test[0].to(next(theirs.parameters())),
                    torch_test[1],
                ),
            )
    if not steps:
        raise UsageError("there is no batch to train on")
    if dtype == "float64" and any(step.culprit for step in steps):
        steps = _explain(steps, _simulate(*simulation, rounding.FLOAT64_UNIT))
    verdicts = {step.verdict for step in steps}
    if dtype == "float64" and accuracies[0] != accuracies[1]:
        verdicts.add("different")
    verdict = next(v for v in ("different", "rounding", "equal") if v in verdicts)
    return LockstepReport(
        optimizer, dtype, device, verdict, steps, *accuracies, tuple(sorted(noise))
    )


def _rates(learning_rate: float | Sequence[float]) -> Callable[[int], float]:
    """Returns the learning rate by the number of the step, from 0."""
    if np.ndim(learning_rate) == 0:
        return lambda number: learning_rate
    return lambda number: learning_rate[number]


def _accuracy(predict, images, labels) -> float:
    return accuracy(predict(images), np.asarray(labels))


def _keras_steps(
    model, batches, settings: tuple, masks: Masks, dtype: str
) -> Iterator[_State]:
    name, rate, options = settings
    optimizer = create_keras_optimizer(name, rate(0), **options)
    weights = keras_weights.named_weights(model)
    layouts = {id(weight.variable): weight.layout for weight in weights}
    variables = model.trainable_variables
    for number, (images, labels) in enumerate(batches):
        set_keras_learning_rate(optimizer, rate(number))
        masks.step(number)
        loss, gradients = keras_gradients(model, tf.cast(images, dtype), labels)
        optimizer.apply(gradients, variables)
        by_name = {}
        for variable, gradient in zip(variables, gradients, strict=True):
            layout = layouts[id(variable)]
            array = gradient_or_nan(gradient, variable)
            by_name[layout.name] = layout.to_torch(array)
        yield _State(
            {"images": np.moveaxis(images.numpy(), -1, 1), "labels": labels.numpy()},
            float(loss),
            by_name,
            keras_weights.to_common(weights),
        )


def _torch_steps(
    model,
    batches,
    settings: tuple,
    masks: Masks,
    dtype: str,
    seed: int | None = None,
    unit: float = rounding.UNIT,
) -> Iterator[_State]:
    """Yields the state of each step; with a seed, under simulated rounding."""
    name, rate, options = settings
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    optimizer = create_torch_optimizer(name, rate(0), parameters.values(), **options)
    place = next(model.parameters()).device
    for number, (images, labels) in enumerate(batches):
        images = images.to(place, getattr(torch, dtype))
        disturbance = contextlib.nullcontext()
        if seed is not None:
            step_seed = 10_000 * seed + number
            disturbance = rounding.simulated_rounding(
                model, step_seed, rounding.BACKWARD, unit
            )
        set_torch_learning_rate(optimizer, rate(number))
        masks.step(number)
        with disturbance:
            loss, _ = torch_gradients(model, images, labels.to(place))
        gradients = {k: gradient_or_nan(p.grad, p) for k, p in parameters.items()}
        optimizer.step()
        if seed is not None:
            rounding.disturb_weights(model, step_seed, unit)
        state = torch_weights.state_dict(model)
        yield _State(
            {"images": images.cpu().numpy(), "labels": labels.cpu().numpy()},
            float(loss),
            gradients,
            {name: array.copy() for name, array in state.items()},
        )


def _simulate(
    model, batches, settings: tuple, device: str, unit: float
) -> Iterator[tuple[_State, dict[str, dict[str, float]]]]:
    """Trains in float64, and at the same time under the noise of rounding.

    Yields, for each step, its state and the largest errors that the noise makes, by
    quantity and tensor. That shows how a training magnifies rounding, and that rounding
    may send a maximum to another pixel of a pooling window, after which two trainings
    part for good.
    """
    seeds = (None, *range(rounding.SIMULATIONS))
    with torch_as(model, "float64", device) as exact, torch_masks(exact) as masks:
        tensors = [*exact.parameters(), *exact.buffers()]
        kept = [[tensor.detach().clone() for tensor in tensors] for _ in seeds]
        runs = [
            _torch_steps(exact, batches, settings, masks, "float64", seed, unit)
            for seed in seeds
        ]
        while True:
            largest = {quantity: Counter() for quantity in QUANTITIES}
            for run, values in zip(runs, kept, strict=True):
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.data.copy_(value)
                if (state := next(run, None)) is None:
                    return
                for tensor, value in zip(tensors, values, strict=True):
                    value.copy_(tensor.detach())
                if run is runs[0]:
                    reference = state
                    continue
                for quantity, errors in largest.items():
                    for name, error in _errors(quantity, state, reference).items():
                        errors[name] = max(errors[name], error)
            yield reference, largest


def _float32_bounds(
    model, batches, settings: tuple, device: str
) -> list[dict[str, float]]:
    """Returns, for each step and quantity, the errors that rounding explains.

    A tie of two pixels in a pooling window concerns one image: where it falls is
    chance, so one image's part of the gradient is granted.
    """
    bounds = []
    simulated = _simulate(model, batches, settings, device, rounding.UNIT)
    for state, largest in simulated:
        bound = {"float64 loss": state.loss}
        for quantity, errors in largest.items():
            explained = rounding.LEAST + rounding.MARGIN * max(errors.values())
            before = bounds[-1][quantity] if bounds else 0.0
            bound[quantity] = max(before, explained)
        bound["batch"] = 0.0
        for quantity in ("gradients", "weights"):
            bound[quantity] = max(bound[quantity], 1 / len(state.batch["labels"]))
        bounds.append(bound)
    return bounds


def _explain(steps: list[Step], simulated: Iterable) -> list[Step]:
    """Returns the steps of float64, "rounding" where that explains a difference.

    A deep network magnifies the rounding of float64 a thousand times and more, and Adam
    divides a gradient that is near its epsilon by its own size.
    """
    judged = []
    bounds = {quantity: Counter() for quantity in QUANTITIES}
    for step, (_, largest) in zip(steps, simulated, strict=True):
        for quantity, errors in largest.items():
            for name, error in errors.items():
                explained = 2 * rounding.MARGIN * error  # both sides round
                bounds[quantity][name] = max(bounds[quantity][name], explained)
        culprit = next(
            (
                _culprit(quantity, name)
                for quantity, name, error in step.exceeding
                if not error <= bounds[quantity][name]
            ),
            None,
        )
        verdict = "different" if culprit else "rounding"
        if step.verdict != "equal":
            step = replace(step, verdict=verdict, culprit=culprit)
        judged.append(step)
        if culprit:
            break
    return judged + steps[len(judged) :]


def _noise(ours: _State, theirs: _State, part: float) -> set[str]:
    """Returns the parameters whose gradient is rounding and nothing else."""
    found = []
    for state in (ours, theirs):
        norms = {name: np.linalg.norm(x) for name, x in state.gradients.items()}
        largest = part * math.hypot(*norms.values())
        found.append({k for k, norm in norms.items() if 0 < largest >= norm})
    return set.intersection(*found)


def _compare_step(
    number: int,
    ours: _State,
    theirs: _State,
    noise: set[str],
    bounds: dict[str, float] | None,
) -> Step:
    tolerances = bounds or TOLERANCES | {"batch": 0.0}
    largest = {}
    exceeding = []
    for quantity in QUANTITIES:
        errors = _errors(quantity, ours, theirs)
        if quantity == "weights":
            errors = {name: e for name, e in errors.items() if name not in noise}
        largest[quantity] = max(errors.values(), default=0.0)
        if quantity == "loss" and bounds:
            answer = bounds["float64 loss"]
            errors = {
                "loss": max(relative_error(x.loss, answer) for x in (ours, theirs))
            }
        exceeding += [
            (quantity, name, error)
            for name, error in errors.items()
            if not error <= tolerances[quantity]
        ]
    verdict = "different" if exceeding else "rounding"
    if not exceeding and all(
        largest[k] <= v for k, v in TOLERANCES.items() if k in largest
    ):
        verdict = "equal"
    culprit = _culprit(*exceeding[0][:2]) if exceeding else None
    losses = (ours.loss, theirs.loss)
    return Step(number, *losses, largest, verdict, culprit, bounds, tuple(exceeding))


def _culprit(quantity: str, name: str) -> str:
    return name if quantity == "loss" else f"{quantity} of {name}"


def _errors(quantity: str, ours: _State, theirs: _State) -> dict[str, float]:
    """Returns each tensor's error; gradients in the order of the backward pass."""
    ours, theirs = getattr(ours, quantity), getattr(theirs, quantity)
    if quantity == "loss":
        return {"loss": relative_error(ours, theirs)}
    norms = [np.linalg.norm(array[np.isfinite(array)]) for array in theirs.values()]
    smallest = SMALLEST_PART[quantity] * math.hypot(*norms)
    names = list(dict.fromkeys([*theirs, *ours]))
    if quantity == "gradients":
        names.reverse()
    return {
        name: relative_error(ours[name], theirs[name], smallest)
        if name in ours and name in theirs
        else math.inf
        for name in names
    }
