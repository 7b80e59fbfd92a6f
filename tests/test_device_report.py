"""`python -m parity device-report`: the rules, planted faults, time, page and JSON."""

import argparse
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity.device import inputs, judge
from parity.device import report as device_report
from parity.device import side as device_side
from parity.device.judge import Comparison
from parity.device.networks import network_job, step_job
from parity.device.page import page
from parity.device.parts import PARTS, Job, Sides, attempt_job
from parity.device.side import NotRun
from parity.spec import cli, files
from parity.spec.errors import UsageError

UNITS = {"float64": 2.0**-53} | inputs.UNITS
GPU = {"name": "A100", "memory": "80 GiB", "compute capability": "8.0"}


def run(*arguments: object) -> int:
    """Runs the command; returns the exit code."""
    parser = cli.parser("parity", "The report alone.")
    device_report.add_arguments(parser.add_subparsers())
    return device_report.main(
        parser.parse_args(["device-report", *map(str, arguments)])
    )


class FakeSides(Sides):
    """Sides that answer at once, with numbers off by rounding."""

    gpu = GPU
    fault = staticmethod(lambda request, place, dtype, found: None)

    def call(self, framework, request, **arguments):
        if request == "facts":
            versions = {framework: "1.0", "CUDA": "12.5"}
            return {"versions": versions, "gpu": self.gpu}
        place = (framework, arguments["device"])
        dtype = arguments.pop("dtype", "float32")
        found = getattr(self, request)(place, dtype, **arguments)
        self.fault(request, place, dtype, found)
        return found

    def results(self, place, dtype, name, steps, **_):
        names = ["steps/losses", "steps/conv1.weight"]
        if not steps:
            names = ["outputs/0", "gradients/loss", "gradients/conv1.weight"]
        return self.arrays({name: (6, 5) for name in names}, place, dtype)

    def convolutions(self, place, dtype, absolute=False, **_):
        shapes = {}
        for index, case in enumerate(inputs.CONVOLUTIONS):
            images, kernel = (x.shape for x in case.arrays())
            shapes |= {f"{index}/outputs": (2, 6, 5, 16)}
            shapes |= {f"{index}/by images": images, f"{index}/by kernel": kernel}
        found = self.arrays(shapes, place, dtype)
        return {k: 9 * np.abs(x) for k, x in found.items()} if absolute else found

    def arrays(self, shapes, place, dtype):
        seeds = (0, sum(map(ord, "".join(place))))
        exact, noise = map(np.random.default_rng, seeds)
        return {
            name: exact.normal(size=shape)
            * (1 + UNITS[dtype] * noise.uniform(-1, 1, size=shape))
            for name, shape in shapes.items()
        }

    def effects(self, place, dtype, name, steps, dtypes, **_):
        tensors = self.results(("torch", "cpu"), "float64", name, steps)
        return {x: dict.fromkeys(tensors, 3 * UNITS[x]) for x in dtypes}

    def accuracy(self, place, dtype, folder, **_):
        path = Path(f"{folder}.safetensors")
        files.save_weights(path, {"w": np.ones(3, np.float32)}, {"model": "none"})
        return {"accuracy": 0.97, "weights": str(path)}

    def speed(self, place, dtype, **_):
        return {"images per second": 12345.6}


@pytest.fixture
def fake(monkeypatch):
    """Puts fakes in the place of both sides; gives them, to plant faults in."""

    class Fakes(FakeSides):
        pass

    monkeypatch.setattr(device_report, "Sides", Fakes)
    monkeypatch.setattr(device_report, "installed", lambda: ["keras", "torch"])
    return Fakes


@pytest.fixture
def report(tmp_path):
    """Gives what runs the command: its exit code, the page and the JSON."""

    def make(*arguments: object):
        path = tmp_path / "new" / "gpu.md"
        code = run("--output", path, "--separate-processes", *arguments)
        content = json.loads(path.with_suffix(".json").read_text("utf-8"))
        return code, path.read_text("utf-8"), content

    return make


def verdicts(content, **fields) -> set[str]:
    """Returns the verdicts of the comparisons with these fields."""
    found = [
        x["verdict"]
        for x in content["comparisons"]
        if all(x[name] == value for name, value in fields.items())
    ]
    assert found
    return set(found)


