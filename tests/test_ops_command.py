"""`python -m parity ops`: the table, one operation, JSON, the page, exit codes."""

import dataclasses
import inspect
import io
import json
import math
import os
import subprocess
import sys
from datetime import date

import pytest
from rich.console import Console

import keras_impl.initializers
import keras_impl.ops
import keras_impl.optim
from parity.frameworks import keras, missing_gpu, torch
from parity import __main__ as program
from parity import measuring, ops_command, ops_table, rows
from parity.measuring import Error
from parity.rows import signatures
from parity.rows.record import Row, kernel, maps
from parity.spec.errors import UsageError

ROWS = (
    Row(
        "padding.trap",
        "'same' with stride 2 at an even size",
        "padding",
        "other meaning",
        keras="keras.ops.conv(images, kernel, strides=2, padding='same')",
        torch="F.conv2d(F.pad(images, (0, 1, 0, 1)), kernel, stride=2)",
        naive_torch="F.conv2d(images, kernel, stride=2, padding=1)",
        symptom="the grid is shifted",
        fix="pad by hand",
        operations=("conv2d",),
        inputs={"images": maps(2, 8, 6, 3), "kernel": kernel(3, 3, 3, 4)},
        note="[bold]brackets[/bold] are no markup",
    ),
    Row(
        "padding.control",
        "'same' with stride 1",
        "padding",
        "same",
        keras="print('a row speaks')\nkeras.ops.conv(images, kernel, padding='same')",
        torch="F.conv2d(images, kernel, padding=1)",
        operations=("conv2d",),
        inputs={"images": maps(2, 8, 6, 3), "kernel": kernel(3, 3, 3, 4)},
    ),
    Row(
        "pooling.shape",
        "windows that do not fit",
        "pooling",
        "missing on one side",
        keras="layers.MaxPooling2D(2, padding='same')(images[:, :, :5])",
        torch="F.max_pool2d(images[..., :5], 2, ceil_mode=True)",
        naive_torch="F.max_pool2d(images[..., :5], 2)",
        symptom="a row less",
        fix="ceil_mode",
        inputs={"images": maps(2, 8, 6, 3)},
        shows="shape",
    ),
)
WRONG = dataclasses.replace(ROWS[1], name="padding.wrong", torch="F.relu(images)")
PIPED = ("--no-backends",)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """Makes a few rows all there are; gives what replaces them."""

    def replace(*chosen: Row) -> None:
        for module in (rows, ops_command):
            monkeypatch.setattr(module, "ROWS", chosen)

    replace(*ROWS)
    return replace


@pytest.fixture
def ops(monkeypatch, capsys):
    """Gives what runs the command: its exit code and what it prints."""

    def run(*arguments: object) -> tuple[int, str]:
        words = ["parity", "ops", *map(str, arguments), *PIPED]
        monkeypatch.setattr(sys, "argv", words)
        code = program.main()
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def nothing_runs(monkeypatch):
    """Makes measuring an error."""

    def fail(*_, **__):
        raise AssertionError("rows were run")

    monkeypatch.setattr(measuring, "measure", fail)


def test_the_table(ops):
    code, text = ops()
    lines = text.splitlines()
    assert code == 0
    assert "\x1b" not in text
    assert f"keras {keras.__version__}" in lines[0]
    assert [x for x in ("padding", "pooling") if x in lines] == ["padding", "pooling"]
    header = lines[lines.index("padding") + 1].split()
    columns = ["name", "category", "naive", "float64", "float32", "Keras", "PyTorch"]
    assert header == columns
    (trap,) = (line for line in lines if line.startswith("padding.trap"))
    assert ROWS[0].keras in trap
    assert ROWS[0].torch in trap
    (shape,) = (line for line in lines if line.startswith("pooling.shape"))
    assert " missing on one side  shape " in shape
    assert "images[..., :5]" in shape
    assert lines[-1] == "3 rows, all as the table says"
    assert ops()[1] == text


def test_a_word_filters(ops):
    code, text = ops("CEIL_MODE")
    assert code == 0
    assert "pooling.shape" in text
    assert "padding" not in text.split("PyTorch")[0]
    assert text.endswith("\n1 row, all as the table says\n")


