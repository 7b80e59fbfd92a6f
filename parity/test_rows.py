"""Every row of the table is run: its trap still errs, and its fix leaves rounding."""

import ast
import dataclasses
import functools
import importlib
import inspect

import numpy as np
import pytest

from parity.frameworks import keras, missing_gpu, tf, torch
from keras_impl import initializers as keras_initializers
from keras_impl import ops as keras_ops
from keras_impl import optim as keras_optim
from parity import measuring, rows
from parity.measuring import Error
from parity.rows import execution
from parity.rows.execution import Failure
from parity.rows.record import BACKENDS, CATEGORIES, SECTIONS, Row, given, integers
from parity.spec.errors import UsageError

ROW_NAMES = [row.name for row in rows.ROWS]
BY_NAME = {row.name: row for row in rows.ROWS}
EVEN = BY_NAME["padding.same_stride_even"]
MODULES = ("ops", "optim", "initializers")


@functools.cache
def measurements():
    """Every row is measured once, those about another backend there."""
    before = settings()
    found = measuring.measure(rows.ROWS)
    assert settings() == before
    return {measurement.name: measurement for measurement in found}


def settings():
    """What rows may set while they run, and must leave as it was."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return (
        keras.config.floatx(),
        keras.config.dtype_policy().name,
        keras.config.image_data_format(),
        keras.config.epsilon(),
        tf.config.experimental.tensor_float_32_execution_enabled(),
        tf.config.functions_run_eagerly(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark),
        cuda.matmul.allow_tf32,
        (torch.tensor([1e-39]) / 2 > 0).item(),
    )


@pytest.mark.slow
def test_the_rows_on_other_backends():
    found = measuring.measure(rows.ROWS, backends=BACKENDS)
    assert {m.name: m.problem for m in found if m.problem} == {}
    assert sum(set(m.backends) == set(BACKENDS) for m in found) > 200


@pytest.mark.parametrize("name", ROW_NAMES)
def test_the_row_is_as_it_says(name):
    measurement = measurements()[name]
    assert measurement.problem == ""
    assert measurement.left or measurement.skipped == "needs a GPU"


@pytest.mark.parametrize("name", ROW_NAMES)
def test_the_row_is_whole(name):
    row = BY_NAME[name]
    assert row.section in SECTIONS
    assert row.category in CATEGORIES
    assert row.keras
    assert row.torch or row.backend or row.environment
    assert not (row.naive_keras and row.naive_torch)
    assert row.category == "same" or row.what
    assert bool(row.naive) == bool(row.symptom) == bool(row.fix)
    assert bool(row.limit) == bool(row.limit_reason)
    assert bool(row.says) == (row.shows not in ("error", "shape", "killed"))
    assert set(row.trap_dtypes) <= set(row.dtypes if row.naive else ())
    assert set(row.differs_on) <= set(BACKENDS if measuring.portable(row) else ())
    assert row.device in ("", "cpu", "gpu")
    for code in (row.keras, row.torch, row.naive):
        ast.parse(code)
        assert all(len(line) <= 88 for line in code.splitlines())


def test_names_are_used_once():
    assert len(set(ROW_NAMES)) == len(ROW_NAMES)


def operations():
    """Returns what a user may look up by name: every function but the helpers."""
    found = list(keras_ops.__all__)
    for module in (keras_optim, keras_initializers):
        found += [
            name
            for name, function in inspect.getmembers(module, inspect.isfunction)
            if function.__module__ == module.__name__ and name[0] != "_"
        ]
    return sorted({*found} - {"create_optimizer", "set_learning_rate"})


@pytest.mark.parametrize("name", operations())
def test_the_operation_has_a_row(name):
    assert any(name in row.operations for row in rows.ROWS)


@pytest.mark.parametrize("side", ["keras_impl", "torch_impl"])
def test_the_rows_name_operations(side):
    modules = [importlib.import_module(f"{side}.{name}") for name in MODULES]
    named = {name for row in rows.ROWS for name in row.operations}
    missing = {n for n in named if not any(n in vars(module) for module in modules)}
    assert missing == set()


def test_the_rows_on_a_gpu():
    if reason := missing_gpu():
        pytest.skip(reason)
    chosen = [row for row in rows.ROWS if not row.backend]
    found = measuring.measure(chosen, device="gpu")
    assert {m.name: m.problem for m in found if m.problem} == {}
    in_tf32 = {m.name for m in found if "tf32" in m.left}
    assert {"numerics.tf32_products", EVEN.name} <= in_tf32


def with_changes(**changes):
    (found,) = measuring.measure([dataclasses.replace(EVEN, **changes)])
    return found.problem


def test_a_trap_that_is_gone_is_seen():
    problem = with_changes(naive_torch=f"{EVEN.torch} * (1 + 1e-12)")
    version = measuring.versions()["torch"]
    assert problem.startswith("with keras ")
    assert (
        f"torch {version} the naive port shows no error any more (1.0e-12)" in problem
    )


def test_a_trap_within_the_limit_of_the_fix_is_seen():
    problem = with_changes(limit=1.5, limit_reason="a test")
    assert "shows no error any more (1.4e+00)" in problem


def test_a_trap_near_the_limit_of_the_fix_is_seen():
    problem = with_changes(limit=0.3, limit_reason="a test")
    assert "1.4e+00 in float64, less than 5 times what the fix may leave" in problem
    assert problem.endswith("(3.0e-01)")
    assert with_changes(limit=0.2, limit_reason="a test") == ""


def test_a_trap_is_judged_in_every_type():
    wrong = f"{EVEN.torch} * (2 if dtype == 'float64' else 1)"
    problem = with_changes(naive_torch=wrong)
    assert problem.endswith("shows no error any more (0.0e+00) in float32")
    assert with_changes(naive_torch=wrong, trap_dtypes=("float64",)) == ""
    raises = f"{EVEN.torch} * (2 if dtype == 'float64' else images.twice)"
    problem = with_changes(naive_torch=raises)
    assert "shows AttributeError: " in problem
    assert problem.endswith(" in float32, not error")


def test_a_row_names_the_error_of_a_type_that_errs():
    wrong = f"{EVEN.torch} * (2 if dtype == 'float32' else 1)"
    row = dataclasses.replace(EVEN, naive_torch=wrong, trap_dtypes=("float32",))
    (found,) = measuring.measure([row])
    assert found.problem == ""
    assert found.naive == found.naives["float32"]


def test_a_trap_too_near_its_fix_is_seen():
    problem = with_changes(
        torch=f"{EVEN.torch} * (1 + 1e-12)", naive_torch=f"{EVEN.torch} * (1 + 5e-10)"
    )
    assert "5.0e-10 in float64, less than 1000 times what the fix leaves" in problem


def test_a_fix_that_leaves_more_than_rounding_is_seen():
    problem = with_changes(torch="F.conv2d(images, kernel, stride=2, padding=1)")
    assert "the fix leaves 1.4e+00 in float64, more than 1e-10" in problem


def test_each_type_is_judged_by_its_own_rounding():
    slightly = f"{EVEN.torch} * (1 + 2e-6)"
    assert "2.0e-06 in float64, more than" in with_changes(torch=slightly)
    assert with_changes(torch=EVEN.torch, dtypes=("float32",)) == ""
    problem = with_changes(torch=EVEN.torch, naive_torch=slightly, dtypes=("float32",))
    assert "shows no error any more (" in problem
    assert problem.endswith("e-06) in float32")


def test_a_fix_that_fails_is_seen():
    assert "NameError" in with_changes(torch="F.conv2d(pictures, kernel)")
    assert "NameError" in with_changes(keras="keras.ops.conv(pictures, kernel)")
    both = with_changes(keras="pictures", torch="pictures", shows="NameError")
    assert "the fix leaves no reference, NameError" in both


def test_a_row_whose_inputs_are_missing_is_seen():
    assert "NameError: name 'images' is not defined" in with_changes(inputs={})


def test_another_symptom_is_seen():
    problem = with_changes(naive_torch="F.conv2d(images, kernel, padding=1)")
    assert "shows shape" in problem
    assert problem.endswith("not error")
    problem = with_changes(naive_torch="F.conv2d(images, kernel, stride='2')")
    assert "shows TypeError" in problem
    assert "shows 1.4e+00 in float64, not shape" in with_changes(shows="shape")


def test_another_message_of_an_exception_is_seen():
    changes = {"naive_torch": "[][0]", "shows": "IndexError"}
    assert with_changes(**changes, says="index out of range") == ""
    problem = with_changes(**changes, says="no such axis")
    assert "shows IndexError: list index out of range in float64" in problem
    assert problem.endswith("without 'no such axis'")


def test_code_that_has_no_result_is_seen():
    assert "SyntaxError" in with_changes(torch="result = images")
    assert "no numbers to compare" in with_changes(keras="[]", torch="[]")
    assert "TypeError: a result is" in with_changes(torch="'text'")
    assert "TypeError: a result is object" in with_changes(torch="None")
    assert "TypeError: a result is complex" in with_changes(torch="1j * images")
    quiet = f"print('progress')\n{EVEN.torch}"
    assert with_changes(torch=quiet) == ""


def arrays(*values):
    return [np.asarray(value) for value in values]


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [
        ([1.0, np.nan], [1.0, np.nan], "0.0e+00"),
        ([1.0, np.nan], [1.0, 2.0], "inf"),
        ([1.0, 2.0], [1.0, np.nan], "inf"),
        ([1.0, np.inf], [1.0, np.inf], "0.0e+00"),
        ([1.0, np.inf], [1.0, -np.inf], "inf"),
        ([3, 4], [0, 0], "5.0e+00"),
        ([True, False], [True, True], "7.1e-01"),
        ([1, 2], [1.0, 2.0], "0.0e+00"),
        ([1e200, 1e200], [1e200, -1e200], "inf"),
        ([1.0], [1.0, 2.0], "shape (1,) instead of (2,)"),
        ([], [], "no numbers to compare"),
    ],
)
def test_the_error_of_an_array(value, reference, expected):
    assert str(measuring.error(arrays(value), arrays(reference))) == expected


def test_the_error_of_several_results_is_the_worst():
    ours, theirs = arrays(1.0, [np.nan]), arrays(1.5, [np.nan])
    assert measuring.error(ours, theirs) == Error(1 / 3, 0.5)
    found = measuring.error(ours, theirs[:1])
    assert str(found) == "shape [(), (1,)] instead of [()]"
    overflow = arrays(1.0, [1e200], 2.0), arrays(1.0, [-1e200], 2.0)
    assert measuring.error(*overflow).relative == np.inf


def test_the_error_of_a_failure():
    failure = Failure("IndexError", "no such axis")
    assert str(measuring.error(failure, arrays(1.0))) == "IndexError: no such axis"
    for value in (arrays(1.0), failure):
        found = measuring.error(value, failure)
        assert str(found) == "no reference, IndexError: no such axis"


def test_nested_results_are_flattened():
    names = {"x": np.ones(2)}
    found = execution.run(
        "[[1, 2.5], (x, {'a': 3})]", names, np.asarray, channels_last=True
    )
    assert [x.tolist() for x in found] == [1, 2.5, [1.0, 1.0], 3]


def test_both_sides_start_from_the_same_seed_every_time():
    row = dataclasses.replace(
        EVEN,
        keras="keras.random.uniform((3,)) * 0 + np.random.random(3)",
        torch="torch.rand(3)",
    )
    runner = measuring.Runner("cpu")
    for side, code in (("keras", row.keras), ("torch", row.torch)):
        first, again = (runner(row, side, code, "float64") for _ in range(2))
        assert np.array_equal(first, again)


def test_layers_compute_in_the_type_of_the_row():
    layers = dataclasses.replace(
        EVEN,
        keras="[layers.Dense(2)(np.ones((1, 3)))[0, 0].dtype == dtype]",
        torch="[nn.Linear(3, 2).weight.dtype == getattr(torch, dtype)]",
        naive_torch="[False]",
    )
    for _ in range(2):  # the first layer that is made must not settle it
        (found,) = measuring.measure([layers])
        assert found.problem == ""
        assert found.left == {"float64": Error(0, 0), "float32": Error(0, 0)}


def plant(monkeypatch, errors):
    """Makes a GPU out of a number by which PyTorch's results are off, by column."""
    monkeypatch.setattr(measuring, "missing_gpu", lambda: None)

    def run(runner, row, side, code, column):
        assert runner.device == "gpu"
        off = errors[column] if side == "torch" else 0.0
        return [np.asarray(1.0 + off if code != row.naive else 1.01)]

    monkeypatch.setattr(measuring.Runner, "__call__", run)
    (found,) = measuring.measure([EVEN], device="gpu")
    return found