def test_a_page_with_a_gpu(fake, report):
    code, text, content = report("--models", "lenet5,resnet18")
    assert code == 0
    first = text[:900]
    assert first.startswith("# Device report: A100; ")
    assert "none differs" in first
    assert "No GPU" not in text
    assert "device-report --output gpu.md --models lenet5,resnet18" in text
    assert content["date"] in text
    header = (
        "| network |  | Keras CPU, PyTorch CPU | Keras CPU, Keras GPU | "
        "PyTorch CPU, PyTorch GPU | Keras GPU, PyTorch GPU |"
    )
    assert text.count(header) == 3
    assert "### tf32\n\n| network |  | Keras GPU, PyTorch GPU |\n" in text
    assert "| resnet18 | Keras GPU | 64 | 256 | 12,346 |" in text
    assert verdicts(content, dtype="float64", part="networks") == {"equal"}
    assert verdicts(content, dtype="tf32", part="networks") == {"rounding"}
    pairs = {tuple(x["pair"]) for x in content["comparisons"] if x["dtype"] == "tf32"}
    assert pairs == {("keras gpu", "torch gpu")}
    assert verdicts(content, part="lockstep") == {"not run"}
    assert content["verdicts"]["not run"] == 8
    assert "wants both frameworks in one process | lenet5 (4), resnet18 (4)" in text


def test_no_gpu_is_said_in_the_first_lines(fake, report):
    fake.gpu = None
    code, text, content = report("--models", "lenet5")
    assert code == 0
    assert "**No GPU**: Keras and PyTorch see none here" in text.splitlines()[2]
    assert {tuple(x["pair"]) for x in content["comparisons"]} == {
        ("keras cpu", "torch cpu")
    }
    assert "tf32" not in text
    listed = device_report.DeviceReport.from_dict(content)
    listed.machine["GPU by nvidia-smi"] = "A100"
    assert "see none here, although nvidia-smi lists one, so" in page(listed)


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_one_framework_alone(fake, report, monkeypatch, framework):
    monkeypatch.setattr(device_report, "installed", lambda: [framework])
    code, text, content = report("--models", "lenet5")
    assert code == 0
    assert "is installed.**" in text
    pairs = {tuple(x["pair"]) for x in content["comparisons"]}
    assert pairs == {(f"{framework} cpu", f"{framework} gpu")}
    assert verdicts(content, part="networks", dtype="bfloat16") == {"rounding"}
    fake.gpu = None
    code, text, content = report("--models", "lenet5")
    assert code == 0
    assert "Verdict: nothing was compared" in text
    assert content["comparisons"] == []


def test_no_framework(monkeypatch, tmp_path):
    monkeypatch.setattr(device_report, "installed", list)
    with pytest.raises(UsageError, match="is installed"):
        run("--output", tmp_path / "a.md")


def wrong(tensor, dtype, place, size):
    """Returns a fault that puts off one tensor of one side."""

    def plant(request, at, of, found):
        if request in ("results", "convolutions") and (of, at) == (dtype, place):
            for name in found:
                if name == tensor:
                    found[name] = found[name] * (1 + size)

    return staticmethod(plant)


@pytest.mark.parametrize(
    ("tensor", "dtype", "size", "quantity"),
    [
        ("gradients/conv1.weight", "float64", 1e-8, "gradients"),
        ("outputs/0", "float64", math.nan, "outputs"),
        ("outputs/0", "float32", 2.0**-11, "outputs"),  # TensorFloat-32 left on
        ("outputs/0", "tf32", 2.0**-6, "outputs"),  # bfloat16 in its place
        ("gradients/loss", "bfloat16", 0.2, "gradients"),
        ("steps/conv1.weight", "float64", 1e-8, "3 steps"),
        ("3/by kernel", "float64", 1e-11, "outputs and gradients"),
        ("3/by images", "float32", 2.0**-11, "outputs and gradients"),
        ("3/outputs", "bfloat16", 0.2, "outputs and gradients"),
    ],
)
def test_a_fault_on_one_side_is_named(fake, report, tensor, dtype, size, quantity):
    fake.fault = wrong(tensor, dtype, ("torch", "gpu"), size)
    code, text, content = report("--models", "resnet18")
    assert code == 1
    different = [x for x in content["comparisons"] if x["verdict"] == "different"]
    assert {(x["quantity"], x["dtype"]) for x in different} == {(quantity, dtype)}
    assert all("torch gpu" in x["pair"] for x in different)
    name = "resnet18" if not tensor[0].isdigit() else str(inputs.CONVOLUTIONS[3])
    assert {x["name"] for x in different} == {name}
    assert f"- **different**: {name}, {quantity} in {dtype}, " in text
    assert f"{len(different)} different.**" in text[:900]
    assert content["verdicts"]["different"] == len(different)


