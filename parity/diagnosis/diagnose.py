"""Finds where two ports of a network first part, and why: `parity.diagnose`."""

import numpy as np

from parity.frameworks import keras, torch
from keras_impl.tracing import input_shape
from parity import probe
from parity.diagnosis.case import Case, record
from parity.diagnosis.causes import fixes, untried
from parity.diagnosis.explaining.explain import explain
from parity.diagnosis.explaining.explanation import Explanation
from parity.diagnosis.findings import Diagnosis, Finding, Match
from parity.diagnosis.gradients import diagnose_levels
from parity.diagnosis.locate import TOLERANCE, Located
from parity.diagnosis.recording.graph import Step, one_line
from parity.diagnosis.replay import error_between, is_rounding
from parity.precision import untouched_state
from parity.spec.errors import UsageError, unknown
from parity.spec.tolerances import ROUNDED

LEVELS = ("forward", "backward", "training")
WEIGHTS = ("copy", "as_is")
Images = np.ndarray | tuple[np.ndarray, np.ndarray]


def diagnose(
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    images: Images | None = None,
    *,
    labels: np.ndarray | None = None,
    level: str = "forward",
    weights: str = "copy",
    **training: object,
) -> Diagnosis:
    """Says where two models part, and proves each cause by removing it.

    Neither model is changed, with one exception: a Keras model that has no weights yet
    is built, by calling it once on the first image, as Keras does. PyTorch's is judged
    in the mode in which it is: one whose `eval()` was forgotten is told so. Keras's is
    called without a flag for training, with its layers that augment images off.

    Args:
        keras_model: any model on the TensorFlow backend with one input; a built one
            where no images are given.
        torch_model: any module of one input.
        images: NHWC; or a pair (NHWC, NCHW), what each side's own pipeline makes of
            the same images. None draws probe images for the Keras model's input.
        labels: int (N,) for "backward" and "training"; None draws them.
        level: "forward" judges the outputs, "backward" the loss and the gradients too,
            "training" the steps of the optimizers and BatchNorm's statistics too.
        weights: "copy" compares the functions: PyTorch's side is given Keras's weights,
            in copies. "as_is" compares the weights too.
        **training: the losses, optimizers and schedules of both sides, see
            `parity.diagnosis.training.trainings.diagnose_training`.

    Raises:
        UsageError: an unknown level or weights, images that do not fit, or a model
            that cannot be called on them.
    """
    if level not in LEVELS:
        raise unknown("level", level, LEVELS)
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    _check_models(keras_model, torch_model)
    keras_images, torch_images = _images(keras_model, images)
    with untouched_state(), torch.inference_mode(False), torch.enable_grad():
        case = record(keras_model, torch_model, keras_images, torch_images, weights)
        diagnosis = _forward(case, level, weights)
        if level == "forward":
            return diagnosis
        return diagnose_levels(
            diagnosis, case, keras_model, torch_model, keras_images, labels, **training
        )


def _check_models(keras_model: object, torch_model: object) -> None:
    if not isinstance(keras_model, keras.Model):
        raise UsageError(
            f"the first model must be a keras.Model, not {type(keras_model).__name__}"
        )
    if not isinstance(torch_model, torch.nn.Module):
        raise UsageError(
            "the second model must be a torch.nn.Module, not "
            f"{type(torch_model).__name__}"
        )
    for path, module in torch_model.named_modules():
        word = _unheard(module)
        if word:
            name = f"{path} of the PyTorch model" if path else "the PyTorch model"
            raise UsageError(
                f"{name} is {word}, and what it does cannot be heard: give the module "
                "itself"
            )


def _unheard(module: torch.nn.Module) -> str | None:
    """Returns what a module is of which only the graph is left, None for others."""
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted"
    if isinstance(module, torch.fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    ):
        return "exported"
    return None


def _images(model: keras.Model, images: Images | None) -> tuple:
    """Returns the NHWC images, and PyTorch's own NCHW ones if there are any."""
    theirs = None
    shape = _known_shape(model)
    if images is None:
        images = _probe_images(model, shape)
    if isinstance(images, tuple | list) and len(images) == 2:
        rank = len(shape or "NHWC")
        if getattr(images[0], "ndim", rank) == rank:  # and no list of two images
            images, theirs = images
            theirs = _numbers(theirs)
    images = _numbers(images)
    _build(model, images[:1])
    shape = _known_shape(model)
    if shape and (
        images.ndim != len(shape)
        or any(
            wanted not in (None, size)
            for size, wanted in zip(images.shape[3:], shape[3:], strict=True)
        )
    ):
        raise UsageError(
            f"images of shape {images.shape} do not fit model {model.name!r}, which "
            f"takes {shape}; images are NHWC"
        )
    if theirs is not None and len(theirs) != len(images):
        raise UsageError(
            f"{len(images)} images for Keras and {len(theirs)} for PyTorch; each side "
            "must see the same ones"
        )
    return images, theirs


