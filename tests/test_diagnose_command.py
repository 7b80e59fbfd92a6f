"""`python -m parity diagnose`: models from files, exit codes, wrong usage in a line."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from parity.frameworks import keras, torch
from parity import __main__ as program
from parity.diagnosis import command
from parity.diagnosis import diagnose as diagnosing
from parity.spec import cli

OURS = """
import keras
from dataclasses import dataclass
from helper_of_ours import CHANNELS
from keras import layers


def build():
    return keras.Sequential([
        keras.Input((None, None, 3)),
        layers.Conv2D(CHANNELS, 3, strides=2, padding="same"),
        layers.BatchNormalization(epsilon=1e-5),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    ])


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(CHANNELS, 3, strides=2, padding="same")
        self.bn = layers.BatchNormalization(epsilon=1e-5)
        self.fc = layers.Dense(5)

    def call(self, images):
        x = keras.ops.relu(self.bn(self.conv(images)))
        return self.fc(keras.ops.mean(x, axis=(1, 2)))


class Broken(Net):
    def call(self, images):
        raise RuntimeError("it is\\nbroken")


@dataclass
class Nets:
    pass


Nets.small = build
model = build()
five = 5


def needs(images):
    return images


def nothing():
    return None


def fails():
    raise RuntimeError("no\\nway")