def test_a_gpu_gives_a_column_for_each_precision(monkeypatch):
    found = plant(monkeypatch, {"float64": 0.0, "float32": 1e-6, "tf32": 1e-3})
    assert found.problem == ""
    assert list(found.left) == list(found.naives) == ["float64", "float32", "tf32"]
    assert found.left["tf32"].relative == pytest.approx(1e-3)
    assert found.naive == found.naives["float64"]


def test_tf32_explains_what_ten_bits_explain(monkeypatch):
    assert measuring.ROUNDING["tf32"] == (2**-11 + 2**-11) * 2
    found = plant(monkeypatch, {"float64": 0.0, "float32": 0.0, "tf32": 3e-3})
    assert "the fix leaves 3.0e-03 in tf32, more than 2e-03" in found.problem
    # Nor does it excuse what float32 shows.
    found = plant(monkeypatch, {"float64": 0.0, "float32": 1e-3, "tf32": 1e-3})
    assert "the fix leaves 1.0e-03 in float32, more than 1e-05" in found.problem


def test_tf32_may_hide_a_trap(monkeypatch):
    found = plant(monkeypatch, {"float64": 0.0, "float32": 0.0, "tf32": 1e-3})
    hidden = dataclasses.replace(found.naives["float64"], relative=1e-3)
    naives = found.naives | {"tf32": hidden}
    assert measuring.judged(EVEN, naives, found.left).problem == ""


