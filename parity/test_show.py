"""The steps that `show` draws are those that both sides take, and a fault is drawn."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from parity.frameworks import torch
from parity import __main__ as program
from parity import kernel_steps
from parity.spec import cli, diagrams, step_pictures, windows
from parity.spec.windows import place

SIDES = {"keras": kernel_steps.run_keras, "torch": kernel_steps.run_torch}
ONE = (1, 1)
CASES = {
    "odd, same": ("conv2d", (5, 5), (3, 3), (2, 2), ONE, "same"),
    "even, same": ("conv2d", (6, 6), (3, 3), (2, 2), ONE, "same"),
    "even, valid": ("conv2d", (6, 8), (3, 3), (2, 2), ONE, "valid"),
    "even kernel": ("conv2d", (5, 6), (4, 4), (1, 1), ONE, "same"),
    "padding 2": ("conv2d", (4, 5), (3, 3), (1, 1), ONE, 2),
    "unequal sides": ("conv2d", (5, 7), (3, 2), (1, 3), ONE, "same"),
    "dilation": ("conv2d", (7, 8), (3, 3), (1, 1), (2, 2), "valid"),
    "dilation, same": ("conv2d", (7, 6), (3, 3), (1, 1), (2, 2), "same"),
    "max": ("max_pool2d", (4, 4), (2, 2), (2, 2), ONE, "valid"),
    "max, same": ("max_pool2d", (6, 5), (3, 3), (2, 2), ONE, "same"),
    "max, padding 1": ("max_pool2d", (5, 6), (3, 3), (2, 2), ONE, 1),
    "mean, same": ("avg_pool2d", (6, 5), (3, 3), (2, 2), ONE, "same"),
    "mean, padding 1": ("avg_pool2d", (5, 6), (3, 3), (2, 2), ONE, 1),
    "transposed, same": ("conv2d_transpose", (3, 4), (3, 3), (2, 2), ONE, "same"),
    "transposed": ("conv2d_transpose", (3, 2), (3, 3), (2, 2), ONE, "valid"),
    "transposed, padding 1": ("conv2d_transpose", (4, 3), (4, 4), (2, 2), ONE, 1),
}


def reads(placed: windows.Windows) -> np.ndarray:
    """Returns which outputs each input pixel is in the steps of: (pixels, H, W)."""
    inside = ~placed.border()
    result = np.zeros((*placed.input_size, *placed.output_size), bool)
    for step in range(placed.steps):
        marked = np.zeros(placed.padded_size, bool)
        marked[placed.cells(step)] = True
        marked = marked[inside].reshape(placed.size)
        if placed.transposed:
            result[placed.unit(step)] = marked
        else:
            result[:, :, *placed.unit(step)] = marked
    return result.reshape(-1, *placed.output_size)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("side", SIDES)
def test_a_pixel_moves_exactly_the_outputs_whose_steps_hold_it(side, case):
    placed = place(*CASES[case])
    pixels = placed.input_size[0] * placed.input_size[1]
    image, kernel = kernel_steps.draw_values(placed, seed=1)
    kernel = None if kernel is None else np.ones_like(kernel)
    images = np.stack([image] * (pixels + 1))
    images[1:].reshape(pixels, pixels)[np.diag_indices(pixels)] = 1000
    outputs = SIDES[side](placed, images, kernel)
    assert outputs.shape[1:] == placed.output_size
    moved = outputs[1:] != outputs[0]
    assert np.array_equal(moved, reads(placed))
    assert moved.any()


@pytest.mark.parametrize("case", CASES)
def test_both_sides_give_what_the_steps_show(case):
    steps = kernel_steps.take_steps(place(*CASES[case]))
    assert steps.equal, steps
    assert steps.verdict == "Keras and PyTorch agree"
    assert steps.keras_sizes == steps.torch_sizes == steps.windows.output_size


@pytest.mark.parametrize("case", [case for case in CASES if "transposed" not in case])
def test_the_arithmetic_written_out_gives_the_output(case):
    placed = place(*CASES[case])
    steps = kernel_steps.take_steps(placed, seed=2)
    for step in range(placed.steps):
        written = " ".join(steps.arithmetic(step))
        for sign, code in {"·": "*", "−": "-", "∞": "inf"}.items():
            written = written.replace(sign, code)
        terms, _, result = written.rpartition("=")
        value = eval(terms.strip(), {"inf": np.inf, "max": max})
        assert value == pytest.approx(float(result), abs=0.005)
        assert value == pytest.approx(steps.torch_outputs[step][placed.unit(step)])


@pytest.mark.parametrize(
    ("case", "amounts", "output", "formula"),
    [
        ("odd, same", (1, 1, 1, 1), (3, 3), "floor((5 + 1 + 1 - 3) / 2) + 1 = 3"),
        ("even, same", (0, 1, 0, 1), (3, 3), "floor((6 + 0 + 1 - 3) / 2) + 1 = 3"),
        ("even, valid", (0, 0, 0, 0), (2, 3), "floor((6 + 0 + 0 - 3) / 2) + 1 = 2"),
        ("even kernel", (1, 2, 1, 2), (5, 6), "floor((5 + 1 + 2 - 4) / 1) + 1 = 5"),
        ("dilation", (0, 0, 0, 0), (3, 4), "floor((7 + 0 + 0 - 5) / 1) + 1 = 3"),
        ("unequal sides", (1, 1, 0, 1), (5, 3), "floor((5 + 1 + 1 - 3) / 1) + 1 = 5"),
        ("transposed, same", (0, 1, 0, 1), (6, 8), "(3 - 1) * 2 + 3 - 0 - 1 = 6"),
        ("transposed, padding 1", (1, 1, 1, 1), (8, 6), "(4 - 1) * 2 + 4 - 1 - 1 = 8"),
    ],
)
def test_the_padding_and_the_size(case, amounts, output, formula):
    placed = place(*CASES[case])
    top, bottom, left, right = amounts
    printed = f"top {top}, bottom {bottom}, left {left}, right {right}"
    assert placed.describe_padding() == printed
    assert placed.output_size == output
    assert placed.formula(0) == formula


def test_the_pixels_that_no_window_reads():
    dropped = ~place(*CASES["even, valid"]).seen()
    assert dropped[5].all()
    assert dropped[:, 7].all()
    assert dropped.sum() == 8 + 5
    gaps = ~place("conv2d", (5, 5), (2, 2), (5, 5), (2, 2)).seen()
    assert gaps.sum() == 25 - 4


@pytest.mark.parametrize(
    ("case", "value", "shown"),
    [
        ("padding 2", 0.0, "0"),
        ("max, padding 1", -np.inf, "−∞"),
        ("mean, padding 1", np.nan, ""),
    ],
)
def test_padding_has_its_true_value(case, value, shown):
    steps = kernel_steps.take_steps(place(*CASES[case]))
    assert np.array_equal(steps.padded()[0, 0], value, equal_nan=True)
    assert windows.show(value) == shown


def run(monkeypatch, *arguments: object) -> int:
    """Returns the exit code of `python -m parity show ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["parity", "show", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.run("parity", program.main)
    return stop.value.code


SMALL = ("max_pool2d", "--input", 4, "--kernel", 2)


def test_a_png_and_what_is_printed(tmp_path, monkeypatch, capsys):
    output = tmp_path / "a" / "pool.PNG"
    assert run(monkeypatch, *SMALL, "--output", output) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    lines = printed.splitlines()
    assert lines[1:5] == [
        "padding: top 0, bottom 0, left 0, right 0",
        "output height: floor((4 + 0 + 0 - 2) / 2) + 1 = 2",
        "output width: floor((4 + 0 + 0 - 2) / 2) + 1 = 2",
        "steps: 4",
    ]
    keras, torch_ = lines.index("Keras, 2x2:"), lines.index("PyTorch, 2x2:")
    assert lines[keras + 1 : keras + 3] == lines[torch_ + 1 : torch_ + 3]
    assert lines[-1] == "Keras and PyTorch agree"
    with Image.open(output) as image:
        assert image.format == "PNG"
        assert not red_pixels(image)


def test_a_gif_has_a_frame_for_each_step(tmp_path, monkeypatch):
    output = tmp_path / "pool.gif"
    assert run(monkeypatch, *SMALL, "--output", output) == 0
    with Image.open(output) as image:
        assert (image.format, image.n_frames) == ("GIF", 4)
        assert image.info["loop"] == 0
        frames = []
        for frame in range(4):
            image.seek(frame)
            assert image.info["duration"] == 800
            frames.append(np.asarray(image.convert("RGB")))
    assert len({frame.tobytes() for frame in frames}) == 4


def red_pixels(image: Image.Image) -> int:
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(int), -1, 0)
    return int(((red > 150) & (green < 40) & (blue < 40)).sum())


def pad_on_the_other_side(images, kernel, **arguments):
    flipped = REAL(images.flip((2, 3)), kernel.flip((2, 3)), **arguments)
    return flipped.flip((2, 3))


def pad_nothing(images, kernel, **arguments):
    return REAL(images, kernel, **(arguments | {"padding": "valid"}))


REAL = kernel_steps.torch_ops.conv2d
FAULTS = {
    pad_on_the_other_side: "DIFFER in 8 of 9 outputs; not as the windows say: Keras 0",
    pad_nothing: "DIFFER in 5 of 9 outputs, sizes 3x3 and 2x2; not as the windows",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_disagreement_is_drawn_in_red(fault, tmp_path, monkeypatch, capsys):
    def faulty(images, kernel, **arguments):
        images, kernel = map(torch.as_tensor, (images, kernel))
        return fault(images, kernel, **arguments)

    monkeypatch.setattr(kernel_steps.torch_ops, "conv2d", faulty)
    even = ("conv2d", "--input", 6, "--stride", 2, "--padding", "same")
    output = tmp_path / "fault.png"
    assert run(monkeypatch, *even, "--output", output) == 1
    assert FAULTS[fault] in capsys.readouterr().out
    with Image.open(output) as image:
        assert red_pixels(image) > 500
    steps = kernel_steps.take_steps(place(*CASES["even, same"]))
    written = texts(step_pictures.draw_panels(steps))
    assert steps.verdict in written
    last = (steps.keras_outputs[-1][-1, -1], steps.torch_outputs[-1][-1, -1])
    for letter, value in zip("KP", last, strict=True):
        assert f"{letter} {windows.show(value) or 'none'}" in written


def test_a_fault_of_both_sides_is_no_agreement(monkeypatch):
    keras_conv2d = kernel_steps.keras_ops.conv2d
    twice = {
        kernel_steps.keras_ops: lambda *args, **rest: 2 * keras_conv2d(*args, **rest),
        kernel_steps.torch_ops: lambda *args, **rest: 2 * REAL(*args, **rest),
    }
    for module, conv2d in twice.items():
        monkeypatch.setattr(module, "conv2d", conv2d)
    steps = kernel_steps.take_steps(place(*CASES["odd, same"]))
    assert not steps.equal
    assert "agree, but NOT with the windows: 9 of 9" in steps.verdict


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("case", CASES)
def test_no_text_is_cut_off_or_lies_on_another(case):
    steps = kernel_steps.take_steps(place(*CASES[case]))
    figure = step_pictures._draw(steps, [steps.windows.steps - 1], 1)
    renderer = figure.canvas.get_renderer()
    drawn = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    boxes = np.array([text.get_window_extent(renderer).extents for text in drawn])
    assert boxes[:, :2].min() > 0
    assert (boxes[:, 2:].max(0) < figure.bbox.extents[2:]).all()
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.triu(np.clip(high - low - 2, 0, None).prod(-1), 1)
    assert overlap.max() == 0, [drawn[i].get_text() for i in np.argwhere(overlap)[0]]


def test_a_long_walk_shows_the_first_steps_and_the_last():
    steps = kernel_steps.take_steps(place("conv2d", (8, 8), (3, 3), padding="same"))
    names = [
        x for x in texts(step_pictures.draw_panels(steps)) if x.startswith("step ")
    ]
    assert names[0] == "step 1 of 64"
    assert 2 < len(names) <= 16
    left_out = re.fullmatch(r"step 64 of 64 \(steps (\d+) to 63 left out\)", names[-1])
    assert int(left_out[1]) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["conv2d", "--kernel", "7"],
            "a kernel of 7x7 is larger than the padded input",
        ),
        (
            ["conv2d", "--dilation", "3"],
            "a kernel of 3x3, which spans 7x7 with its gaps, is larger than the padded",
        ),
        (["conv3d"], "unknown operation 'conv3d'; did you mean conv2d"),
        (["conv2d", "--input", "5x5x3"], "'5x5x3' is no size such as 5 or 5x7"),
        (["conv2d", "--input", "0"], "'0' is not an integer of 1 or more"),
        (["conv2d", "--padding", "full"], "'full' is not same, valid or an integer"),
        (["conv2d", "--padding", "-1"], "'-1' is not same, valid or an integer"),
        (["conv2d", "--input", "99999999"], "are too many to read; give at most 20"),
        (["avg_pool2d", "--dilation", "2"], "avg_pool2d takes no --dilation"),
        (["max_pool2d", "--padding", "2"], "where there is nothing to pool; give less"),
        (
            ["conv2d_transpose", "--input", "1", "--padding", "2"],
            "leaves no output of a 1x1 input without 2 pixels on every side",
        ),
    ],
)
def test_wrong_usage_ends_in_one_line(
    arguments, message, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "old.png"
    output.write_bytes(b"old")
    assert run(monkeypatch, *arguments, "--output", output) == 2
    answer = capsys.readouterr()
    assert message in answer.err
    assert (answer.err.count("\n"), answer.out) == (1, "")
    assert output.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a.svg", (), "give a name in .png or .gif"),
        ("a.gif", ("--input", "9"), "81 steps are more than the 64 frames of a .gif"),
    ],
)
def test_a_file_that_cannot_be_drawn(
    name, arguments, message, tmp_path, monkeypatch, capsys
):
    given = ("conv2d", "--padding", "same", *arguments)
    assert run(monkeypatch, *given, "--output", tmp_path / name) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", step_pictures.SUFFIXES)
def test_a_failed_save_keeps_the_old_file(suffix, tmp_path, monkeypatch, capsys):
    def fail(steps, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(step_pictures, "draw_steps", fail)
    output = tmp_path / f"old{suffix}"
    output.write_bytes(b"old")
    assert run(monkeypatch, *SMALL, "--output", output) == 2
    assert f"cannot write {output}: No space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert output.read_bytes() == b"old"


def svg_texts(svg: str) -> list[str]:
    assert "currentColor" in svg
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    return [element.text for element in root.iter() if element.tag.endswith("text")]


def test_the_padding_diagram():
    written = svg_texts(diagrams.padding_svg())
    assert "0 before, 1 after" in written
    assert "1 before, 1 after" in written
    assert "crossed: read by no window" in written
    assert "crossed: read by no window" not in svg_texts(diagrams.padding_svg(5))


def test_the_average_pool_diagram_has_the_framework_s_numbers():
    image = torch.full((1, 1, 4, 4), 9.0)
    pooled = [
        torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=counted)
        for counted in (True, False)
    ]
    numbers = [f"{value:g}" for output in pooled for value in output.ravel().tolist()]
    written = svg_texts(diagrams.average_pool_svg())
    assert [text for text in written if text.isdigit()][36:] == numbers


def test_the_resize_diagram_reads_where_the_framework_reads():
    ramp = torch.arange(4.0)[None, None]
    written = svg_texts(diagrams.resize_svg())
    positions = [float(text) for text in written_positions(written)]
    for corners, drawn in ((True, positions[:8]), (False, positions[8:])):
        resized = torch.nn.functional.interpolate(
            ramp, 8, mode="linear", align_corners=corners
        )
        expected = np.clip(drawn, 0, 3)
        assert resized.ravel().numpy() == pytest.approx(expected, abs=0.005)


def written_positions(written: list[str]) -> list[str]:
    """Returns the numbers below the arrows, without the pixels' own 0 to 3."""
    numbers = [x.replace("−", "-") for x in written if re.fullmatch(r"−?[\d.]+", x)]
    return [*numbers[4:12], *numbers[16:]]
