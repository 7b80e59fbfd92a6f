"""Devices and precisions by name, the same on both sides."""

import re

from parity.spec.errors import UsageError, unknown

DEVICES = ("auto", "cpu", "gpu", "gpu:1")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")

# float16 ends at 65,504 and at 6e-8: the loss is multiplied by a power of two before
# the gradients are computed, which is halved where they overflow and doubled after so
# many steps in which they did not (Micikevicius et al. 2018, arXiv:1710.03740).
LOSS_SCALE = 2.0**15
LOSS_SCALE_STEPS = 2000


def parse(name: str) -> tuple[str, int]:
    """Returns "auto", "cpu" or "gpu", and the number of the GPU, from 0.

    Of several GPUs, as in "gpu:0,gpu:1", it is the first one's.

    Raises:
        UsageError: it is none of these, or names a GPU twice.
    """
    names = name.split(",")
    found = [re.fullmatch(r"(auto|cpu|gpu)|gpu:(\d{1,4})", x) for x in names]
    if not all(found) or (len(names) > 1 and not all(x[2] for x in found)):
        raise unknown("device", name, DEVICES)
    numbers = [int(x[2] or 0) for x in found]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--device {name} names a GPU twice")
    return found[0][1] or "gpu", numbers[0]


def check_precision(precision: str, device: str) -> None:
    """Raises UsageError for a precision that a device does not have.

    Args:
        precision: one of PRECISIONS.
        device: "cpu" or "gpu".
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == "tf32" and device == "cpu":
        raise UsageError(
            "tf32 is arithmetic of GPUs; on the CPU --precision float32 or bfloat16 "
            "would do"
        )