def test_a_row_that_needs_a_gpu_is_no_problem_without_one():
    (found,) = measuring.measure([dataclasses.replace(EVEN, device="gpu")])
    assert found.skipped == "needs a GPU"
    assert (found.naive, found.left, found.problem) == (None, {}, "")


def test_a_row_that_needs_the_cpu_stays_there(monkeypatch):
    monkeypatch.setattr(measuring, "missing_gpu", lambda: None)
    row = dataclasses.replace(EVEN, device="cpu")
    (found,) = measuring.measure([row], device="gpu")
    assert found.problem == ""
    assert list(found.left) == ["float64", "float32"]


def test_no_gpu_is_said_at_once():
    if missing_gpu() is None:
        pytest.skip("there is one")
    with pytest.raises(UsageError, match="sees no GPU here; --device cpu would do"):
        measuring.measure([EVEN], device="gpu")


def test_an_unknown_backend_is_refused():
    with pytest.raises(UsageError, match="unknown backend 'mlx'; choose from jax"):
        measuring.measure([EVEN], backends=["mlx"])


ON_TORCH = Row(
    "backends.test",
    "a row about a backend",
    "backends",
    "other meaning",
    keras="keras.ops.copy(labels) + 1",
    naive_keras="labels + len(keras.backend.backend())",
    symptom="seen",
    fix="written",
    inputs={"labels": integers(4, below=9)},
    backend="torch",
)