def _probe_images(model: keras.Model, shape: tuple | None) -> np.ndarray:
    if shape:
        return probe.images(shape)
    problem = (
        "the shape of its input is not known" if model.built else "it is not built"
    )
    raise UsageError(
        f"no images can be drawn for model {model.name!r}, since {problem}: give "
        "images, or call it once on some, as in model(images), so that it has weights"
    )


def _build(model: keras.Model, images: np.ndarray) -> None:
    """Calls a model once if layers of it have no weights yet; those there are stay."""
    if all(layer.built for layer in model._flatten_layers()):
        return
    before = [(variable, variable.numpy()) for variable in model.variables]
    try:
        model(images.astype(keras.config.floatx()))
    except Exception as error:
        raise UsageError(
            f"model {model.name!r} is not built and cannot be called on images "
            f"{images.shape}: {type(error).__name__}: {one_line(error)}"
        ) from None
    finally:
        for variable, value in before:
            variable.assign(value)


def _known_shape(model: keras.Model) -> tuple[int | None, ...] | None:
    """Returns the shape of a model's input, None where its call alone knows it."""
    built_for = (model.get_build_config() or {}).get("input_shape")
    if getattr(model, "input_shape", None) or built_for:
        return input_shape(model)
    return None


def _numbers(images: object) -> np.ndarray:
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu()
        images = images if images.is_complex() else images.double()
    if np.iscomplexobj(images):
        raise UsageError("images must be real numbers, not complex ones")
    try:
        array = np.asarray(images, np.float64)
    except (TypeError, ValueError):
        raise UsageError(
            f"images must be numbers (N, H, W, C), not {type(images).__name__}"
        ) from None
    if not array.size or not np.isfinite(array).all():
        what = "are none" if not array.size else "hold NaN or infinity"
        raise UsageError(f"images of shape {array.shape} {what}: they show nothing")
    return array


def _forward(case: Case, level: str, weights: str) -> Diagnosis:
    context = {"keras": case.keras, "torch": case.torch}
    located, free = case.located, case.free
    findings, rounding = [], located.rounding
    for culprit in located.culprits:
        for explanation in explain(culprit, context):
            if _rounds_alike(explanation):
                rounding = True
                continue
            if id(culprit.torch_step) in case.unplaced:
                _say_unplaced(explanation)
            findings.append(_finding(explanation, culprit.at_input))
    findings = _merge_strides(findings)
    error = max(
        error_between(theirs, case.keras.values[ours])
        for ours, theirs in zip(case.keras.outputs, free.outputs, strict=True)
    )
    findings = _without_structure(findings, error, case) + _shared(case)
    if findings or (error > TOLERANCE and not is_rounding(error)):
        verdict = "different"
    else:
        verdict = "rounding" if rounding or error > TOLERANCE else "equal"
    if verdict == "different" and not findings:
        findings = [_unexplained(error)]
    return Diagnosis(
        verdict,
        level,
        weights,
        error,
        tuple(_matches(case)),
        tuple(findings),
        (*case.notes, *located.notes),
        tuple(located.culprits),
    )


# Causes in how a network is built, which the outputs would show.
STRUCTURE = {
    "operation.different", "reshape.order", "merge.kind", "merge.order", "unexplained",
    "softmax.axis", "weights.wrong_layer", "shortcut.missing", "layer.missing",
    "activation.missing", "scale.missing", "softmax.missing", "pad.missing",
    "bn.missing", "activation.kind",
}  # fmt: skip


def _without_structure(findings: list[Finding], error: float, case: Case) -> list:
    """Drops findings of structure where the outputs agree: the alignment erred."""
    if not is_rounding(error):
        return findings
    kept = [finding for finding in findings if finding.cause not in STRUCTURE]
    if len(kept) < len(findings):
        case.notes.append(
            f"{len(findings) - len(kept)} places where the two sides' steps do not "
            "agree are left out, since the outputs do"
        )
    return kept


def _say_unplaced(explanation: Explanation) -> None:
    """Says of a step that computes with other weights that they were not copied."""
    explanation.ties = (explanation.cause, *explanation.ties)
    explanation.cause, explanation.after = "weights.not_copied", None
    explanation.values = {"keras": "its own", "torch": "others, which have no place"}


def _shared(case: Case) -> list[Finding]:
    """Returns the weights that are one on PyTorch's side and several on Keras's."""
    found = []
    for k, t, own, first, other in case.shared:
        values = {"keras": f"{first} and {own}", "torch": f"{other} for both"}
        fix, keras_fix = fixes("weights.different", *values.values())
        finding = Finding(
            "weights.different", k.name, t.name, 1.0, None, fix, keras_fix,
            "forward", values, ("weights.wrong_layer",),
        )  # fmt: skip
        found.append(finding)
    return found


