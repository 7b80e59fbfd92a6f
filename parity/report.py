"""What a comparison found, as a table and as JSON."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from parity.spec.files import write_json


@dataclass(frozen=True)
class LayerReport:
    """One layer, or one tensor of gradients.

    Attributes:
        keras_name: attribute path in the Keras model; None when it has no such layer.
        torch_name: likewise in the PyTorch model.
        error: relative L2 error between the two sides; infinite without a partner.
        verdict: "equal", "rounding" or "different".
        where: "output" when the layer's output differs; "after" when its output
            agrees and what the next layer receives does not (an activation, say, that
            is no layer); "before" when its own input differs.
        keras_error: in float32, the Keras side's distance from the float64 answer.
        torch_error: likewise for PyTorch.
        bound: in float32, what rounding explains of either.
    """

    keras_name: str | None
    torch_name: str | None
    error: float
    verdict: str
    where: str = "output"
    keras_error: float | None = None
    torch_error: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Report:
    """The outcome of a comparison; `print(report)` shows a table.

    Attributes:
        quantity: "outputs" or "gradients".
        dtype: the precision compared, "float64" or "float32".
        device: "cpu" or "gpu".
        error: relative L2 error of the outputs, or the largest of all gradients.
        verdict: the worst of the layers' verdicts.
        layers: in execution order; gradients in the order of the backward pass.
    """

    quantity: str
    dtype: str
    device: str
    error: float
    verdict: str
    layers: list[LayerReport] = field(repr=False)

    @property
    def first_divergence(self) -> LayerReport | None:
        """The first layer that is different, None when none is."""
        return next((x for x in self.layers if x.verdict == "different"), None)

    def to_dict(self) -> dict[str, object]:
        """Returns all fields and the first divergence."""
        first = self.first_divergence
        return asdict(self) | {"first_divergence": first and asdict(first)}

    def to_json(self, path: str | Path) -> None:
        """Writes the whole report; an infinite error is the string "Infinity"."""
        write_json(Path(path), self.to_dict())

    def __str__(self) -> str:
        """Returns the table."""
        width = max([5, *(len(_name(layer)) for layer in self.layers)])
        lines = [
            f"{self.quantity} in {self.dtype} on {self.device}: {self.verdict}, "
            f"relative L2 error {self.error:.1e}"
        ]
        for layer in self.layers:
            line = f"  {_name(layer):{width}}  {layer.error:8.1e}  {layer.verdict}"
            if layer.where != "output":
                line += f" ({layer.where} the layer)"
            if layer.bound is not None:
                line += (
                    f"  (from float64: keras {layer.keras_error:.1e}, "
                    f"torch {layer.torch_error:.1e}; rounding {layer.bound:.1e})"
                )
            lines.append(line)
        if first := self.first_divergence:
            lines.append(f"first divergence: {_name(first)}")
        return "\n".join(lines)


def _name(layer: LayerReport) -> str:
    if layer.keras_name is None:
        return f"{layer.torch_name} (only in torch)"
    if layer.torch_name is None:
        return f"{layer.keras_name} (only in keras)"
    if layer.keras_name == layer.torch_name:
        return layer.keras_name
    return f"{layer.keras_name} | {layer.torch_name}"