def test_backends_run_the_rows_that_they_are_given():
    aborts = "import os\nos.abort() if keras.backend.backend() == 'torch' else labels"
    changes = (
        {"name": "gone", "naive_keras": ON_TORCH.keras},
        {"name": "another", "shows": "ValueError"},
        {"name": "broken", "keras": "labels.shapes"},
        {"name": "dies", "keras": aborts},
        {"name": "lost"},
    )
    changed = [dataclasses.replace(ON_TORCH, **change) for change in changes]
    found = measuring.measure([ON_TORCH, *changed])
    right, gone, another, broken, dies, lost = (m.problem for m in found)
    assert right == ""
    assert "no error any more (0.0e+00) in float32" in gone
    assert another.endswith("shows 4.0e-01 in float32, not ValueError")
    assert "no reference, AttributeError" in broken
    for problem in (dies, lost):
        assert "stopped: at dies, killed: by SIGABRT" in problem


def test_a_backend_that_does_not_start_is_seen(monkeypatch):
    monkeypatch.setattr(measuring.sys, "executable", "/bin/false")
    (found,) = measuring.measure([ON_TORCH])
    assert "the fix leaves does not start: SystemExit: 1" in found.problem
    plain = dataclasses.replace(EVEN, inputs=EVEN.inputs)
    (found,) = measuring.measure([plain], backends=["torch"])
    assert "on torch shows does not start: SystemExit: 1" in found.problem
    assert "does not start" in str(found.backends["torch"])


