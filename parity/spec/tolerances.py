"""How far apart two results are, and how far equal ones may be."""

import math

import numpy as np

# Relative L2 errors below which two float64 results are equal. Rounding in float64
# leaves 1e-16 to 1e-14 in the networks here, and the smallest bug that has been seen
# (an epsilon of 1e-7 for 1e-8) leaves more than 1e-9: any bound between tells them
# apart. Gradients and weights after many steps have been rounded more often.
# float32 has no such bounds: see parity/rounding.py.
TOLERANCES = {
    "outputs": 1e-10,
    "loss": 1e-10,
    "gradients": 1e-9,
    "weights": 1e-9,
    "steps": 1e-9,
    "operation": 1e-12,
}
# TensorFlow rounds some constants to float32 inside a float64 model, and resizes in
# float32, which sums more of it. What it leaves of a whole step that nothing explains,
# or of a script of one layer, is less; float32 weights agree to the last of these.
ROUNDED = {
    "constants": 3e-7,
    "resize": 3e-6,
    "step": 1e-7,
    "script": 1e-6,
    "weights": 1e-6,
}


def relative_error(
    value: np.ndarray, reference: np.ndarray, smallest: float = 0.0
) -> float:
    """Returns |value - reference| / |reference| in the L2 norm.

    Infinite when the shapes differ or when NaN or an infinity stands at a place in
    one array and not in the other.

    Args:
        value: an array.
        reference: another.
        smallest: the least that counts as the reference's norm; below it an error is
            measured against this, since a reference that is 0 but for rounding (the
            gradient of a bias before a BatchNorm) has no digits to compare.
    """
    value, reference = np.asarray(value, float), np.asarray(reference, float)
    if value.shape != reference.shape:
        return math.inf
    finite = np.isfinite(reference)
    if not np.array_equal(finite, np.isfinite(value)):
        return math.inf
    if not np.array_equal(value[~finite], reference[~finite], equal_nan=True):
        return math.inf
    distance = np.linalg.norm(value[finite] - reference[finite])
    size = max(np.linalg.norm(reference[finite]), smallest)
    return float(distance / size) if size > 0 else float(distance)
