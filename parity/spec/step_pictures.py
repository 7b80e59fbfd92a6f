"""Pictures of a kernel's steps: panels in a PNG, or one frame a step in a GIF."""

import textwrap
from pathlib import Path

import numpy as np

from parity.spec.errors import UsageError
from parity.spec.pictures import _new_figure
from parity.spec.windows import Steps, Windows, show

SUFFIXES = (".gif", ".png")
PANELS, FRAMES = 16, 64
SECONDS = 0.8  # that a frame stands
CELL = 0.4  # inches
WIDEST, HIGHEST = 17.0, 22.0  # inches of a PNG, where one panel is smaller
LETTER = 0.19  # cells that a letter of the arithmetic takes
TERMS = 25  # of the arithmetic that is written out
HEAD, GAP, LINE = 3.5, 1.4, 0.44  # cells: the heading, between two grids, a text line

# Light to dark as window > padding > edges, so that grey printing keeps them apart;
# the hues are Okabe and Ito's, which every kind of colour vision tells apart.
PAPER, WINDOW, DONE = "#ffffff", "#f5c242", "#d6eaf8"
PADDING, HATCH, EDGE = "#e4e4e4", "#c2c2c2", "#777777"
UNSEEN, WRONG, PALE = "#b0b0b0", "#b00000", "#fdf0cf"  # pale: window, but red on it


def check(windows: Windows, path: Path) -> None:
    """Raises a UsageError where the steps cannot be drawn in such a file."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw into {path}; give a name in .png or .gif")
    if path.suffix.lower() == ".gif" and windows.steps > FRAMES:
        raise UsageError(
            f"{windows.steps} steps are more than the {FRAMES} frames of a .gif; give "
            "a smaller --input, a larger --stride, or a .png"
        )


def draw_steps(steps: Steps, path: Path) -> None:
    """Draws the steps as panels (.png), or animated in a loop (.gif).

    Args:
        steps: what to draw.
        path: the file to be.

    Raises:
        UsageError: the steps cannot be drawn in such a file.
    """
    check(steps.windows, path)
    if path.suffix.lower() == ".png":
        draw_panels(steps).savefig(path, format="png")
        return
    from PIL import Image

    frames = []
    for step in range(steps.windows.steps):
        figure = _draw(steps, [step], columns=1)
        figure.canvas.draw()
        frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())))
    first, *rest = [
        frame.convert("RGB").quantize(64, dither=Image.Dither.NONE) for frame in frames
    ]
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=round(1000 * SECONDS),
        loop=0,
    )


def draw_panels(steps: Steps):
    """Returns a figure with a panel for each step, or for the first ones and the last.

    Args:
        steps: what to draw.
    """
    width, height = (CELL * cells for cells in _panel_size(steps))
    columns = max(1, int(WIDEST / width))
    rows = max(1, int((HIGHEST - CELL * HEAD) / height))
    room = max(2, min(PANELS, columns * rows))
    shown = list(range(steps.windows.steps))
    if len(shown) > room:
        shown = [*shown[: room - 1], shown[-1]]
    columns = min(columns, max(steps.windows.count[1], 2), len(shown))
    return _draw(steps, shown, columns)


def _panel_size(steps: Steps) -> tuple[float, float]:
    """Returns a panel's width and height in cells, with room around it."""
    windows = steps.windows
    (high, wide), (rows, columns) = windows.padded_size, windows.count
    lines = _arithmetic(steps, 0)
    longest = max(
        (len(x) for step in range(windows.steps) for x in _arithmetic(steps, step)),
        default=0,
    )
    body = max(wide + GAP + columns, LETTER * longest, 9)
    return body + 1.6, max(high, rows) + 1.9 + LINE * len(lines) + 0.5


def _arithmetic(steps: Steps, step: int) -> list[str]:
    height, width = steps.windows.kernel_size
    if height * width > TERMS:
        return []
    return steps.arithmetic(step)