def test_a_backend_that_is_not_installed_is_no_problem(monkeypatch):
    monkeypatch.setattr(measuring, "_installed", lambda name: False)
    first, second = measuring.measure([ON_TORCH, EVEN], backends=["jax"])
    assert first.skipped == "torch is not installed"
    assert first.problem == second.problem == ""
    assert str(second.backends["jax"]) == "jax is not installed"


def on_backends(monkeypatch, factors, **changes):
    """Returns the problem of a row that other backends give a multiple of."""
    row = dataclasses.replace(EVEN, **changes)

    # Not in the thread of the other backends: settings are those of the process.
    here = measuring.Runner("cpu")(row, "keras", row.keras, "float32")

    def run_there(name, chosen, every):
        there = [x * factors.get(name, 1) for x in here]
        return {x.name: {"keras": there} for x in chosen}

    monkeypatch.setattr(measuring, "_run_on_backend", run_there)
    (found,) = measuring.measure([row], backends=BACKENDS)
    assert list(found.backends) == list(BACKENDS)
    return found.problem


def test_a_backend_that_gives_something_else_must_be_named(monkeypatch):
    assert on_backends(monkeypatch, {}) == ""
    assert on_backends(monkeypatch, {"torch": 1 + 1e-6}) == ""
    problem = on_backends(monkeypatch, {"torch": 1.5})
    version = measuring.versions()["torch"]
    assert f"torch {version} the Keras code on torch shows 5.0e-01 against" in problem
    assert on_backends(monkeypatch, {"torch": 1.5}, differs_on=("torch",)) == ""
    problem = on_backends(monkeypatch, {"torch": 1.5}, differs_on=("jax",))
    assert "on jax shows no error any more (0.0e+00) against TensorFlow" in problem
    both = {"torch": 1.5, "jax": 0.5}
    assert on_backends(monkeypatch, both, differs_on=("jax", "torch")) == ""
    assert "on jax" in on_backends(monkeypatch, both, differs_on=("torch",))
    assert on_backends(monkeypatch, {"jax": 1.01}, limit=0.02) == ""


def test_a_backend_that_is_not_asked_is_not_judged():
    row = dataclasses.replace(EVEN, differs_on=("torch",))
    (found,) = measuring.measure([row])
    assert (found.backends, found.problem) == ({}, "")