def test_a_tensor_without_a_partner_is_different(fake, report):
    def lose(request, place, dtype, found):
        if request == "results" and place == ("keras", "cpu"):
            found.pop("gradients/conv1.weight", None)

    fake.fault = staticmethod(lose)
    code, text, content = report("--models", "lenet5")
    assert code == 1
    assert "conv1.weight" in text[:1500]
    assert verdicts(
        content,
        part="networks",
        quantity="gradients",
        dtype="float64",
        pair=["keras cpu", "torch cpu"],
    ) == {"different"}


def test_what_raises_is_not_run_and_the_rest_goes_on(fake, report):
    def fail(request, place, dtype, found):
        if request == "convolutions" and place == ("keras", "gpu"):
            raise NotRun("ResourceExhaustedError: no memory")
        if request == "accuracy":
            raise ZeroDivisionError("by zero")
        if request == "results" and dtype == "bfloat16" and place[0] == "torch":
            raise NotRun("RuntimeError: no kernel")
        if request == "speed" and place[0] == "keras":
            raise NotRun("its process ended with -6")

    fake.fault = staticmethod(fail)
    code, text, content = report("--models", "lenet5")
    assert code == 0
    assert "| conv2d | ResourceExhaustedError: no memory | all cases (" in text
    assert "| accuracy | ZeroDivisionError: by zero | lenet5 (2) |" not in text
    assert "| accuracy | ZeroDivisionError: by zero | lenet5 (1) |" in text
    assert "| networks | RuntimeError: no kernel | lenet5 (6) |" in text
    assert (
        "| lenet5 | Keras GPU | 28 | 256 | not run: its process ended with -6 |" in text
    )
    bfloat16 = {"part": "networks", "dtype": "bfloat16"}
    devices = ["keras cpu", "keras gpu"]
    assert verdicts(content, **bfloat16, pair=devices) == {"rounding"}
    assert verdicts(content, part="networks", dtype="float32") == {"rounding"}
    cpu = ["keras cpu", "torch cpu"]
    assert verdicts(content, part="conv2d", dtype="float64", pair=cpu) == {"equal"}


def test_a_difference_is_kept_when_the_rest_of_a_network_raises(fake, report):
    plant = wrong("outputs/0", "float64", ("torch", "gpu"), 1e-8)

    def fail(request, place, dtype, found):
        plant(request, place, dtype, found)
        if request == "results" and dtype == "tf32":
            raise ZeroDivisionError

    fake.fault = staticmethod(fail)
    code, text, content = report("--models", "lenet5")
    assert code == 1
    assert verdicts(content, part="networks", dtype="float32") == {"rounding"}
    assert verdicts(content, part="networks", dtype="bfloat16") == {"not run"}
    assert "| networks | ZeroDivisionError | lenet5 (10) |" in text


def test_without_a_float64_answer_there_is_no_verdict_in_float32(fake, report):
    def fail(request, place, dtype, found):
        if request == "effects":
            raise NotRun("MemoryError")

    fake.fault = staticmethod(fail)
    _, _, content = report("--models", "lenet5")
    assert verdicts(content, part="networks", dtype="float64") == {"equal"}
    assert verdicts(content, part="networks", dtype="float32") == {"not run"}


def test_what_does_not_fit_is_listed(fake, report):
    code, text, content = report("--models", "lenet5,resnet18", "--minutes", "1e-9")
    assert code == 0
    assert verdicts(content) == {"not run"}
    assert "Verdict: nothing was compared" in text
    assert "| networks | time | lenet5 (26), resnet18 (26) |" in text
    assert "| speed | time | lenet5 (2), resnet18 (2) |" in text
    _, _, whole = report("--models", "lenet5,resnet18")
    plans = [
        [(x["part"], x["name"], x["quantity"], x["dtype"], x["pair"]) for x in y]
        for y in (content["comparisons"], whole["comparisons"])
    ]
    assert plans[0] == plans[1]


