"""Why two trainings part: frozen layers, the optimizer's steps, running statistics."""

import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from parity.frameworks import keras, tf, torch
from parity.diagnosis.findings import Finding
from parity.diagnosis.training.criterion import Labels
from parity.diagnosis.training.evaluation import (
    Loss,
    call_keras,
    keras_forms,
    keras_in,
    torch_forms,
)
from parity.diagnosis.training.losses import accepted
from parity.diagnosis.training.observing import observe_steps
from parity.diagnosis.training.optimizers import Observed, explain_optimizer, trained
from parity.diagnosis.training.reading import group_of
from parity.diagnosis.training.rules import Arrays
from parity.diagnosis.training.running_statistics import NormPair, explain_bn_statistics
from parity.diagnosis.training.stepping import Pair, Scheduler, lent
from parity.precision import keras_as


def diagnose_training(
    pairs: Sequence[Pair],
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    images: np.ndarray | tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    *,
    keras_loss: Loss,
    torch_loss: Loss,
    keras_optimizer: keras.optimizers.Optimizer | None,
    torch_optimizer: torch.optim.Optimizer | None,
    torch_scheduler: Scheduler | None = None,
    torch_step: Callable | None = None,
    steps: int = 3,
    steps_per_epoch: int | None = None,
    gradients: Sequence[Arrays] | None = None,
    norms: Sequence[NormPair] = (),
) -> list[Finding]:
    """Returns why two trainings part. Both models are as they were afterwards.

    Args:
        pairs: the aligned parameters.
        keras_model: built.
        torch_model: its twin.
        images: channels last; or those, and PyTorch's.
        labels: of the images.
        keras_loss: called with labels and outputs.
        torch_loss: called with outputs and labels; its penalties count.
        keras_optimizer: None leaves the optimizers out.
        torch_optimizer: over the parameters of its model.
        torch_scheduler: of its learning rates.
        torch_step: called with images and labels, makes one step of a training.
        steps: how many to make.
        steps_per_epoch: after how many steps the scheduler makes one.
        gradients: for each pair, of one step or more, in PyTorch's layout, of Keras's
            loss without regularizers; None computes them.
        norms: the aligned BatchNorms.

    Raises:
        ValueError: a loss, optimizer or training step that can't be called.
    """
    observed = None
    keras_images, torch_images = _both(images)
    if torch_step is not None:
        observed, torch_optimizer = observe_steps(
            torch_step,
            torch_model,
            torch_optimizer,
            torch_scheduler,
            [pair.parameter for pair in pairs],
            (torch_images, labels),
            steps,
        )
    found = explain_frozen(pairs, torch_optimizer)
    used = trained(pairs, torch_optimizer)
    both = [pairs[index] for index in used]
    if keras_optimizer is not None and both and (torch_optimizer or observed):
        if observed:
            gradients = []
        elif gradients is None:
            gradients = [
                data_gradients(both, keras_model, keras_images, labels, keras_loss)
            ]
        else:
            gradients = [[step[index] for index in used] for step in gradients]
        if gradients:
            gradients = more_steps(gradients, steps)
        found += explain_optimizer(
            keras_optimizer,
            torch_optimizer,
            both,
            gradients,
            torch_scheduler=torch_scheduler,
            steps_per_epoch=steps_per_epoch,
            torch_penalty=torch_penalty(both, torch_loss, labels),
            observed=_of(observed, used),
        )
    for norm in norms:
        found += explain_bn_statistics(*norm)
    return found


def _both(images) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(images, tuple | list):
        return tuple(np.asarray(array) for array in images)
    images = np.asarray(images)
    return images, np.ascontiguousarray(np.moveaxis(images, -1, 1))


def _of(observed: Observed | None, used: Sequence[int]) -> Observed | None:
    """Returns what was seen of some parameters."""
    if observed is None:
        return None

    def some(steps: list[Arrays]) -> list[Arrays]:
        return [[step[index] for index in used] for step in steps]

    return observed._replace(
        start=some([observed.start])[0],
        fresh=some(observed.fresh),
        seen=some(observed.seen),
        made=some(observed.made),
    )


