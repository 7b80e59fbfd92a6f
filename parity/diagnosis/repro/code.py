"""What the code of a step is made of, for both frameworks."""

from parity.diagnosis.recording.graph import Tensor

WIDTH = 84  # of a line in a function's body, which is indented by 4


class Arrays:
    """The arrays that a script loads, by name, in PyTorch's layout.

    Attributes:
        side: "keras" or "torch".
        expression: how a script writes an array of some name.
        found: the arrays, by their names with the side before them.
    """

    def __init__(self, side: str, expression: str):
        self.side = side
        self.expression = expression
        self.found: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> str:
        """Keeps an array; returns how the script writes it."""
        key, count = f"{self.side}_{name}", 1
        while key in self.found:
            count += 1
            key = f"{self.side}_{name}{count}"
        self.found[key] = tensor
        return self.expression.format(key)


def call(target: str, function: str, *arguments: object, **named: object) -> str:
    """Returns `target = function(...)`, on several lines where one is too long.

    Args:
        target: a variable; "" for an expression.
        function: its name.
        *arguments: code of the arguments.
        **named: code of those that are named; None leaves one out.
    """
    words = [str(argument) for argument in arguments]
    words += [f"{name}={value}" for name, value in named.items() if value is not None]
    start = f"{target} = {function}" if target else function
    line = f"{start}({', '.join(words)})"
    if len(line) <= WIDTH or not words:
        return line
    return "\n".join([f"{start}(", *(f"    {word}," for word in words), ")"])


def number(value: float) -> str:
    """Returns a number as code."""
    if value in (float("inf"), float("-inf")):
        return f"{'-' if value < 0 else ''}np.inf"
    return repr(value)


def uniform(padding: tuple) -> tuple[int, int] | None:
    """Returns the pixels on both sides of each axis; None where the sides differ."""
    if any(before != after or before < 0 for before, after in padding):
        return None
    return tuple(before for before, _ in padding)