def test_another_problem_comes_before_the_backends(monkeypatch):
    problem = on_backends(monkeypatch, {"jax": 2.0}, naive_torch=EVEN.torch)
    assert "the naive port shows no error any more" in problem


def test_a_row_of_float64_alone_is_not_for_other_backends():
    assert measuring.portable(EVEN)
    row = dataclasses.replace(EVEN, dtypes=("float64",))
    assert not measuring.portable(row)


SCRIPT = dataclasses.replace(
    EVEN,
    keras="print([1.0, 2.0])",
    torch="print('a line before')\nprint([1, 2])",
    naive_torch="import os\nprint([1, int(os.environ.get('TRAP', 2))])",
    environment={"TRAP": "7"},
    inputs={},
    process=True,
)


def script_problem(**changes):
    (found,) = measuring.measure([dataclasses.replace(SCRIPT, **changes)])
    return found.problem


def test_scripts_are_compared_by_what_they_print():
    assert script_problem() == ""
    assert "no error any more" in script_problem(environment={})
    assert "no list of numbers: text" in script_problem(torch="print('text')")


def test_a_script_that_dies_is_no_result():
    dies = "import os\nos.abort()"
    assert script_problem(naive_torch=dies, shows="killed") == ""
    problem = script_problem(naive_torch=dies)
    assert "shows killed: by SIGABRT in float64, not error" in problem
    both = script_problem(keras="import nothing", torch="import nothing")
    assert "no reference, ModuleNotFoundError: No module named 'nothing'" in both
    assert "SystemExit: 3" in script_problem(torch="raise SystemExit(3)")


def test_silent_scripts_are_no_result_unless_the_naive_one_fails():
    dies = {"naive_torch": "import os\nos.abort()", "shows": "killed"}
    silent = {"keras": "pass", "torch": "pass"}
    assert script_problem(**silent, **dies) == ""
    said = "silent: prints no numbers"
    for changes in (
        silent,
        silent | {"naive_torch": "pass", "shows": "silent"},
        silent | {"naive_torch": ""},
        dies | {"keras": "pass"},
        dies | {"torch": "pass"},
        {"naive_torch": "pass"},
    ):
        assert said in script_problem(**changes)


def test_a_silent_script_about_its_environment():
    dies = "import os\nif 'TRAP' in os.environ: os.abort()"
    changes = {"keras": "pass", "torch": "", "naive_torch": "", "naive_keras": dies}
    assert script_problem(**changes, shows="killed") == ""
    assert "silent: prints no numbers" in script_problem(**changes, environment={})


def test_a_script_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(measuring, "PROCESS_SECONDS", 0.2)
    problem = script_problem(torch="import time\ntime.sleep(60)")
    assert "TimeoutExpired" in problem


def test_a_script_about_its_environment_runs_with_and_without():
    trap = "import os\nprint([1, int(os.environ.get('TRAP', 2))])"
    changes = {"torch": "", "naive_torch": "", "naive_keras": trap}
    assert script_problem(**changes) == ""
    assert "the fix leaves 2.2e+00" in script_problem(**changes | {"keras": trap})


def test_scripts_see_no_gpu_that_they_do_not_need():
    hidden = "import os\nprint(float(os.environ['CUDA_VISIBLE_DEVICES']))"
    assert script_problem(keras=hidden, torch=hidden, naive_torch="") == ""


def test_a_measurement_is_json_without_infinity():
    row = dataclasses.replace(EVEN, inputs={"images": given([1.0])})
    (found,) = measuring.measure([row])
    written = found.to_dict()
    assert written["left"]["float64"]["relative"] is None
    assert "NameError" in written["left"]["float64"]["text"]
    assert written["problem"] == found.problem


def test_the_rows_are_shown_as_they_run():
    seen = []

    def progress(chosen):
        for row in chosen:
            seen.append(row.name)
            yield row

    measuring.measure([EVEN], progress=progress)
    assert seen == [EVEN.name]
