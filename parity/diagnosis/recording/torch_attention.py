"""Reads PyTorch's multi-head attention as the steps that it is."""

import inspect

from parity.frameworks import torch
from parity.diagnosis.recording.attention import PROJECTIONS, multi_head, part_of
from parity.diagnosis.recording.constants import Unknown
from parity.diagnosis.recording.graph import Recorder, Tensor
from parity.diagnosis.recording.torch_operations import bound

F = torch.nn.functional


def read_multi_head(
    recorder: Recorder, args: tuple, kwargs: dict, output: Tensor
) -> list[tuple[str, list, dict, object]] | None:
    """Returns the steps of `F.multi_head_attention_forward`, None where it is masked.

    Args:
        recorder: which knows the values.
        args: of the call.
        kwargs: of the call.
        output: (T, N, C), what it returned.
    """
    names = list(inspect.signature(F.multi_head_attention_forward).parameters)
    try:
        a = bound(" ".join(names), args, kwargs, dropout_p=0.0, training=True)
        numbers = [recorder.number_of(a[name]) for name in PROJECTIONS]
        unread = ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "static_k")
        if None in numbers or any(not _is_off(a.get(name)) for name in unread):
            raise Unknown
        if output.dim() != 3 or (a["training"] and a["dropout_p"]):
            raise Unknown
        heads = a["num_heads"]
        settings = {
            "heads": heads,
            "scale": (output.shape[-1] // heads) ** -0.5,
            "causal": _is_causal(a.get("attn_mask")),
        }
        weights = _projections(recorder, a)
        return multi_head(
            recorder,
            numbers,
            weights,
            settings,
            recorder.to_tensor(output),
            lambda tensor: recorder.inner_array(tensor.clone()),
        )
    except Unknown:
        return None


def _is_off(argument: object) -> bool:
    return argument is None or argument is False


def _is_causal(mask: Tensor | None) -> bool:
    """Returns whether a mask hides what lies behind, False where there is none."""
    if mask is None:
        return False
    hidden = mask if mask.dtype == torch.bool else torch.isneginf(mask)
    if mask.dim() != 2 or not torch.equal(hidden, torch.ones_like(hidden).triu(1)):
        raise Unknown
    return True


def _projections(recorder: Recorder, a: dict) -> dict:
    """Returns the weight and the bias of each projection, as parts of one or apart."""
    size = a["out_proj_weight"].shape[1]
    names = recorder.constants
    found = {"output": (a["out_proj_weight"], a["out_proj_bias"])}
    for index, name in enumerate(PROJECTIONS):
        rows = slice(index * size, (index + 1) * size)
        pair = []
        for whole in (a["in_proj_weight"], a["in_proj_bias"]):
            part = None
            if whole is not None:
                named = names.get(id(whole))
                part = recorder.named(whole[rows], named and part_of(named, rows))
            pair.append(part)
        if a.get("use_separate_proj_weight"):
            pair[0] = a[f"{name[0]}_proj_weight"]
        found[name] = tuple(pair)
    return found
