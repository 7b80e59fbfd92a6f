"""What a diagnosis found: a verdict, the alignment, and each cause with its proof."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from parity.spec.files import write_json

SCHEMA = 1


@dataclass(frozen=True)
class Match:
    """One row of the alignment, in execution order.

    Attributes:
        keras_name: attribute path of the layer; None where no layer is the partner.
        torch_name: likewise.
        operation: the operation's kind: "conv", "batch_norm", "activation", ...
        inherited: relative L2 error of what comes in, both models running freely.
        introduced: relative L2 error of what goes out, both given the same inputs.
        verdict: "equal", "rounding", "different"; "only in keras", "only in torch";
            "not judged" where a note says why.
        copied: the weights that were copied, as (Keras's name, PyTorch's name).
    """

    keras_name: str | None
    torch_name: str | None
    operation: str
    inherited: float = 0.0
    introduced: float = 0.0
    verdict: str = "equal"
    copied: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Finding:
    """One cause, accepted since removing it removes the error.

    Attributes:
        cause: a stable identifier, see docs/causes.md; "unexplained" where none fits.
        keras_name: attribute path of the layer, or of the layer before a loose
            operation; "input", "output", "loss" or "optimizer" for those.
        torch_name: likewise.
        error_before: relative L2 error that is introduced here.
        error_after: the same once the cause is removed; None where nothing fits.
        fix: what to change in PyTorch; what is known, where that is not.
        keras_fix: what to change in Keras instead; likewise.
        level: "forward", "backward" or "training".
        values: what differs, as {"keras": ..., "torch": ...}.
        ties: further causes that explain it as well.
    """

    cause: str
    keras_name: str | None
    torch_name: str | None
    error_before: float
    error_after: float | None
    fix: str
    keras_fix: str
    level: str = "forward"
    values: dict[str, object] = field(default_factory=dict)
    ties: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of `parity.diagnose`; `print(diagnosis)` shows it.

    Attributes:
        verdict: "equal", "rounding" or "different".
        level: "forward", "backward" or "training".
        weights: "copy" or "as_is".
        error: relative L2 error of the outputs, both models running freely.
        alignment: which layer is the partner of which, in execution order.
        findings: every independent cause, in execution order.
        notes: what was left out or could not be judged, a sentence each.
    """

    verdict: str
    level: str
    weights: str
    error: float
    alignment: tuple[Match, ...] = field(repr=False, default=())
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    # The steps at the findings, for `write_repros`; no part of the JSON.
    culprits: tuple = field(repr=False, default=(), compare=False)

    def to_dict(self) -> dict[str, object]:
        """Returns all fields as plain values, and the number of the schema."""
        fields = asdict(replace(self, culprits=()))
        fields.pop("culprits")
        return {"schema": SCHEMA, **fields}

    def to_json(self, path: str | Path) -> None:
        """Writes the diagnosis; an infinite error is the string "Infinity"."""
        write_json(Path(path), self.to_dict())

    def __str__(self) -> str:
        """Returns the verdict, the causes and the alignment as a table."""
        from parity.diagnosis.page import text

        return text(self)