"""
THEIRS = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def pad(self, x):
        return F.pad(x, (0, 1, 0, 1))

    def forward(self, images):
        x = torch.relu(self.bn(self.conv(self.pad(images))))
        return self.fc(x.mean((2, 3)))


class Wrong(Net):
    def pad(self, x):
        return F.pad(x, (1, 0, 1, 0))


class Broken(Net):
    def pad(self, x):
        raise RuntimeError("it is\\nbroken")


net = Net()
"""
FILES = {
    "ours.py": OURS,
    "theirs.py": THEIRS,
    "helper_of_ours.py": "CHANNELS = 8",
    "absent.py": "x = 1\nimport nothing_like_this",
    "syntax.py": "x = 1\ny = (",
    "exits.py": "import sys\nsys.exit(3)",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Goes to a folder with files of models."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(textwrap.dedent(text), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def run(monkeypatch, capsys):
    """Gives what runs the command: its exit code, what it prints, and the errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["parity", "diagnose", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.run("parity", program.main)
        return stop.value.code, *capsys.readouterr()

    return run


# --- what it says


@pytest.mark.parametrize(
    ("ours", "theirs", "more"),
    [
        ("ours.py:build", "theirs.py:Net", ("--input", "20,24,3")),
        ("ours.py:model", "theirs.py:net", ()),
        ("ours.py:Nets.small", "theirs.py:net", ("--input", "20x24x3")),
        ("ours.py:Net", "theirs.py:Net", ("--input", "(20, 24, 3)", "--batch", 2)),
    ],
)
def test_equal_models(run, ours, theirs, more):
    code, text, _ = run(ours, theirs, *more)
    assert text.startswith("equal: outputs agree up to ")
    assert "\x1b" not in text
    assert code == 0


def test_a_module_by_its_dotted_name(run, folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    code, text, _ = run("ours:model", "theirs:net")
    assert (code, text.split(":")[0]) == (0, "equal")


def test_different_models_and_all_files(run, folder):
    files = ("--json", "a/o.json", "--html", "a/o.html", "--repro", "scripts")
    code, text, _ = run(
        "ours.py:build", "theirs.py:Wrong", "--input", "20,24,3", *files
    )
    assert code == 1
    assert text.startswith("different: 1 cause; outputs differ by ")
    assert "conv.padding" in text
    found = json.loads((folder / "a" / "o.json").read_text("utf-8"))
    assert found["verdict"] == "different"
    assert "conv.padding" in (folder / "a" / "o.html").read_text("utf-8")
    (script,) = (folder / "scripts").glob("*.py")
    assert text.rstrip().endswith(f"python scripts/{script.name}")


def test_equal_models_have_no_script(run, folder):
    code, text, _ = run("ours.py:model", "theirs.py:net", "--repro", "scripts")
    assert code == 0
    assert "no script in scripts" in text
    assert not (folder / "scripts").exists()


def test_two_pipelines(run, folder):
    images = np.random.default_rng(0).standard_normal((2, 12, 14, 3)).astype("f4")
    np.save("images.npy", images)
    np.save("bgr.npy", images.transpose(0, 3, 1, 2)[:, ::-1])
    files = ("--images", "images.npy", "--torch-images", "bgr.npy")
    code, text, _ = run("ours.py:model", "theirs.py:net", *files)
    assert code == 1
    assert "input.channel_order" in text


def test_the_mode_of_the_torch_model(run):
    code, _, _ = run("ours.py:model", "theirs.py:Net")
    assert code == 0
    code, text, _ = run("ours.py:model", "theirs.py:Net", "--keep-mode")
    assert code == 1
    assert "bn.training_mode" in text


def test_levels_and_labels(run):
    np.save("labels.npy", np.array([0, 4, 2]))
    arguments = ("--level", "backward", "--labels", "labels.npy")
    code, text, _ = run("ours.py:model", "theirs.py:Net", *arguments)
    assert code == 0
    assert "level backward" in text


def test_weights_from_files(run):
    ours = command.load_model("ours.py:build", "Keras")
    theirs = command.load_model("theirs.py:Net", "PyTorch")
    generator = np.random.default_rng(0)
    for weight in ours.weights:
        weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    ours.save_weights("ours.weights.h5")
    arrays = ours.get_weights()
    names = ("weight", "bias", "running_mean", "running_var")
    state = theirs.state_dict()
    state["conv.weight"] = torch.from_numpy(arrays[0].transpose(3, 2, 0, 1).copy())
    state["conv.bias"] = torch.from_numpy(arrays[1])
    state |= {
        f"bn.{name}": torch.from_numpy(array)
        for name, array in zip(names, arrays[2:6], strict=True)
    }
    state["fc.weight"] = torch.from_numpy(arrays[6].T.copy())
    state["fc.bias"] = torch.from_numpy(arrays[7])
    torch.save(state, "theirs.pt")
    torch.save({"state_dict": state | {"fc.bias": 2 * state["fc.bias"]}}, "other.pth")
    models = ("ours.py:build", "theirs.py:Net", "--keras-weights", "ours.weights.h5")
    code, text, _ = run(*models, "--torch-weights", "theirs.pt")
    assert code == 0, text
    assert "weights as_is" in text
    code, text, _ = run(*models, "--torch-weights", "other.pth")
    assert code == 1
    assert "bias.different" in text
    code, text, _ = run(*models, "--torch-weights", "other.pth", "--weights", "copy")
    assert code == 0


def test_two_files_of_one_name(folder):
    other = folder / "other"
    other.mkdir()
    (other / "theirs.py").write_text(THEIRS.replace("8", "6"), "utf-8")
    first = command.load_model("theirs.py:Net", "PyTorch")
    second = command.load_model("other/theirs.py:Net", "PyTorch")
    assert (len(first.bn.weight), len(second.bn.weight)) == (8, 6)


def test_the_models_files_may_import_tensorflow_first(folder):
    (folder / "first.py").write_text(f"import tensorflow\n{OURS}", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "parity", "diagnose", "first.py:model", "theirs.py:Net"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("equal: ")


# --- wrong usage


@pytest.fixture
def nothing_runs(monkeypatch):
    """Makes a diagnosis an error."""

    def fail(*_, **__):
        raise AssertionError("a diagnosis was made")

    monkeypatch.setattr(diagnosing, "diagnose", fail)


MODELS = ("ours.py:model", "theirs.py:Net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ours.py", "theirs.py:Net"), "'ours.py' names no model; write FILE.py:NAME"),
        ((":model", "theirs.py:Net"), "':model' names no model"),
        (("ours.py:", "theirs.py:Net"), "'ours.py:' names no model"),
        (("no.py:model", "theirs.py:Net"), "no such file: no.py (of 'no.py:model')"),
        (("ours.py:model", "no.py:Net"), "no such file: no.py (of 'no.py:Net')"),
        (("no.module:x", "theirs.py:Net"), "cannot import no.module: ModuleNotFound"),
        (("absent.py:x", "theirs.py:Net"), "cannot import absent.py: line 2: Module"),
        (("syntax.py:x", "theirs.py:Net"), "cannot import syntax.py: line 2: Syntax"),
        (("exits.py:x", "theirs.py:Net"), "exits.py: line 2: it ends the process"),
        (("ours.py:mode", "theirs.py:Net"), "has no 'mode'; did you mean model?"),
        (("ours.py:zzzz", "theirs.py:Net"), "has no 'zzzz'; it has build, Net"),
        (("ours.py:Nets.no", "theirs.py:Net"), "ours.py has no 'Nets.no'"),
        (("ours.py:five", "theirs.py:Net"), "ours.py:five is no Keras model but of"),
        (("ours.py:needs", "theirs.py:Net"), "needs cannot be called without arg"),
        (("ours.py:fails", "theirs.py:Net"), "arguments: RuntimeError: no way; name"),
        (("ours.py:nothing", "theirs.py:Net"), "nothing() is no Keras model but of"),
        (("theirs.py:Net", "ours.py:model"), "the Keras model comes first, then"),
        (("theirs.py:net", "ours.py:model"), "the Keras model comes first, then"),
        (("ours.py:model", "ours.py:model"), "ours.py:model is no PyTorch model but"),
        (("ours.py:Net", "theirs.py:Net"), "ours.py:Net is not built yet: give --in"),
        (
            ("ours.py:Broken", "theirs.py:Net", "--input", "8,8,3"),
            "ours.py:Broken cannot be called on images (1, 8, 8, 3): RuntimeError: it "
            "is broken",
        ),
        ((*MODELS, "--input", "8,q,3"), "'8,q,3' is no shape of an image such as 224,"),
        ((*MODELS, "--input", "8,0,3"), "'8,0,3' is no shape of an image"),
        ((*MODELS, "--input", "8,8,4"), "shape (8, 8, 4) do not fit ours.py:model, wh"),
        ((*MODELS, "--input", "8,8"), "takes (None, None, 3), height, width and chan"),
        ((*MODELS, "--batch", "0"), "'0' is not an integer of 1 or more"),
        ((*MODELS, "--level", "sideways"), "invalid choice: 'sideways'"),
        ((*MODELS, "--weights", "mine"), "invalid choice: 'mine'"),
        ((*MODELS, "--images", "no.npy"), "no such file: no.npy"),
        ((*MODELS, "--images", "ours.py"), "ours.py is no .npy file of numbers"),
        ((*MODELS, "--images", "words.npy"), "words.npy holds no numbers"),
        ((*MODELS, "--images", "gray.npy"), "shape (8, 8, 1) do not fit ours.py:mod"),
        ((*MODELS, "--images", "gray.npy", "--batch", "2"), "leave out --input and"),
        ((*MODELS, "--torch-images", "gray.npy"), "--torch-images needs --images"),
        ((*MODELS, "--json", "."), "cannot write .: it is a folder"),
        ((*MODELS, "--html", "ours.py/o.html"), "cannot write ours.py/o.html"),
        ((*MODELS, "--repro", "ours.py"), "cannot write ours.py"),
        ((*MODELS, "--keras-weights", "no.keras"), "no such weights file: no.keras"),
        ((*MODELS, "--keras-weights", "ours.py"), "neither a .weights.h5 nor a .keras"),
        (
            (*MODELS, "--keras-weights", "bad.weights.h5"),
            "does not fit the Keras model",
        ),
        ((*MODELS, "--torch-weights", "no.pt"), "no such weights file: no.pt"),
        ((*MODELS, "--torch-weights", "ours.py"), "neither a .pt, a .pth nor a .safe"),
        ((*MODELS, "--torch-weights", "bad.pt"), "bad.pt is no state_dict"),
        ((*MODELS, "--torch-weights", "other.pt"), "other.pt does not fit the PyTorch"),
    ],
)
def test_wrong_usage_is_one_line(run, nothing_runs, folder, arguments, message):
    np.save("words.npy", np.array(["a"]))
    np.save("gray.npy", np.zeros((2, 8, 8, 1), np.float32))
    (folder / "bad.weights.h5").write_bytes(b"no")
    (folder / "bad.pt").write_bytes(b"no")
    torch.save({"weight": torch.zeros(2)}, "other.pt")
    code, printed, error = run(*arguments)
    assert code == 2
    assert not printed
    (line,) = [x for x in error.splitlines() if "error: " in x]
    assert message in line
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            "theirs.py:Broken",
            "the PyTorch model cannot be called on images (3, 3, 8, 8)",
        ),
        ("nets.py:Five", "5"),
    ],
)
def test_a_torch_model_that_cannot_be_called(run, folder, theirs, message):
    text = THEIRS.replace("Conv2d(3, 8", "Conv2d(5, 8").replace("Net", "Five")
    (folder / "nets.py").write_text(text, "utf-8")
    code, printed, error = run("ours.py:model", theirs, "--input", "8,8,3")
    assert code == 2
    assert not printed
    (line,) = [x for x in error.splitlines() if "error: " in x]
    assert message in line


def test_help_is_instant():
    code = (
        "import sys; from parity import __main__ as m\n"
        "sys.argv = ['parity', 'diagnose', '--help']\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "print({'keras', 'tensorflow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("set()\n")
    assert "--keep-mode" in done.stdout


def test_the_score_is_a_command_too(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["parity", "score", "--help"])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 0


def test_a_keras_model_is_left_as_it_was():
    model = command.load_model("ours.py:Net", "Keras")
    assert isinstance(model, keras.Model)
    assert not model.built
