"""Small diagrams for a web page, as SVG text: padding, pooled borders, resizing.

The background is transparent and lines and letters take the page's own colour, so that
they are read on light and on dark pages.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from parity.spec.windows import Windows, expect, place, show

CELL = 36  # pixels
LETTER = 9  # pixels that a bold letter takes at most, on average
ACCENT, OTHER = "#d98c00", "#3d85c6"
FAINT = 'fill="currentColor" fill-opacity="0.1"'
LINE = 'stroke="currentColor" stroke-opacity="0.55"'


def padding_svg(size: int = 6, kernel_size: int = 3, stride: int = 2) -> str:
    """Returns where the windows lie under TensorFlow's 'same' and symmetric padding.

    Args:
        size: pixels along the one axis that is drawn.
        kernel_size: odd; the symmetric padding is half of it, rounded down.
        stride: pixels from one window to the next.
    """
    half = kernel_size // 2
    pairs = [(size, size), (kernel_size, kernel_size), (stride, stride), (1, 1)]
    parts, down = [], 0
    for mode, name in (
        ("same", 'padding="same" (TensorFlow)'),
        (half, f"padding={half} (PyTorch)"),
    ):
        windows = place("conv2d", *pairs, mode)
        before, after = windows.padding[0]
        amounts = f"{before} before, {after} after"
        parts.append(_text(0, down + 16, name, bold=True))
        parts.append(_text(0, down + 34, amounts))
        parts += _axis(windows, (half - before) * CELL, down + 46)
        down += 46 + CELL + 16 * windows.count[0] + 28
        if not windows.seen().all():
            parts.append(_text(0, down - 4, "crossed: read by no window", small=True))
            down += 20
    title = f"Windows of {kernel_size} pixels at stride {stride} on {size} pixels"
    return _svg(title, (size + 2 * half) * CELL, down - 16, parts)


def _axis(windows: Windows, left: float, top: float) -> list[str]:
    """Returns one axis with its padding, and a bar below for each window."""
    before, size = windows.padding[0][0], windows.size[0]
    seen = windows.seen().any(1)
    parts = []
    for index in range(windows.padded_size[0]):
        pixel = index - before
        inside = 0 <= pixel < size
        label = str(pixel + 1) if inside else "0"
        x = left + index * CELL
        parts.append(_cell(x, top, label, padding=not inside, unseen=not seen[index]))
    for step in range(windows.count[0]):
        start = left + step * windows.stride[0] * CELL
        y, width = top + CELL + 8 + 16 * step, windows.extent[0] * CELL
        color = (ACCENT, OTHER)[step % 2]
        parts.append(
            f'<rect x="{start + 3:g}" y="{y:g}" width="{width - 6:g}" height="9" '
            f'rx="4.5" fill="{color}"/>'
        )
    return parts


def average_pool_svg(size: int = 4, value: int = 9) -> str:
    """Returns what 3x3 average pooling with padding 1 makes of a constant image.

    Once with the padding counted as zeros and once with it not counted.

    Args:
        size: pixels a side.
        value: of every pixel.
    """
    windows = place("avg_pool2d", (size, size), (3, 3), (1, 1), (1, 1), 1)
    image = np.full((size, size), float(value))
    alone = expect(windows, image, None)[-1]
    padded = np.pad(image, 1)
    counted = np.reshape(
        [padded[windows.cells(step)].mean() for step in range(windows.steps)],
        windows.count,
    )
    parts = [_text(0, 16, "image and padding", bold=True)]
    for (row, column), border in np.ndenumerate(windows.border()):
        label = "0" if border else show(value)
        x, y = column * CELL, 28 + row * CELL
        parts.append(_cell(x, y, label, padding=border))
    parts.append(_window(0, 28, 3))
    left, top = (size + 2) * CELL, 28 + CELL
    outputs = (("padding counted", counted, 9), ("padding not counted", alone, 4))
    for name, values, divisor in outputs:
        left += CELL
        parts.append(_text(left, 16, name, bold=True))
        corner = f"corner: 4·{value} / {divisor} = {show(values[0, 0])}"
        parts.append(_text(left, 34, corner))
        for (row, column), number in np.ndenumerate(values):
            x, y = left + column * CELL, top + row * CELL
            parts.append(_cell(x, y, show(number)))
        parts.append(_window(left, top, 1))
        left += max(size * CELL, LETTER * len("padding not counted"))
    title = f"3x3 average pooling with padding 1 of an image of {value}s"
    return _svg(title, left, 28 + (size + 2) * CELL + 4, parts)


def resize_svg(size: int = 4, outputs: int = 8) -> str:
    """Returns where bilinear resizing reads the image, by two conventions.

    Args:
        size: pixels along the one axis that is drawn.
        outputs: pixels of the resized axis, two or more.
    """
    pixels = np.arange(outputs)
    corners = pixels * (size - 1) / (outputs - 1)
    halves = (pixels + 0.5) * size / outputs - 0.5
    parts, down = [], 0
    wide = max(2 * CELL, 380 / size)
    for name, positions in (
        ("align_corners=True: the outer centres meet", corners),
        ("half-pixel centres: the outer edges meet", halves),
    ):
        parts.append(_text(0, down + 16, name, bold=True))
        parts += _samples(positions, size, wide, down + 28)
        down += 28 + CELL + 68
    title = f"Where a bilinear resize from {size} to {outputs} pixels reads"
    return _svg(title, size * wide, down, parts)


def _samples(
    positions: Sequence[float], size: int, wide: float, top: float
) -> list[str]:
    """Returns pixels with their centres, and below an arrow up to each position."""
    parts = []
    for pixel in range(size):
        x = pixel * wide
        parts.append(
            f'<rect x="{x + 0.5:g}" y="{top:g}" width="{wide:g}" '
            f'height="{CELL}" {FAINT} {LINE}/>'
            f'<circle cx="{x + wide / 2:g}" cy="{top + 11:g}" r="4" '
            'fill="currentColor" fill-opacity="0.7"/>'
        )
        parts.append(_text(x + 8, top + 15, str(pixel), small=True))
    for index, position in enumerate(positions):
        x, end = (position + 0.5) * wide, top + 19
        color = (ACCENT, OTHER)[index % 2]
        beyond = position < 0 or position > size - 1
        dash = ' stroke-dasharray="3 3"' if beyond else ""
        foot = top + CELL + 16 + 16 * (index % 2)
        parts.append(
            f'<path d="M{x:.2f} {foot:g}V{end:g}" stroke="{color}" stroke-width="2" '
            f'fill="none"{dash}/><path d="M{x:.2f} {end - 2:g}l-4 8h8z" '
            f'fill="{color}"/>'
        )
        label = f"{position:.2f}".rstrip("0").rstrip(".").replace("-", "\N{MINUS SIGN}")
        parts.append(_text(x, foot + 13, label, small=True, middle=True))
    if min(positions) < 0:
        note = "dashed: beyond the outer centres, takes the outer pixel"
        parts.append(_text(0, top + CELL + 64, note, small=True))
    return parts


def _cell(x: float, y: float, label: str, padding=False, unseen=False) -> str:
    dash = ' stroke-dasharray="3 3"' if padding else ""
    fill = 'fill="none"' if padding else FAINT
    box = (
        f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{CELL}" height="{CELL}" '
        f"{fill} {LINE}{dash}/>"
    )
    if unseen:
        box += (
            f'<path d="M{x + 0.5:g} {y + 0.5:g}l{CELL} {CELL}m-{CELL} 0l{CELL} '
            f'-{CELL}" {LINE}/>'
        )
    return box + _text(x + CELL / 2, y + CELL / 2 + 5, label, middle=True)


def _window(x: float, y: float, cells: int) -> str:
    side = cells * CELL
    return (
        f'<rect x="{x + 1.5:g}" y="{y + 1.5:g}" width="{side - 2}" height="{side - 2}" '
        f'fill="{ACCENT}" fill-opacity="0.25" stroke="{ACCENT}" stroke-width="3"/>'
    )


def _text(x: float, y: float, text: str, bold=False, small=False, middle=False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    anchor = ' text-anchor="middle"' if middle else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{11 if small else 14}"{weight}{anchor}>'
        f"{escape(text)}</text>"
    )


def _svg(title: str, width: float, height: float, parts: list[str]) -> str:
    size = f'width="{width + 2:g}" height="{height + 2:g}"'
    box = f'viewBox="-1 -1 {width + 2:g} {height + 2:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img" '
            'fill="currentColor" font-family="system-ui, sans-serif">',
            f"<title>{escape(title)}</title>",
            *parts,
            "</svg>\n",
        ]
    )
