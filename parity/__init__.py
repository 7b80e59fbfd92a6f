"""Copies weights between the two sides, compares them, and says where they part.

Importing this loads no framework; the first use of a name does.
"""

import importlib

_NAMES = {
    "Diagnosis": "parity.diagnosis.findings",
    "Finding": "parity.diagnosis.findings",
    "LayerReport": "parity.report",
    "LockstepReport": "parity.training",
    "Report": "parity.report",
    "WeightMismatch": "parity.spec.errors",
    "assert_parity": "parity.comparison",
    "compare": "parity.comparison",
    "compare_gradients": "parity.comparison",
    "convert": "parity.weights",
    "copy_aligned": "parity.diagnosis.copying",
    "copy_weights": "parity.weights",
    "diagnose": "parity.diagnosis.diagnose",
    "lockstep": "parity.training",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'parity' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