def _draw(steps: Steps, shown: list[int], columns: int):
    width, height = _panel_size(steps)
    rows = -(-len(shown) // columns)
    letters = 0.22  # cells of a letter of the heading
    page = max(columns * width, 23)
    title = textwrap.wrap(str(steps.windows), int((page - 1.6) / letters))
    head = HEAD + 0.6 * (len(title) - 1)
    size = (page, rows * height + head)
    figure = _new_figure(figsize=tuple(CELL * cells for cells in size), dpi=100)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.axis("off")
    _draw_heading(axes, steps, title)
    left = (page - columns * width) / 2
    for place, step in enumerate(shown):
        row, column = divmod(place, columns)
        corner = (left + column * width + 0.8, head + row * height)
        before = shown[place - 1] if place else step - 1
        _Panel(axes, steps, step, corner, left_out=step - before - 1).draw()
    return figure


def _draw_heading(axes, steps: Steps, title: list[str]) -> None:
    name = steps.windows.operation
    down = 0.75
    for line in title:
        axes.text(0.8, down, line, size=12, weight="bold", va="center")
        down += 0.6
    sides = f"keras_impl.ops.{name} and torch_impl.ops.{name}, in float64"
    axes.text(0.8, down, sides, size=9, va="center")
    down += 0.6
    color = "black" if steps.equal else WRONG
    axes.text(
        0.8, down, steps.verdict, size=10, color=color, weight="bold", va="center"
    )
    down += 0.75
    across = 0.8
    for label, drawn in _legend(steps):
        _cell(axes, across, down - 0.25, 0.5, **drawn)
        axes.text(across + 0.7, down, label, size=9, va="center")
        across += 1.3 + 0.19 * len(label)


def _legend(steps: Steps) -> list[tuple[str, dict]]:
    windows = steps.windows
    meaning = {
        "conv2d": "padding, 0",
        "max_pool2d": "padding, \N{MINUS SIGN}\N{INFINITY}",
        "avg_pool2d": "padding, not counted",
        "conv2d_transpose": "cut off",
    }[windows.operation]
    seen = windows.seen()
    entries = [("this step", {"fill": WINDOW, "thick": True})]
    if windows.border().any():
        entries.append((meaning, {"fill": PADDING, "hatch": True}))
    if not seen.all():
        word = "under no window" if windows.transposed else "seen by no window"
        entries.append((word, {"crossed": True}))
    entries.append(("done", {"fill": DONE}))
    if not steps.equal:
        entries.append(("differs: K is Keras, P is PyTorch", {"wrong": True}))
    return entries


def _cell(
    axes,
    x: float,
    y: float,
    size: float = 1.0,
    fill: str = PAPER,
    hatch: bool = False,
    thick: bool = False,
    crossed: bool = False,
    wrong: bool = False,
) -> None:
    from matplotlib.patches import Rectangle

    if wrong:
        fill = {WINDOW: PALE}.get(fill, PAPER)
    box = {"facecolor": fill, "linewidth": 0}
    axes.add_patch(Rectangle((x, y), size, size, **box, zorder=1))
    if hatch:
        lines = {"fill": False, "edgecolor": HATCH, "linewidth": 0, "hatch": "////"}
        axes.add_patch(Rectangle((x, y), size, size, **lines, zorder=2))
    if crossed:
        for ends in ((y, y + size), (y + size, y)):
            axes.plot((x, x + size), ends, color=UNSEEN, linewidth=1, zorder=3)
    color = WRONG if wrong else "black" if thick else EDGE
    line = {"edgecolor": color, "linewidth": 2.2 if wrong or thick else 0.8}
    order = 5 + thick + wrong
    axes.add_patch(Rectangle((x, y), size, size, fill=False, **line, zorder=order))


class _Panel:
    """One step: both grids and the arithmetic."""

    def __init__(self, axes, steps: Steps, step: int, corner, left_out: int):
        self.axes, self.steps, self.step = axes, steps, step
        self.left_out = left_out
        self.windows = steps.windows
        self.left, self.top = corner
        self.grid_top = self.top + 1.4

    def draw(self) -> None:
        windows, transposed = self.windows, self.windows.transposed
        (high, wide), (rows, columns) = windows.padded_size, windows.count
        first, second = (columns, wide) if transposed else (wide, columns)
        beside = self.left + first + GAP
        self._text(self.left, self.top + 0.35, self._name())
        tall = max(high, rows)
        tops = [self.grid_top + (tall - n) / 2 for n in (high, rows)]
        if transposed:
            self._draw_units(self.left, tops[1])
            self._draw_canvas(beside, tops[0])
        else:
            self._draw_canvas(self.left, tops[0])
            self._draw_units(beside, tops[1])
        self._arrow(self.left + first, beside, self.grid_top + tall / 2)
        heights = (tops[1], tops[0]) if transposed else tops
        self._label(self.left, heights[0], "input")
        self._label(beside, heights[1], "output")
        down = self.grid_top + tall + 0.5
        for line in _arithmetic(self.steps, self.step):
            self._text(self.left, down, line, size=8, weight="normal")
            down += LINE

    def _name(self) -> str:
        name = f"step {self.step + 1} of {self.windows.steps}"
        first = self.step - self.left_out + 1
        if self.left_out == 0:
            return name
        if self.left_out == 1:
            return f"{name} (step {first} left out)"
        return f"{name} (steps {first} to {self.step} left out)"

    def _text(self, x: float, y: float, text: str, size=10, weight="bold") -> None:
        self.axes.text(x, y, text, size=size, weight=weight, va="center")

    def _label(self, x: float, top: float, text: str) -> None:
        self.axes.text(x, top - 0.3, text, size=8, va="center", color="#444444")

    def _arrow(self, start: float, end: float, y: float) -> None:
        ends = {"xy": (end - 0.2, y), "xytext": (start + 0.2, y)}
        self.axes.annotate("", **ends, arrowprops={"arrowstyle": "->", "lw": 1.2})

    def _draw_canvas(self, left: float, top: float) -> None:
        """Draws the image that the windows lie on, with its padding."""
        windows, steps = self.windows, self.steps
        border, unseen = windows.border(), ~windows.seen()
        inside = np.zeros(windows.padded_size, bool)
        cells = windows.cells(self.step)
        inside[cells] = True
        weights = np.full(windows.padded_size, np.nan)
        if steps.kernel is not None:
            weights[cells] = steps.kernel
        values = steps.padded() if not windows.transposed else None
        for (row, column), padding in np.ndenumerate(border):
            x, y = left + column, top + row
            marked = inside[row, column]
            pair = (row - windows.padding[0][0], column - windows.padding[1][0])
            wrong = (
                windows.transposed and not padding and steps.different[self.step][pair]
            )
            _cell(
                self.axes,
                x,
                y,
                fill=WINDOW if marked else PADDING if padding else PAPER,
                hatch=padding,
                thick=marked,
                crossed=bool(unseen[row, column]),
                wrong=wrong,
            )
            if windows.transposed and not padding:
                self._output(x, y, pair)
            elif not windows.transposed:
                self._number(x, y, show(values[row, column]))
            weight = show(weights[row, column])
            if marked and weight:
                self._weight(x, y, weight)
        self._outline(left, top)

    def _outline(self, left: float, top: float) -> None:
        """Draws the border between the image and its padding."""
        from matplotlib.patches import Rectangle

        (above, _), (before, _) = self.windows.padding
        height, width = self.windows.size
        line = {"fill": False, "edgecolor": "black", "linewidth": 1.6, "zorder": 5}
        self.axes.add_patch(
            Rectangle((left + before, top + above), width, height, **line)
        )

    def _draw_units(self, left: float, top: float) -> None:
        """Draws the image with a pixel for each window."""
        windows, steps = self.windows, self.steps
        now = windows.unit(self.step)
        for pair in np.ndindex(*windows.count):
            x, y = left + pair[1], top + pair[0]
            done = pair[0] * windows.count[1] + pair[1] <= self.step
            wrong = not windows.transposed and done and steps.different[self.step][pair]
            fill = WINDOW if pair == now else DONE if done else PAPER
            _cell(self.axes, x, y, fill=fill, thick=pair == now, wrong=wrong)
            if windows.transposed:
                self._number(x, y, show(steps.image[pair]))
            elif done:
                self._output(x, y, pair)

    def _number(self, x: float, y: float, text: str) -> None:
        style = {"size": 9, "zorder": 8}
        self.axes.text(x + 0.5, y + 0.43, text, ha="center", va="center", **style)

    def _weight(self, x: float, y: float, weight: str) -> None:
        style = {"size": 6.5, "zorder": 8, "color": "#333333"}
        self.axes.text(
            x + 0.95,
            y + 0.85,
            f"\N{MULTIPLICATION SIGN}{weight}",
            ha="right",
            va="center",
            **style,
        )

    def _output(self, x: float, y: float, pair: tuple[int, int]) -> None:
        """Writes what both sides computed, or both numbers where they are not one."""
        steps, step = self.steps, self.step
        keras, torch = steps.keras_outputs[step], steps.torch_outputs[step]
        if not steps.different[step][pair]:
            self._number(x, y, show(keras[pair]))
            return
        style = {"size": 6.5, "color": WRONG, "weight": "bold", "zorder": 8}
        for down, side, values in ((0.28, "K", keras), (0.72, "P", torch)):
            text = f"{side} {show(values[pair]) or 'none'}"
            self.axes.text(x + 0.5, y + down, text, ha="center", va="center", **style)
