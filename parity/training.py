"""Trains both sides step by step, from the same weights on the same batches."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import weights as keras_weights
from keras_impl.optim import create_optimizer as create_keras_optimizer
from keras_impl.train import compute_gradients as keras_gradients
from keras_impl.train import make_predictor as make_keras_predictor
from parity.comparison import (
    TOLERANCES,
    relative_error,
    rounding_bounds,
)
from parity.precision import keras_as, torch_as
from parity.report import write_json
from torch_impl import weights as torch_weights
from torch_impl.optim import create_optimizer as create_torch_optimizer
from torch_impl.train import compute_gradients as torch_gradients
from torch_impl.train import make_predictor as make_torch_predictor

# Trainings with float32's roundings are simulated in float64 this often; the largest
# effect counts.
SIMULATIONS = 5


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
        bound: in float32, what rounding explains of the loss.
    """

    number: int
    keras_loss: float
    torch_loss: float
    errors: dict[str, float]
    verdict: str
    culprit: str | None = None
    bound: float | None = None


@dataclass(frozen=True)
class LockstepReport:
    """The outcome of a training in lockstep; `print(report)` shows a table.

    Attributes:
        verdict: the worst of the steps' verdicts; "different" also when the final
            accuracies differ in float64.
        keras_accuracy: on the test images after the last step, None without any.
        torch_accuracy: likewise.
    """

    optimizer: str
    dtype: str
    device: str
    verdict: str
    steps: list[Step] = field(repr=False)
    keras_accuracy: float | None = None
    torch_accuracy: float | None = None

    @property
    def first_divergence(self) -> Step | None:
        """The first step that is different, None when none is."""
        return next((x for x in self.steps if x.verdict == "different"), None)

    def to_json(self, path: str | Path) -> None:
        """Writes the whole report; an infinite error is the string "Infinity"."""
        write_json(path, asdict(self))

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
                if step.bound is not None:
                    line += f" (rounding of the loss {step.bound:.1e})"
                lines.append(line)
        if first:
            lines.append(f"first divergence: step {first.number}, {first.culprit}")
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
    learning_rate: float = 1e-3,
    dtype: str = "float64",
    device: str = "cpu",
    keras_test: tuple[tf.Tensor, tf.Tensor] | None = None,
    torch_test: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> LockstepReport:
    """Trains both models and compares batch, loss, gradients and weights every step.

    The models are as they were afterwards. float64 shows whether both make the same
    steps; float32 whether each side's losses are as near to the float64 losses as
    rounding allows, which is measured by rounding the weights of a float64 training.

    Args:
        keras_model: a built model.
        torch_model: its twin, with the same weights.
        keras_batches: images (N, H, W, C) and labels (N,).
        torch_batches: the same images (N, C, H, W) and labels.
        optimizer: a name in the recipes.
        learning_rate: constant.
        dtype: "float64" or "float32".
        device: "cpu" or "gpu".
        keras_test: images and labels to measure the accuracy on after the last step.
        torch_test: likewise.
    """
    keras_batches, torch_batches = list(keras_batches), list(torch_batches)
    settings = (optimizer, learning_rate, device)
    bounds = None
    if dtype == "float32":
        bounds = _loss_bounds(torch_model, torch_batches, settings)
    with (
        keras_as(keras_model, dtype, device) as ours,
        torch_as(torch_model, dtype, device) as theirs,
    ):
        keras_states = _keras_steps(ours, keras_batches, settings, dtype)
        torch_states = _torch_steps(theirs, torch_batches, settings, dtype)
        pairs = zip(keras_states, torch_states, strict=True)
        steps = [
            _compare_step(number, *pair, bounds and bounds[number - 1])
            for number, pair in enumerate(pairs, start=1)
        ]
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
    verdicts = {step.verdict for step in steps}
    if dtype == "float64" and accuracies[0] != accuracies[1]:
        verdicts.add("different")
    verdict = next(v for v in ("different", "rounding", "equal") if v in verdicts)
    return LockstepReport(optimizer, dtype, device, verdict, steps, *accuracies)


def _accuracy(predict, images, labels) -> float:
    return float(np.mean(predict(images).argmax(1) == np.asarray(labels)))


