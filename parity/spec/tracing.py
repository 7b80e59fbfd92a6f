"""What both sides record of a forward pass."""

from typing import Any, NamedTuple


class Call(NamedTuple):
    """One call of one layer.

    Attributes:
        name: the layer's attribute path.
        layer: the layer itself.
        inputs: the tensors among its arguments.
        outputs: the tensors that it returned.
    """

    name: str
    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