def test_a_problem_is_named_at_the_end(ops, table):
    table(ROWS[0], WRONG)
    code, text = ops()
    assert code == 1
    *_, problem, last = text.splitlines()
    assert problem.startswith("padding.wrong: ")
    assert "the fix leaves shape" in problem
    assert last == "2 rows, 1 not as the table says"


def test_json(ops):
    code, text = ops("--json")
    found = json.loads(text)
    assert code == 0
    assert list(found) == ["date", "device", "hardware", "versions", "rows"]
    assert found["date"] == date.today().isoformat()
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert [row["name"] for row in found["rows"]] == [row.name for row in ROWS]
    trap, control, shape = found["rows"]
    assert trap["keras"] == ROWS[0].keras
    assert trap["inputs"]["images"]["shape"] == [2, 8, 6, 3]
    assert trap["measurement"]["naive"]["relative"] > 0.1
    assert trap["measurement"]["left"]["float64"]["relative"] < 1e-14
    assert control["measurement"]["naive"] is None
    assert shape["measurement"]["naive"]["relative"] is None
    assert shape["measurement"]["naive"]["text"].startswith("shape (2, 3, 4, 2)")


def test_one_operation(ops):
    code, text = ops("conv2d")
    assert code == 0
    for side in (keras_impl.ops, sys.modules["torch_impl.ops"]):
        assert inspect.getsource(side.conv2d).rstrip() in text
    assert "\n  keras.layers.Conv2D(filters, kernel_size, strides=(1, 1)," in text
    assert "\n  torch.nn.functional.conv2d(input, weight, bias=None, stride=1," in text
    assert "padding.trap  other meaning\n" in text
    assert f"naive    {ROWS[0].naive}" in text
    assert "note     [bold]brackets[/bold] are no markup" in text
    assert text.endswith("\n2 rows, all as the table says\n")
    assert "pooling.shape" not in text


@pytest.mark.parametrize("width", [80, 200])
def test_sources_stand_beside_each_other_where_there_is_room(width):
    measured = ops_table.measure(ROWS[:1], "2026-01-31", backends=())
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    ops_table.print_operation("global_avg_pool2d", measured, console)
    lines = text.getvalue().splitlines()
    beside = [
        line.split() for line in lines if line.count("def global_avg_pool2d") == 2
    ]
    assert len(beside) == (width == 200)
    assert max(map(len, lines)) <= width


def test_a_function_that_both_sides_share_is_shown_once(ops):
    code, text = ops("output_size")
    assert code == 0
    assert text.count("def output_size(") == 1


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_on_a_terminal(width):
    measured = ops_table.measure(ROWS, "2026-01-31", backends=())
    text = io.StringIO()
    ops_table.print_table(measured, Console(file=text, width=width))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert any(line.split()[:2] == ["name", "category"] for line in lines) == (
        width == 160
    )
    assert lines[-1] == "3 rows, all as the table says"


def test_the_page_is_written(ops, tmp_path):
    path = tmp_path / "docs" / "ops.html"
    code, text = ops("padding.", "--html", path)
    assert (code, text) == (0, "2 rows, all as the table says\n")
    written = path.read_text("utf-8")
    assert written.startswith("<!doctype html>")
    assert 'id="padding.trap"' in written
    assert f"<dd>{date.today().isoformat()}</dd>" in written
    assert [x.name for x in path.parent.iterdir()] == ["ops.html"]


def test_the_page_and_json(ops, tmp_path):
    code, text = ops("padding.", "--json", "--html", tmp_path / "ops.html")
    assert code == 0
    assert len(json.loads(text)["rows"]) == 2
    assert (tmp_path / "ops.html").exists()


@pytest.mark.parametrize("name", ["", "file/ops.html", "file/docs/ops.html"])
def test_a_page_that_cannot_be_written_runs_nothing(ops, tmp_path, nothing_runs, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        ops("--html", tmp_path / name)
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_failed_save_leaves_the_old_page(ops, tmp_path, monkeypatch):
    path = tmp_path / "ops.html"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UsageError, match="No space left"):
        ops("pooling", "--html", path)
    assert path.read_text() == "old"
    assert [x.name for x in tmp_path.iterdir()] == ["ops.html"]


