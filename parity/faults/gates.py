"""What other tools would say of two outputs, by their formulas.

Each takes the outputs of Keras and of PyTorch in float32, in one layout, and says
whether it takes them for different. The defaults are those of the files named.
"""

from collections.abc import Callable

import numpy as np


def signed_means(keras_outputs: np.ndarray, torch_outputs: np.ndarray) -> bool:
    """PaDiff: the means, by assert_allclose with rtol 1e-7 and atol 0.

    Source: PaddlePaddle/PaDiff, padiff/checker/checker_utils.py (the defaults) and
    padiff/utils.py, `assert_tensor_equal`.
    """
    try:
        np.testing.assert_allclose(torch_outputs.mean(), keras_outputs.mean(), 1e-7, 0)
    except AssertionError:
        return True
    return False


def maximum_5e5(keras_outputs: np.ndarray, torch_outputs: np.ndarray) -> bool:
    """Hugging Face: the largest difference, above 5e-5; NaN is not above it.

    Source: huggingface/transformers, src/transformers/commands/pt_to_tf.py, MAX_ERROR.
    """
    return bool(np.max(np.abs(torch_outputs - keras_outputs)) > 5e-5)


def maximum_1e4(keras_outputs: np.ndarray, torch_outputs: np.ndarray) -> bool:
    """nobuco: the largest difference, above 1e-4; NaN and infinities at other places.

    Source: AlexanderLutsenko/nobuco, nobuco/converters/validation.py, `validate`.
    """
    for where in (np.isnan, np.isposinf, np.isneginf):
        if not np.array_equal(where(keras_outputs), where(torch_outputs)):
            return True
    finite = np.isfinite(keras_outputs)
    distance = np.abs(keras_outputs[finite] - torch_outputs[finite])
    return bool(distance.size and distance.max() > 1e-4)


def cosine(keras_outputs: np.ndarray, torch_outputs: np.ndarray) -> bool:
    """The cosine between the outputs, below 0.999."""
    ours, theirs = keras_outputs.ravel(), torch_outputs.ravel()
    sizes = np.linalg.norm(ours) * np.linalg.norm(theirs)
    return not ours @ theirs >= 0.999 * sizes


def four_thresholds(keras_outputs: np.ndarray, torch_outputs: np.ndarray) -> bool:
    """onnx2tf: largest 5e-2, mean 5e-3, root mean square 6e-3, cosine 0.999.

    The first three grow with the reference's largest number: by 2e-3, 2.5e-5 and
    6.25e-5 of it; the cosine does not count where the reference is nearly 0. The
    first and third may reach rtol, 1e-4, of its largest number and its root mean
    square.
    Source: PINTO0309/onnx2tf, onnx2tf/tflite_builder/accuracy_evaluator.py,
    `_FLOAT_METRIC_THRESHOLDS`, `_sanitize_metric_vectors` and `_judge_metrics`.
    """
    reference, values = (
        x.astype("float64").ravel() for x in (torch_outputs, keras_outputs)
    )
    alike = (np.isnan(reference) & np.isnan(values)) | (
        np.isinf(reference) & (reference == values)
    )
    large = {"nan": 0.0, "posinf": 1e30, "neginf": -1e30}
    reference, values = (
        np.nan_to_num(np.where(alike, 0.0, x), **large) for x in (reference, values)
    )
    distance = np.abs(reference - values)
    largest, size = np.abs(reference).max(), np.sqrt(np.mean(reference**2))
    largest_limit = max(5e-2, 1e-4 * largest, 2e-3 * largest)
    square_limit = max(6e-3, 1e-4 * size, 6.25e-5 * largest)
    small = largest <= max(5e-4, 1e-2 * largest_limit)
    small = small and size <= max(5e-5, 1e-2 * square_limit)
    norms = np.linalg.norm(reference) * np.linalg.norm(values)
    alike = reference @ values >= 0.999 * norms if norms else not distance.any()
    within = (
        distance.max() <= largest_limit,
        distance.mean() <= max(5e-3, 2.5e-5 * largest),
        np.sqrt(np.mean(distance**2)) <= square_limit,
        small or alike,
    )
    return not all(within)


GATES: dict[str, Callable[[np.ndarray, np.ndarray], bool]] = {
    "means 1e-7": signed_means,
    "max 5e-5": maximum_5e5,
    "max 1e-4": maximum_1e4,
    "cosine": cosine,
    "onnx2tf": four_thresholds,
}


def verdicts(keras_outputs: np.ndarray, torch_outputs: np.ndarray) -> dict[str, bool]:
    """Returns which gates take two outputs for different; all where shapes differ."""
    if keras_outputs.shape != torch_outputs.shape:
        return dict.fromkeys(GATES, True)
    with np.errstate(all="ignore"):
        return {
            name: gate(keras_outputs, torch_outputs) for name, gate in GATES.items()
        }
