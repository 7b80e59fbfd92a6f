"""What a prediction is, and how often it is right."""

import numpy as np

# The pixels of the images that are predicted at a time.
PIXELS_AT_ONCE = 2**20
METRICS = ("top1", "top5")


def predicted_labels(logits: np.ndarray) -> np.ndarray:
    """Returns the labels int64 (N,) of logits (N, num_classes).

    One column is the logit of the second of two classes.
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    return logits.argmax(1)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of images whose label is the predicted one."""
    return float(np.mean(predicted_labels(logits) == labels))


def top5_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of images whose label is among the five likeliest.

    With five classes or fewer that is every image. Source: the ILSVRC classification
    task, as in the lecture notes on CNNs.
    """
    if logits.shape[1] <= 5:
        return 1.0
    likeliest = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return float(np.mean((likeliest == np.asarray(labels)[:, None]).any(1)))


def images_at_once(height: int, width: int) -> int:
    """Returns how many images of a size are predicted at a time."""
    return max(1, PIXELS_AT_ONCE // (height * width))


def in_order(size: int, height: int, width: int) -> list[np.ndarray]:
    """Returns the indices of each batch that predicts all of `size` images in order."""
    step = images_at_once(height, width)
    return [np.arange(i, min(i + step, size)) for i in range(0, size, step)]
