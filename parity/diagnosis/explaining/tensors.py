"""Names what was done to a weight on its way from one side to the other."""

from collections.abc import Iterator

from parity.frameworks import torch
from parity.diagnosis.recording.graph import Step, Tensor
from parity.spec.tolerances import ROUNDED

Named = tuple[str, dict[str, object], tuple[str, ...]]


def explain_tensors(
    k: Step, t: Step, names: list[str], inputs: list[Tensor], context: dict
) -> list[Named]:
    """Returns (cause, values, ties) for the weights of a pair that differ.

    Args:
        k: Keras's step.
        t: PyTorch's step.
        names: the parameters that must change.
        inputs: of the step, Keras's.
        context: "keras" and "torch", the two graphs.
    """
    other = _other_layer(k, t, names, context)
    if other:
        return [("weights.wrong_layer", {"keras": k.name, "torch": other}, ())]
    if k.kind == "batch_norm":
        return _batch_norm(k, t, names)
    found = []
    remaining = list(names)
    if "weight" in remaining:
        remaining.remove("weight")
        ours, theirs = k.parameters["weight"], t.parameters["weight"]
        cause, words, ties = _weight(k, ours, theirs, inputs, context)
        if cause == "weights.not_copied":
            remaining = []  # the bias was not copied either
        found.append((cause, {"keras": "the weight", "torch": words}, ties))
    for name in remaining:
        ours, theirs = k.parameters[name], t.parameters[name]
        found.append(_vector(name, ours, theirs))
    return found


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return float((a - b).norm()) <= ROUNDED["weights"] * float(b.norm()) + 1e-30


def _weight(k, ours, theirs, inputs, context) -> tuple[str, str, tuple]:
    matches = []
    for cause, words, changed in _changes(k, ours, inputs, context):
        if _close(changed, theirs):
            matches.append((cause, words))
    if matches:
        cause, words = matches[0]
        return (
            cause,
            words,
            tuple(dict.fromkeys(c for c, _ in matches[1:] if c != cause)),
        )
    scale = float((ours * theirs).sum() / ours.square().sum())
    if scale and _close(ours * scale, theirs):
        return "weights.scaled", f"{scale:.6g} times the weight", ()
    cosine = float((ours * theirs).sum() / (ours.norm() * theirs.norm() + 1e-300))
    if abs(cosine) < 0.5:
        return (
            "weights.not_copied",
            "another tensor of this shape",
            ("weights.different",),
        )
    return "weights.different", f"a weight that is alike (cosine {cosine:.3f})", ()


def _changes(k: Step, weight: Tensor, inputs, context) -> Iterator[tuple]:
    """Yields (cause, words, what the weight would be) for each way to spoil it."""
    if weight.dim() == 4:
        yield "weights.flipped", "rows and columns reversed", weight.flip((2, 3))
        yield "weights.flipped", "rows reversed", weight.flip(2)
        yield "weights.flipped", "columns reversed", weight.flip(3)
        if weight.shape[2] == weight.shape[3]:
            yield (
                "weights.transposed",
                "rows and columns exchanged",
                weight.transpose(2, 3),
            )
        if weight.shape[0] == weight.shape[1]:
            yield (
                "weights.transposed",
                "inputs and outputs exchanged",
                weight.transpose(0, 1),
            )
            both = weight.transpose(0, 1).transpose(2, 3)
            if both.shape == weight.shape:
                yield "weights.transposed", "all axes exchanged", both
        flat = weight.permute(2, 3, 1, 0)  # HWIO as Keras has it, read as OIHW
        yield (
            "weights.transposed",
            "reshaped, not transposed",
            flat.reshape(weight.shape),
        )
    if weight.dim() == 2:
        if weight.shape[0] == weight.shape[1]:
            yield "weights.transposed", "not transposed", weight.T
        yield (
            "weights.transposed",
            "reshaped, not transposed",
            weight.T.reshape(weight.shape),
        )
        for sizes in _flattened(k, weight, inputs, context):
            channels, height, width = sizes
            map = weight.reshape(-1, channels, height, width)
            words = "its inputs in the order (H, W, C)"
            yield "flatten.order", words, map.permute(0, 2, 3, 1).reshape(weight.shape)
            map = weight.reshape(-1, height, width, channels)
            words = "its inputs in the order (C, H, W)"
            yield "flatten.order", words, map.permute(0, 3, 1, 2).reshape(weight.shape)


