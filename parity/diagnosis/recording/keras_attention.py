"""Reads Keras's multi-head attention as the steps that it is."""

from parity.frameworks import torch
from parity.diagnosis.recording.attention import multi_head
from parity.diagnosis.recording.constants import Unknown

Tensor = torch.Tensor


def read_multi_head(recorder, layer, numbers, kwargs, output):
    """Returns the steps of a MultiHeadAttention, None where it is masked.

    Args:
        recorder: which knows the values.
        layer: that was called.
        numbers: of the query, the value and, where it is another one, the key.
        kwargs: of the call.
        output: what it returned.
    """
    masked = set(kwargs) - {"query", "value", "key", "training", "use_causal_mask"}
    if any(kwargs[name] is not None for name in masked) or len(numbers) not in (2, 3):
        return None

    def projection(inner, outputs: int) -> tuple[Tensor, Tensor | None]:
        kernel = recorder.tensor(inner.kernel)
        weight = kernel.flatten(kernel.dim() - outputs).flatten(0, -2).T.contiguous()
        recorder.named(weight, recorder.constants[id(kernel)])
        bias = recorder.tensor(inner.bias)
        if bias is not None:
            bias = recorder.named(bias.flatten(), recorder.constants[id(bias)])
        return weight, bias

    query, value, *key = numbers
    weights = {
        "query": projection(layer.query_dense, 2),
        "key": projection(layer.key_dense, 2),
        "value": projection(layer.value_dense, 2),
        "output": projection(layer.output_dense, 1),
    }
    settings = {
        "heads": layer.num_heads,
        "scale": layer.key_dim**-0.5,
        "causal": bool(kwargs.get("use_causal_mask")),
    }
    try:
        return multi_head(
            recorder,
            [query, *(key or [value]), value],
            weights,
            settings,
            recorder.to_tensor(output),
            lambda tensor: recorder.inner_array(Array(tensor.numpy())),
        )
    except Unknown:
        return None


class Array:
    """An array that can be told apart from others and referred to weakly."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __array__(self, dtype=None, copy=None):
        """Returns the array, of a type."""
        return self.array if dtype is None else self.array.astype(dtype)
