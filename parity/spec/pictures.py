"""The two pictures of a run folder, and the one of receptive fields."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parity.spec.fields import EffectiveField, gaussian


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


def draw_receptive_fields(fields: Sequence[EffectiveField], path: Path) -> None:
    """Draws each field in one row: both sides, their difference, and the profiles.

    A dashed box is the theoretical field, where the image holds it.

    Args:
        fields: what was measured.
        path: the PNG file to be.
    """
    figure = _new_figure(figsize=(14, 3.7 * len(fields)))
    rows = figure.subplots(len(fields), 4, squeeze=False)
    for (*panels, plot), field in zip(rows, fields, strict=True):
        brightest = max(field.keras_map.max(), field.torch_map.max())
        difference = np.abs(field.keras_map - field.torch_map)
        panel_titles = ("Keras", "PyTorch", "|Keras - PyTorch|")
        maps = (field.keras_map, field.torch_map, difference)
        for axes, title, values in zip(panels, panel_titles, maps, strict=True):
            limit = (difference.max() or 1) if values is difference else brightest
            picture = axes.imshow(values, cmap="magma", vmin=0, vmax=limit)
            figure.colorbar(picture, ax=axes, shrink=0.8)
            axes.set_title(title)
            _frame(axes, field)
        panels[0].set_ylabel(field.title)
        _draw_profiles(plot, field)
    figure.savefig(path, dpi=100, format="png")


def _frame(axes, field: EffectiveField) -> None:
    """Draws the theoretical field and shows little more than it."""
    from matplotlib.patches import Rectangle

    starts, limits = [], []
    for size, seen in zip(field.theoretical, field.support(), strict=True):
        middle, room = (seen.start + seen.stop - 1) / 2, 0.65 * size + 1
        starts.append(middle - size / 2)
        limits.append((middle - room, middle + room))
    (top, bottom), (left, right) = (
        (max(low, -0.5), min(high, pixels - 0.5))
        for (low, high), pixels in zip(limits, field.torch_map.shape, strict=True)
    )
    axes.set(xlim=(left, right), ylim=(bottom, top))
    box = {"fill": False, "edgecolor": "white", "linestyle": "--"}
    axes.add_patch(Rectangle(starts[::-1], *field.theoretical[::-1], **box))


def _draw_profiles(axes, field: EffectiveField) -> None:
    for name, profile, color in zip(
        ("down", "across"), field.profiles(), ("tab:blue", "tab:orange"), strict=True
    ):
        height, mean, sigma = gaussian(profile)
        offsets = np.arange(len(profile)) - mean
        fine = np.linspace(offsets[0], offsets[-1], 400)
        label = f"{name}, sigma {sigma:.2f} px"
        axes.plot(offsets, profile, ".-", color=color, lw=0.8, label=label)
        curve = height * np.exp(-(fine**2) / (2 * sigma**2))
        axes.plot(fine, curve, "--", color=color, lw=2, zorder=3)
    sizes = (1.3 * max(field.theoretical) + 2, max(field.torch_map.shape))
    reach = min(sizes) / 2
    axes.set_xlim(-reach, reach)
    axes.set(xlabel="pixels from the centre", ylabel="mean |gradient|")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.set_title("profiles and Gaussian fits")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
