"""Names how two arrays of the same images, or of one value, differ as a whole."""

import itertools

import numpy as np

from parity.frameworks import torch
from parity.diagnosis.explaining.explanation import Explanation
from parity.diagnosis.locate import TOLERANCE, Culprit
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.functions import fit_line
from parity.diagnosis.recording.graph import Tensor
from parity.diagnosis.replay import error_between, is_rounding


def explain_images(culprit: Culprit) -> list[Explanation]:
    """Explains a difference between the images that the two sides see."""
    found = _explain_input(culprit.output, culprit.found)
    if not found and culprit.torch_step is None and culprit.found is not None:
        found = _other_images(culprit)
    return found


def _explain_input(ours: Tensor, theirs: Tensor | None) -> list[Explanation]:
    if theirs is None:
        return []
    before = error_between(theirs, ours)
    reordered = _rearranged(ours, theirs)
    if reordered:
        cause, words, after = reordered
        cause = {"channels": "input.channel_order", "layout": "input.layout"}[cause]
        values = {"keras": "as given", "torch": words}
        return [Explanation(cause, before, after, values, ("reshape.order",))]
    if theirs.shape != ours.shape:
        return []
    for channels in ((), (2, 1, 0)):
        if channels and ours.shape[1] != 3:
            continue
        x = ours[:, list(channels)] if channels else ours
        line = fit_line(x.movedim(1, 0).flatten(1), theirs.movedim(1, 0).flatten(1))
        if line is None:
            continue
        scale, shift = line
        made = operations.run("scale", {"scale": scale, "shift": shift}, [x])
        after = error_between(made, theirs)
        if not is_rounding(after):
            continue
        spread = float((scale - scale.mean()).abs().max() / scale.abs().max())
        small = 1e-6 * float((scale * ours.abs().max()).abs().max())
        plain = spread < 1e-6 and float(shift.abs().max()) < small
        cause = "input.scale" if plain else "input.mean_std"
        values = {
            "keras": "x",
            "torch": f"{_list(scale[:1] if plain else scale)} * x"
            + ("" if plain else f" + {_list(shift)}"),
        }
        found = [Explanation(cause, before, after, values, ("scale.missing",))]
        if channels:
            order = {"keras": "as given", "torch": "channels reversed"}
            found.append(Explanation("input.channel_order", before, after, order))
        return found
    return []


def _other_images(culprit: Culprit) -> list[Explanation]:
    """Tells images that were resized otherwise from others; neither can be undone."""
    ours, theirs = culprit.output, culprit.found
    if ours.shape != theirs.shape:
        return [
            Explanation("input.different", culprit.error, None, _shapes(ours, theirs))
        ]
    least = -torch.nn.functional.max_pool2d(-ours, 3, 1, 1)
    most = torch.nn.functional.max_pool2d(ours, 3, 1, 1)
    slack = 1e-6 * ours.abs().max()
    between = ((theirs >= least - slack) & (theirs <= most + slack)).double().mean()
    alike = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]
    cause = "input.resize" if between > 0.7 and alike > 0.9 else "input.different"
    values = {
        "keras": "its own images",
        "torch": f"others (correlation {float(alike):.3f}, {float(between):.0%} of the "
        "pixels between their neighbours)",
    }
    return [Explanation(cause, culprit.error, None, values)]


def _shapes(ours: Tensor, theirs: Tensor) -> dict[str, object]:
    return {"keras": tuple(ours.shape), "torch": tuple(theirs.shape)}


def _list(vector: Tensor) -> str:
    numbers = [f"{float(value):.6g}" for value in vector]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"


def _rearranged(ours: Tensor, theirs: Tensor) -> tuple[str, str, float] | None:
    """Returns how an image's pixels were put in another order, if they were."""
    if ours.dim() != 4 or ours.numel() != theirs.numel():
        return None
    channels = ours.shape[1]
    orders = (
        list(itertools.permutations(range(channels)))[1:]
        if channels <= 4
        else [tuple(reversed(range(channels)))]
    )
    for order in orders if theirs.shape == ours.shape else ():
        after = error_between(ours[:, list(order)], theirs)
        if after <= TOLERANCE:
            return "channels", f"channels in the order {order}", after
    layouts = {
        "rows and columns exchanged": ours.transpose(2, 3),
        "(H, W, C) read as (C, H, W)": ours.permute(0, 2, 3, 1).reshape(ours.shape),
        "the axes (H, W, C) as they are": ours.permute(0, 2, 3, 1),
        "upside down": ours.flip(2),
        "left and right exchanged": ours.flip(3),
        "(C, W, H)": ours.transpose(1, 3),
    }
    for words, made in layouts.items():
        if made.shape == theirs.shape and torch.equal(made, theirs):
            return "layout", words, 0.0
        if made.numel() == theirs.numel() and made.shape == theirs.shape:
            after = error_between(made, theirs)
            if after <= TOLERANCE:
                return "layout", words, after
    return None


def explain_transform(ours: Tensor, theirs: Tensor | None) -> list[Explanation]:
    """Explains two values inside a network that hold the same numbers otherwise."""
    if theirs is None:
        return []
    before = error_between(theirs, ours)
    rearranged = _rearranged(ours, theirs)
    if rearranged:
        _, words, after = rearranged
        values = {"keras": "as it is", "torch": words}
        return [Explanation("reshape.order", before, after, values)]
    if ours.numel() == theirs.numel():
        a, b = np.sort(ours.numpy(), None), np.sort(theirs.numpy(), None)
        if np.allclose(a, b, rtol=1e-12, atol=0):
            values = {"keras": "as it is", "torch": "the same numbers in another order"}
            after = error_between(torch.from_numpy(b), torch.from_numpy(a))
            return [Explanation("reshape.order", before, after, values)]
    if ours.shape == theirs.shape and ours.dim() >= 2:
        line = fit_line(ours.movedim(1, 0).flatten(1), theirs.movedim(1, 0).flatten(1))
        if line is not None:
            scale, shift = line
            made = operations.run("scale", {"scale": scale, "shift": shift}, [ours])
            after = error_between(made, theirs)
            if after <= TOLERANCE:
                values = {
                    "keras": "x",
                    "torch": f"{_list(scale[:3])} * x + {_list(shift[:3])}",
                }
                return [Explanation("scale.missing", before, after, values)]
    return []