def test_no_gpu(ops):
    if not missing_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="GPU here; --device cpu would do"):
        ops("--device", "gpu")


def test_an_unknown_word(nothing_runs):
    with pytest.raises(UsageError, match="no row has 'paddng'.* did you mean padding"):
        ops_command.select("paddng")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("convd2",), "did you mean conv2d"),
        (("--html", "/"), "cannot write /: it is a folder"),
        (("--device", "tpu"), "invalid choice: 'tpu'"),
    ],
)
def test_wrong_usage_ends_in_one_line_and_loads_no_framework(arguments, answer):
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'tensorflow', 'keras'): sys.modules[name] = None\n"
        f"sys.argv = ['parity', 'ops', *{arguments!r}]\n"
        "runpy.run_module('parity', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert answer in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(ops_command._progress(iter(ROWS))) == list(ROWS)
    printed = capsys.readouterr()
    assert (printed.out, bool(printed.err)) == ("", terminal)


def test_errors_in_a_word():
    assert [ops_table.number(x) for x in (0.0, 2.123e-16, 0.0123, 1.41, 4e5)] == [
        "0",
        "2.1e-16",
        "0.012",
        "1.4",
        "4.0e+05",
    ]
    assert ops_table.brief(None) == "-"
    for text, word in (
        ("shape (1,) instead of (2,)", "shape"),
        ("TypeError: no", "TypeError"),
        ("jax is not installed", "none"),
    ):
        assert ops_table.brief(Error(math.inf, math.inf, text)) == word


def test_a_backend_agrees_up_to_rounding_or_the_rows_limit():
    row = ROWS[0]
    assert ops_table.agreement(row, None) == "-"
    assert ops_table.agreement(row, Error(1e-6, 1.0)) == "yes"
    assert ops_table.agreement(row, Error(1e-3, 1.0)) == "0.001"
    assert ops_table.agreement(row, Error(math.nan, 1.0)) == "nan"
    loose = dataclasses.replace(row, limit=0.01)
    assert ops_table.agreement(loose, Error(1e-3, 1.0)) == "yes"


# The calls that operations stand for.

OWN = {"create_optimizer", "set_learning_rate"}  # no operations


def test_every_operation_has_its_calls_and_no_other_has():
    expected = set(keras_impl.ops.__all__)
    for module in (keras_impl.optim, keras_impl.initializers):
        expected |= {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }
    assert set(signatures.CALLS) == expected - OWN


@pytest.mark.parametrize("name", signatures.CALLS)
def test_the_calls_of_an_operation_exist(name):
    for function in ops_table.functions(name):
        assert function.__name__ == name
    for calls in signatures.calls(name):
        assert all(call.parameters or call.line for call in calls)


def differing(name: str) -> list[set[str]]:
    return [
        {parameter.text for call in calls for parameter in call.parameters}
        & {p.text for call in calls for p in call.parameters if p.differs}
        for calls in signatures.calls(name)
    ]


def test_defaults_that_differ_are_marked_and_others_are_not():
    layer = inspect.signature(keras.layers.BatchNormalization).parameters
    module = inspect.signature(torch.nn.BatchNorm2d).parameters
    assert differing("batch_norm") == [
        {f"{x}={layer[x].default!r}" for x in ("momentum", "epsilon")},
        {f"{x}={module[x].default!r}" for x in ("momentum", "eps")},
    ]
    assert differing("conv2d") == [set(), set()]  # (1, 1) is 1, 'valid' is 0
    assert differing("gelu") == [{"approximate=True"}, set()]
    assert differing("elu") == [set(), set()]
    modes = {"mode='auto'", "mode='min'"}  # 'auto' is 'min' for a loss
    assert not modes & set.union(*differing("plateau"))


def test_a_builtin_is_read_from_its_documentation():
    (call,) = (x for x in signatures.calls("conv2d")[1] if "functional" in x.name)
    with pytest.raises(ValueError, match="no signature found"):
        inspect.signature(torch.nn.functional.conv2d)
    assert torch.nn.functional.conv2d.__doc__.strip().startswith(
        str(call).removeprefix("torch.nn.functional.")
    )


def test_the_command_is_listed(capsys):
    with pytest.raises(SystemExit):
        program._arguments(["--help"])
    assert "ops" in capsys.readouterr().out