def _unexplained(error: float) -> Finding:
    fix, keras_fix = fixes("unexplained", "its outputs", "others")
    return Finding("unexplained", "model", "model", error, None, fix, keras_fix)


def _rounds_alike(explanation: Explanation) -> bool:
    """Returns whether a constant that was rounded to float32 is all that differs."""
    ours, theirs = (explanation.values.get(side) for side in ("keras", "torch"))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(ours[key], theirs.get(key)) for key in ours]
    else:
        pairs = [(ours, theirs)]
    if pairs and all(_is_number(value) for pair in pairs for value in pair):
        close = all(abs(a - b) <= 2.0**-23 * abs(a) for a, b in pairs)
        return close and is_rounding(explanation.before)
    if explanation.cause == "unexplained":
        k, t = explanation.keras_step, explanation.torch_step
        same = k is not None and t is not None and k.kind == t.kind
        limit = ROUNDED.get(k.kind, ROUNDED["step"]) if same else 0.0
        return same and explanation.before <= limit
    return False


# Causes whose values are what each side runs, and no parameter of it.
OPERATIONS = ("operation.different", "activation.kind")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finding(explanation: Explanation, at_input: bool) -> Finding:
    values = explanation.values
    given = values.get("keras"), values.get("torch")
    if explanation.after is None and explanation.cause in OPERATIONS:
        fix, keras_fix = untried(*given)
    else:
        fix, keras_fix = fixes(explanation.cause, *given)
    names = [
        "input"
        if explanation.cause.startswith("input.")
        else (step.name if step else ("input" if at_input else "output"))
        for step in (explanation.keras_step, explanation.torch_step)
    ]
    return Finding(
        explanation.cause,
        *names,
        explanation.before,
        explanation.after,
        fix,
        keras_fix,
        "forward",
        values,
        tuple(dict.fromkeys(x for x in explanation.ties if x != explanation.cause)),
    )


def _merge_strides(findings: list[Finding]) -> list[Finding]:
    """Takes two strides that were exchanged between two layers for one mistake."""
    strides = [f for f in findings if f.cause == "conv.stride"]
    for first in strides:
        for second in strides:
            if first is second or first not in findings or second not in findings:
                continue
            a, b = first.values, second.values
            if a["keras"] == b["torch"] and a["torch"] == b["keras"]:
                values = {
                    "keras": f"{first.keras_name} {a['keras']}, "
                    f"{second.keras_name} {b['keras']}",
                    "torch": f"{first.torch_name} {a['torch']}, "
                    f"{second.torch_name} {b['torch']}",
                }
                fix, keras_fix = fixes("conv.stride_placement", *values.values())
                merged = Finding(
                    "conv.stride_placement",
                    first.keras_name,
                    first.torch_name,
                    first.error_before,
                    max(first.error_after, second.error_after),
                    fix,
                    keras_fix,
                    "forward",
                    values,
                )
                index = findings.index(first)
                findings = [f for f in findings if f is not second]
                findings[index] = merged
                break
    return findings


def _matches(case: Case) -> list[Match]:
    located, free = case.located, case.free
    partner = {id(t): k for k, t in case.pairs}
    paired = {id(k) for k, _ in case.pairs}
    culprits = {id(c.torch_step) for c in located.culprits}
    for culprit in located.culprits:
        if culprit.kind == "formula":
            culprits |= {id(step) for step in culprit.only_torch}
    rows = []
    for t in case.torch.steps:
        k = partner.get(id(t))
        if k is None:
            rows.append(
                Match(None, t.name, t.kind, verdict=_alone(t, located, "torch"))
            )
            continue
        inherited = free.inherited.get(id(t), 0.0)
        introduced = located.introduced.get(id(t), 0.0)
        verdict = "equal"
        if id(t) in culprits:
            verdict = "rounding" if is_rounding(introduced) else "different"
            if introduced <= TOLERANCE:
                verdict = "different"
        elif id(t) in located.unjudged:
            verdict = "not judged"
        copied = case.copied.get(id(t), ())
        rows.append(
            Match(k.name, t.name, t.kind, inherited, introduced, verdict, copied)
        )
    place = {id(t): i for i, t in enumerate(case.torch.steps)}
    position = 0
    torch_of = {id(k): t for k, t in case.pairs}
    extra = 0
    for k in case.keras.steps:
        if id(k) in paired:
            position = place[id(torch_of[id(k)])] + 1 + extra
            continue
        rows.insert(position, Match(k.name, None, k.kind, verdict="only in keras"))
        position += 1
        extra += 1
    return rows


def _alone(step: Step, located: Located, side: str) -> str:
    return "equal" if id(step) in located.grouped else f"only in {side}"
