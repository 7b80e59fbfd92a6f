"""What both sides record of a forward pass."""

from typing import Any, NamedTuple


class Call(NamedTuple):
    """One call of one layer.

    Attributes:
        name: the layer's attribute path.
        layer: the layer itself.
        inputs: its first argument, a copy.
        output: what it returned, a copy.
    """

    name: str
    layer: Any
    inputs: Any
    output: Any