def _flattened(k: Step, weight: Tensor, inputs, context) -> Iterator[tuple]:
    """Yields the (C, H, W) that a dense layer's inputs may be the pixels of."""
    graph = context["keras"]
    if inputs and inputs[0].dim() == 4:
        yield tuple(inputs[0].shape[1:])
    if k.view and k.view.pixels and len(k.view.pixels) == 3:
        yield k.view.pixels
    seen = set()
    for shape in reversed(list(graph.shapes.values())):
        if len(shape) == 4 and shape[1:] not in seen:
            seen.add(shape[1:])
            if shape[1] * shape[2] * shape[3] == weight.shape[1]:
                yield shape[1:]


def _vector(name: str, ours: Tensor | None, theirs: Tensor | None) -> Named:
    if ours is None or theirs is None:
        present = "none", "present"
        values = {
            "keras": present[ours is not None],
            "torch": present[theirs is not None],
        }
        return ("bias.missing" if name == "bias" else "bn.affine", values, ())
    cause = "bias.different" if name in ("bias", "beta") else "weights.different"
    if not theirs.any() or not ours.any():
        values = {"keras": _zero(ours), "torch": _zero(theirs)}
        return (cause, values, ("weights.not_copied", "bias.missing"))
    return (cause, {"keras": "a vector", "torch": "another"}, ("weights.not_copied",))


def _zero(vector: Tensor) -> str:
    return "not zero" if vector.any() else "zero"


def _other_layer(k: Step, t: Step, names: list[str], context) -> str | None:
    """Returns the layer of Keras that PyTorch's weights are those of, if one is."""
    name = "weight" if "weight" in names else names[0]
    theirs = t.parameters[name]
    if theirs is None or theirs.numel() < 2 or float(theirs.std()) == 0:
        return None
    for step in context["keras"].steps:
        if step is k or step.kind != k.kind:
            continue
        ours = step.parameters.get(name)
        if (
            isinstance(ours, Tensor)
            and ours is not k.parameters[name]
            and _close(ours, theirs)
        ):
            return step.name
    return None


def _batch_norm(k: Step, t: Step, names: list[str]) -> list[Named]:
    p, q = k.parameters, t.parameters
    found: list[Named] = []
    remaining = list(names)
    if "mean" in names and "variance" in names:
        remaining = [n for n in remaining if n not in ("mean", "variance")]
        if _close(p["mean"], q["variance"]) and _close(p["variance"], q["mean"]):
            values = {"keras": "mean, variance", "torch": "variance, mean"}
            found.append(("bn.statistics_swapped", values, ()))
        else:
            found.append(("bn.statistics_not_copied", _statistics(q), ()))
    for name in list(remaining):
        if name in ("mean", "variance"):
            found.append(("bn.statistics_not_copied", _statistics(q), ()))
            remaining.remove(name)
    affine = [n for n in remaining if n in ("gamma", "beta")]
    present = None not in (p["gamma"], q["gamma"], p["beta"], q["beta"])
    if (
        len(affine) == 2
        and present
        and (_close(p["gamma"], q["beta"]) and _close(p["beta"], q["gamma"]))
    ):
        values = {"keras": "gamma, beta", "torch": "beta, gamma"}
        return [*found, ("bn.statistics_swapped", values, ("weights.different",))]
    if any(p[n] is None or q[n] is None for n in affine):
        values = {
            side: [n for n in ("gamma", "beta") if s[n] is not None]
            for side, s in (("keras", p), ("torch", q))
        }
        found.append(("bn.affine", values, ()))
    elif affine:
        at_start = all(bool((q[n] == (1 if n == "gamma" else 0)).all()) for n in affine)
        cause = "weights.not_copied" if at_start else "weights.different"
        found.append((cause, {"keras": affine, "torch": affine}, ("bn.affine",)))
    if len(found) == 2 and {c for c, *_ in found} == {
        "bn.statistics_not_copied",
        "weights.not_copied",
    }:
        return [("weights.not_copied", found[0][1], ("bn.statistics_not_copied",))]
    return found


def _statistics(parameters: dict) -> dict[str, object]:
    start = bool(
        torch.all(parameters["mean"] == 0) & torch.all(parameters["variance"] == 1)
    )
    return {"keras": "its own", "torch": "0 and 1" if start else "others"}
