"""The two pictures of a run folder."""

from pathlib import Path

import numpy as np


def _new_figure(**options: object):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def draw_curves(epochs: list[dict[str, float]], path: Path) -> None:
    """Draws loss and accuracy over the epochs.

    Args:
        epochs: the lines of metrics.jsonl.
        path: the PNG file to be.
    """
    figure = _new_figure(figsize=(9, 3.6))
    left, right = figure.subplots(1, 2)
    numbers = [epoch["epoch"] for epoch in epochs]
    marker = "o" if len(epochs) < 3 else None
    for axes, quantity in ((left, "loss"), (right, "accuracy")):
        for part in ("train", "test"):
            values = [epoch[f"{part}_{quantity}"] for epoch in epochs]
            axes.plot(numbers, values, label=part, marker=marker)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    figure.savefig(path, dpi=120)


def draw_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: tuple[str, ...],
    path: Path,
) -> None:
    """Draws 25 test images, always the same ones, with prediction and label.

    Args:
        images: uint8 (N, H, W, C).
        labels: int (N,).
        predictions: int (N,).
        classes: class names, by label.
        path: the PNG file to be.
    """
    chosen = np.random.default_rng(0).permutation(len(images))[:25]
    figure = _new_figure(figsize=(10, 10))
    for axes, index in zip(figure.subplots(5, 5).ravel(), chosen, strict=False):
        axes.imshow(images[index], cmap="gray")
        right = predictions[index] == labels[index]
        axes.set_title(
            f"Pred:{classes[predictions[index]]}, Label:{classes[labels[index]]}",
            color="black" if right else "red",
        )
    for axes in figure.axes:
        axes.axis("off")
    figure.savefig(path, dpi=80)