def explain_frozen(
    pairs: Sequence[Pair], torch_optimizer: torch.optim.Optimizer | None
) -> list[Finding]:
    """Returns the layers of which some parameters are trained on one side only."""
    layers: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for pair in pairs:
        ours = "trainable" if pair.variable.trainable else "frozen"
        theirs = "trainable" if pair.parameter.requires_grad else "frozen"
        held = torch_optimizer is None or group_of(torch_optimizer, pair.parameter) >= 0
        if theirs == "trainable" and not held:
            theirs = "not in the optimizer"
        if (ours == "trainable") != (theirs == "trainable"):
            names = pair.keras_name, pair.torch_name
            layers.setdefault(names, []).append((ours, theirs))
    # What moves on one side only differs by all of its way.
    return [
        accepted("layer.frozen", 1.0, 0.0, *sides[0], names=names, level="training")
        for names, sides in layers.items()
    ]


def data_gradients(
    pairs: Sequence[Pair],
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    loss: Loss,
) -> Arrays:
    """Returns the gradients of Keras's loss in float64, in PyTorch's layout.

    Args:
        pairs: whose gradients; 0 where there is none.
        model: as it was afterwards, not in training mode.
        images: channels last.
        labels: of the images.
        loss: called with labels and outputs.
    """
    with keras_as(model, "float64", "cpu"), keras_in(loss, "float64"):
        variables = [pair.variable.value for pair in pairs]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            outputs = model(tf.constant(images, "float64"), training=False)
            if isinstance(outputs, tuple | list):
                outputs = outputs[0]
            given = Labels.of(np.asarray(labels), outputs.numpy())
            forms = keras_forms(loss, given, "float64")
            value = _first(lambda form: call_keras(loss, form, outputs), forms)
        arrays = tape.gradient(value, variables, unconnected_gradients="zero")
    return [
        pair.to_torch(tf.convert_to_tensor(array).numpy())
        for pair, array in zip(pairs, arrays, strict=True)
    ]


def more_steps(gradients: Sequence[Arrays], steps: int) -> list[Arrays]:
    """Returns gradients of at least so many steps.

    Both optimizers are given the same ones, whichever they are: where there are too
    few, the last ones' elements are moved, and made smaller.
    """
    found = list(gradients)
    while len(found) < steps:
        last = found[-1]
        found.append([x if x is None else 0.75 * np.roll(x, 1) for x in last])
    return found


def _first(function: Callable, forms: Sequence):
    """Returns the result for the first form of labels that is accepted."""
    for form in forms[:-1]:
        with contextlib.suppress(Exception):  # whatever a loss of one's own raises
            return function(form)
    return function(forms[-1])


def torch_penalty(pairs: Sequence[Pair], loss: Loss, labels: np.ndarray) -> list[float]:
    """Returns factors of PyTorch's parameters in the gradient of its loss.

    The parameters are others for a moment: where they are 0, a penalty is not seen.

    Args:
        pairs: of parameters, as they were afterwards.
        loss: called with outputs and labels; may know the parameters.
        labels: of any images.
    """
    parameters = [pair.parameter for pair in pairs]
    factors = [0.0] * len(pairs)
    labels = np.asarray(labels)
    width = labels.shape[-1] if labels.ndim > 1 else max(int(labels.max()) + 1, 2)
    outputs = np.full((len(labels), width), 1 / width)
    rng = np.random.default_rng(0)
    with lent(None, parameters), contextlib.suppress(Exception):
        for parameter in parameters:
            values = rng.normal(size=tuple(parameter.shape))
            parameter.data = torch.tensor(values)
        forms = torch_forms(loss, Labels.of(labels, outputs), outputs, "float64")
        with torch.enable_grad():
            value = _first(lambda form: loss(torch.tensor(outputs), form), forms).sum()
        if not value.requires_grad:
            return factors
        learned = [p for p in parameters if p.requires_grad]
        slopes = torch.autograd.grad(value, learned, allow_unused=True)
        by_id = {id(p): g for p, g in zip(learned, slopes, strict=True)}
        for index, parameter in enumerate(parameters):
            slope = by_id.get(id(parameter))
            if slope is None:
                continue
            values = parameter.data.double()
            factor = float((slope * values).sum() / (values * values).sum())
            if float((slope - factor * values).norm()) <= 1e-4 * float(slope.norm()):
                factors[index] = float(f"{factor:.10g}")
    return factors