def _keras_steps(model, batches, settings: tuple, dtype: str) -> Iterator[_State]:
    name, learning_rate, _ = settings
    optimizer = create_keras_optimizer(name, learning_rate)
    weights = keras_weights.named_weights(model)
    layouts = {id(weight.variable): weight.layout for weight in weights}
    variables = model.trainable_variables
    for images, labels in batches:
        loss, gradients = keras_gradients(model, tf.cast(images, dtype), labels)
        optimizer.apply(gradients, variables)
        by_name = {}
        for variable, gradient in zip(variables, gradients, strict=True):
            layout = layouts[id(variable)]
            by_name[layout.name] = layout.to_torch(np.asarray(gradient))
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
    dtype: str,
    rounding: tuple[float, torch.Generator] | None = None,
) -> Iterator[_State]:
    name, learning_rate, _ = settings
    optimizer = create_torch_optimizer(name, learning_rate, model.parameters())
    names = [name for name, _ in model.named_parameters()]
    place = next(model.parameters()).device
    for images, labels in batches:
        images = images.to(place, getattr(torch, dtype))
        loss, gradients = torch_gradients(model, images, labels.to(place))
        optimizer.step()
        if rounding is not None:
            _round(model, *rounding)
        arrays = [gradient.cpu().numpy().copy() for gradient in gradients]
        state = torch_weights.state_dict(model)
        yield _State(
            {"images": images.cpu().numpy(), "labels": labels.cpu().numpy()},
            float(loss),
            dict(zip(names, arrays, strict=True)),
            {name: array.copy() for name, array in state.items()},
        )


def _round(model, amount: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.rand(parameter.shape, generator=generator) * 2 - 1
            parameter.mul_(1 + amount * noise.to(parameter))


def _loss_bounds(model, batches, settings: tuple) -> list[float]:
    """Returns, for each step, the relative error of the loss that rounding explains.

    The training is simulated in float64 with all weights disturbed after every step by
    as much as the step's roundings in float32 may amount to. That shows how a training
    magnifies them, and that they may send a maximum to another pixel of a window,
    after which the two trainings part for good.
    """
    amount = 3 * max(rounding_bounds(model).values())

    def losses(seed: int | None) -> np.ndarray:
        rounding = None
        if seed is not None:
            rounding = (amount, torch.Generator().manual_seed(seed))
        with torch_as(model, "float64", settings[-1]) as exact:
            states = _torch_steps(exact, batches, settings, "float64", rounding)
            return np.array([state.loss for state in states])

    reference = losses(None)
    effects = [np.abs(losses(seed) / reference - 1) for seed in range(SIMULATIONS)]
    return list(amount + np.maximum.accumulate(np.max(effects, axis=0)))


def _compare_step(
    number: int, ours: _State, theirs: _State, bound: float | None
) -> Step:
    errors = {"batch": 0.0, "loss": relative_error(ours.loss, theirs.loss)}
    culprit = None
    for quantity in ("batch", "loss", "gradients", "weights"):
        if quantity == "loss":
            tensors = {"loss": errors["loss"]}
        else:
            tensors = _tensor_errors(getattr(ours, quantity), getattr(theirs, quantity))
        if quantity == "gradients":  # in the order of the backward pass
            tensors = dict(reversed(tensors.items()))
        errors[quantity] = max(tensors.values())
        tolerance = TOLERANCES.get(quantity, 0.0) if bound is None else math.inf
        if quantity == "batch":
            tolerance = 0.0
        elif quantity == "loss" and bound is not None:
            tolerance = bound
        if culprit is None:
            wrong = (name for name, error in tensors.items() if not error <= tolerance)
            name = next(wrong, None)
            culprit = name and (name if quantity == name else f"{quantity} of {name}")
    within = "equal" if errors["loss"] <= TOLERANCES["loss"] else "rounding"
    return Step(
        number,
        ours.loss,
        theirs.loss,
        errors,
        "different" if culprit else within,
        culprit,
        bound,
    )


def _tensor_errors(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> dict[str, float]:
    names = list(dict.fromkeys([*theirs, *ours]))
    return {
        name: relative_error(ours[name], theirs[name])
        if name in ours and name in theirs
        else math.inf
        for name in names
    }