def timed_jobs(monkeypatch, durations) -> tuple[list[Job], list[str]]:
    """Returns jobs that take so long on a clock of their own, and those begun."""
    now, begun = [0.0], []
    monkeypatch.setattr(device_report.time, "monotonic", lambda: now[0])

    def job(part, name, seconds):
        planned = Comparison(part, name, "", "", ("", ""), "not run", note="time")

        def run():
            begun.append(name)
            now[0] += seconds
            return [replace(planned, verdict="equal", note="")]

        return Job(part, name, [planned], run)

    return [job(*x) for x in durations], begun


def test_each_part_has_its_time_and_then_what_is_left(monkeypatch):
    jobs, begun = timed_jobs(
        monkeypatch,
        [("networks", x, 20) for x in "abcdef"] + [("conv2d", "g", 1)],
    )
    found = device_report.work(jobs, 0.0, 100.0)
    # d would end at 80 of the 55 seconds; f at 101 of all.
    assert begun == ["a", "b", "g", "c", "d"]
    assert [x.verdict for x in found] == ["equal"] * 4 + ["not run"] * 2 + ["equal"]
    assert list(PARTS.values()) == sorted(PARTS.values())


def test_the_json_is_the_whole_report(fake, report):
    fake.fault = wrong("outputs/0", "float64", ("torch", "cpu"), math.nan)
    _, text, content = report("--models", "lenet5")
    assert "Infinity" in {x["error"] for x in content["comparisons"]}
    again = device_report.DeviceReport.from_dict(content)
    assert page(again) == text
    assert json.loads(json.dumps(again.to_dict())) == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "{folder}/file/page.md"], "cannot write"),
        (["--output", "{folder}"], "does not end in .md"),
        (["--output", "{folder}/a.md", "--models", "lenet"], "did you mean lenet5"),
        (["--output", "{folder}/a.md", "--minutes", "0"], "is not a number above zero"),
        ([], "--output"),
    ],
)
def test_wrong_usage_ends_before_the_work(
    monkeypatch, tmp_path, capsys, arguments, message
):
    def fail(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(device_report, "make", fail)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        cli.run("parity", lambda: run(*(x.format(folder=tmp_path) for x in arguments)))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reason_is_one_line_without_paths():
    error = ValueError("no file\n /home/somebody/data/x.npz on /device:GPU:0")
    assert device_side.reason(error) == "ValueError: no file ... on /device:GPU:0"
    assert device_side.reason(KeyError()) == "KeyError"
    assert len(device_side.reason(ValueError("x" * 1000))) < 250


def test_the_command_on_the_page_has_no_folder(tmp_path):
    given = argparse.Namespace(
        output=Path(tmp_path / "x.md"),
        minutes=3.0,
        models=("lenet5",),
        separate_processes=True,
    )
    assert device_report._command(given) == (
        "python -m parity device-report --output x.md --minutes 3 --models lenet5 "
        "--separate-processes"
    )


def test_a_process_that_ends_or_takes_too_long_is_started_anew(monkeypatch, tmp_path):
    script = (
        "import json, os, sys, time\n"
        "for line in sys.stdin:\n"
        "    word = json.loads(line)[0]\n"
        "    if word == 'die': os._exit(3)\n"
        "    if word == 'wait': time.sleep(60)\n"
        "    print(json.dumps(['value', {'pid': os.getpid()}]), flush=True)\n"
    )
    (tmp_path / "side.py").write_text(script)
    popen = subprocess.Popen
    command = [sys.executable, str(tmp_path / "side.py")]
    monkeypatch.setattr(subprocess, "Popen", lambda _, **rest: popen(command, **rest))
    side = device_side.Apart("torch", tmp_path)
    first = side.call("facts", {}, 60)["pid"]
    assert side.call("facts", {}, 60)["pid"] == first
    with pytest.raises(NotRun, match="its process ended with 3"):
        side.call("die", {}, 60)
    assert side.call("facts", {}, 60)["pid"] != first
    with pytest.raises(NotRun, match="time"):
        side.call("wait", {}, 0.2)
    assert side.call("facts", {}, 60)["pid"] != first
    side.close()
    assert side.process.poll() is not None


def test_a_sum_of_equal_terms_is_within_the_bound_of_a_bias():
    images = np.ones((3, 32, 36, 1))
    name = "gradients/conv.bias"
    exact = {name: np.ones(4), "gradients/conv.weight": np.ones((4, 1, 5, 5))}
    bounds = judge.network_bounds("float32", dict.fromkeys(exact, 0.0), exact, images)
    terms = np.full(images.size, 0.1, np.float32)
    total = terms.astype(float).sum()
    error = abs(np.cumsum(terms)[-1] - total) / total
    assert bounds["gradients/conv.weight"] < error < bounds[name]
    assert bounds[name] < inputs.UNITS["bfloat16"]  # which is still seen
    assert bounds["gradients/conv.weight"] < inputs.UNITS["tf32"] / 8


def test_two_accuracies():
    assert judge.judge_chance((0.97, 0.97), 360)["verdict"] == "equal"
    assert judge.judge_chance((0.97, 0.96), 360)["verdict"] == "rounding"
    assert judge.judge_chance((0.97, 0.90), 360)["verdict"] == "different"
    assert judge.judge_chance((1.0, 0.9), 360)["verdict"] == "different"


def test_what_rounding_does_to_an_unfinished_training_is_granted():
    found = judge.judge_chance((0.85, 0.69), 360, moved=0.1)
    assert found["verdict"] == "rounding"
    assert found["note"].endswith("rounding moves it by 0.1000")
    assert judge.judge_chance((0.85, 0.45), 360, moved=0.1)["verdict"] == "different"


def test_a_disturbance_is_as_large_as_its_type_rounds():
    tensors = {"conv1.weight": np.ones((8, 4, 3, 3)), "bn.weight": np.ones(4096)}
    for dtype, unit in inputs.UNITS.items():
        found = inputs.disturb(tensors, dtype, 0)
        sizes = {name: np.abs(array - 1).max() for name, array in found.items()}
        assert 2.5 * unit < sizes["bn.weight"] <= 3 * unit + 2.0**-24
        assert sizes["conv1.weight"] <= 3 * unit + 6 * 2.0**-24


def loaded_by(code: str) -> set[str]:
    code = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    frameworks = {"keras", "tensorflow", "torch", "torchvision"}
    return frameworks & set(done.stdout.split())


def test_the_command_loads_no_framework():
    names = ["report", "page", "side", "networks", "training"]
    code = "\n".join(f"import parity.device.{name}" for name in names)
    assert loaded_by(code) == set()


@pytest.mark.slow
def test_a_side_loads_its_own_framework_only():
    assert loaded_by("import parity.device.keras_side") == {"keras", "tensorflow"}
    loaded = loaded_by("import parity.device.torch_side")
    assert "torch" in loaded
    assert loaded <= {"torch", "torchvision"}


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_lenet5_on_this_machine(tmp_path, apart):
    more = ["--separate-processes"] if apart else []
    path = tmp_path / "here.md"
    assert run("--output", path, "--models", "lenet5", "--minutes", "30", *more) == 0
    content = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert verdicts(content, dtype="float64", part="networks") == {"equal"}
    assert verdicts(content, dtype="float32", part="networks") <= {"equal", "rounding"}
    not_run = [x for x in content["comparisons"] if x["verdict"] == "not run"]
    assert {x["part"] for x in not_run} == ({"lockstep"} if apart else set())
    assert all(x["images_per_second"] > 0 for x in content["speeds"])
    assert str(Path.home()) not in path.read_text("utf-8")
    assert str(tmp_path) not in path.read_text("utf-8")


def scale_bias(model):
    model.conv2.bias *= 1 + 1e-6


def round_weights(model):
    """Does what bfloat16 in the place of float32 does."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "dtype"), [(scale_bias, "float64"), (round_weights, "float32")]
)
def test_a_wrong_weight_on_one_side_is_found(monkeypatch, tmp_path, fault, dtype):
    from parity.frameworks import torch
    from parity.device import torch_side as device_torch

    load = device_torch.Network.load

    def load_wrongly(self, tensors):
        load(self, tensors)
        if self.precision == dtype:
            with torch.no_grad():
                fault(self.model)

    sides = Sides(["keras", "torch"], False, tmp_path, math.inf)
    jobs = [make(sides, "lenet5") for make in (network_job, step_job)]
    for job in jobs:
        assert {x.verdict for x in attempt_job(job)} == {"equal", "rounding"}
    monkeypatch.setattr(device_torch.Network, "load", load_wrongly)
    for job in jobs:
        found = {x.quantity for x in attempt_job(job) if x.verdict == "different"}
        assert found == {x.quantity for x in job.planned}
