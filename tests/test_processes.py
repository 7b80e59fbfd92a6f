"""One model trained in several processes: what one process makes, and safe to kill."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import keras_impl.processes
import torch_impl.processes
import torch_impl.train
from parity.frameworks import tf
from parity.spec import checkpoints, devices, files, runs
from parity.spec.errors import UsageError

PROCESSES = {"keras": keras_impl.processes, "torch": torch_impl.processes}
SECONDS = 60  # that are left to the others after one has ended

# Trains what the options say, one run after the other in one group. "tiny" stands for
# a small network with batch normalisation, the same on both sides, and "fault" for a
# gradient that is the mean of the parts' means.
WORKER = """
import json, sys
from pathlib import Path
from parity.spec import runs

side, cases = sys.argv[1], json.loads(sys.argv[2])
if side == "torch":
    import torch, torch_impl as package
    from torch_impl import train, trainer
    class Tiny(torch.nn.Module):
        def __init__(self, num_classes=10):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 5, stride=3)
            self.bn = torch.nn.BatchNorm2d(4)
            self.out = torch.nn.Linear(256, num_classes)
        def forward(self, images):
            return self.out(self.bn(self.conv(images)).relu().flatten(1))
    real_step = trainer.make_train_step
    def faulty(*arguments):
        step = real_step(*arguments)
        wrong = lambda images, labels, share: step(images, labels, 1.0)
        wrong.scaler = step.scaler
        return wrong
    def plant(fault):
        trainer.make_train_step = faulty if fault else real_step
    tiny = lambda *_, **__: Tiny()
else:
    import keras, keras_impl as package
    from keras_impl import layers, processes, train
    class Tiny(layers.Model):
        def __init__(self, num_classes=10):
            super().__init__()
            self.conv = keras.layers.Conv2D(4, 5, 3)
            self.bn = layers.BatchNormalization()
            self.flatten = keras.layers.Flatten()
            self.out = keras.layers.Dense(num_classes)
        def call(self, images):
            maps = keras.ops.relu(self.bn(self.conv(images)))
            return self.out(self.flatten(maps))
    real_gradients = processes.compute_gradients
    def faulty(model, images, labels, scale):
        return real_gradients(model, images, labels, lambda loss: loss / 2)
    def plant(fault):
        processes.compute_gradients = faulty if fault else real_gradients
    def tiny(*_, **__):
        model = Tiny()
        model(keras.ops.zeros((1, 28, 28, 1)))
        return model

real_model = package.create_model
def options(case):
    paths = {name: Path(case[name]) for name in ("output", "weights") if name in case}
    others = {name: case[name] for name in case if name not in ("tiny", "fault")}
    return runs.options(**others | paths)

if "mirrored" in sys.argv:
    import contextlib, tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    joined = contextlib.nullcontext(processes.Group(strategy=strategy))
else:
    joined = train.join(options(cases[0]))
with joined as group:
    for case in cases:
        package.create_model = tiny if case.get("tiny") else real_model
        plant(case.get("fault"))
        train.train_in_group(options(case), group)
"""


@contextlib.contextmanager
def started(side: str, size: int, *arguments: object) -> Iterator["Group"]:
    """Gives processes that train one model, and ends them."""
    group = Group(side, size, *arguments)
    try:
        yield group
    finally:
        group.end()


class Group:
    """Processes that train one model, started as their frameworks want it."""

    def __init__(self, side: str, size: int, *arguments: object):
        ports = [_free_port() for _ in range(size)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env=os.environ | (_environment(side, rank, ports) if size > 1 else {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(size)
        ]

    def end(self) -> None:
        """Ends what has not ended."""
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()

    def wait(self, timeout: float) -> list[tuple[int, str]]:
        """Returns the exit codes and what was printed."""
        printed = [x.communicate(timeout=timeout)[0] for x in self.processes]
        codes = [process.returncode for process in self.processes]
        return list(zip(codes, printed, strict=True))

    def wait_for(self, path: Path) -> None:
        """Returns when there is a file."""
        end = time.monotonic() + 300
        while not path.exists():
            assert time.monotonic() < end, f"no {path}"
            ended = [x for x in self.processes if x.poll() is not None]
            assert not ended, ended[0].stdout.read()
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _environment(side: str, rank: int, ports: list[int]) -> dict[str, str]:
    if side == "torch":
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(ports)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports[0]),
            "OMP_NUM_THREADS": "1",
        }
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
    return {"TF_CONFIG": json.dumps(config), "TF_CPP_MIN_LOG_LEVEL": "3"}


def group_of(side: str, rank: int, size: int):
    """Returns a group of a side that does not communicate."""
    if side == "torch":
        return PROCESSES[side].Group(rank, size)
    strategy = SimpleNamespace(num_replicas_in_sync=size)
    return PROCESSES[side].Group(rank, size, strategy)


def shards(side: str, indices: np.ndarray, size: int) -> list[np.ndarray]:
    parts = [group_of(side, rank, size).shard(indices) for rank in range(size)]
    return parts if side == "torch" else [part for (part,) in parts]


@pytest.mark.parametrize("side", PROCESSES)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_every_image_of_a_batch_is_in_one_part(side, size):
    indices = np.random.default_rng(0).permutation(65)
    parts = shards(side, indices, size)
    assert sorted(np.concatenate(parts)) == list(range(65))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_both_sides_give_a_process_the_same_part():
    indices = np.random.default_rng(0).permutation(65)
    for ours, theirs in zip(*(shards(s, indices, 3) for s in PROCESSES), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("batch_size", "test_size", "processes", "normalises", "message"),
    [
        (9, 3, 4, False, "4 processes want an image each, and the test part is of 3"),
        (3, 9, 4, False, "4 processes want an image each, and a batch is of 3"),
        (7, 9, 4, True, "4 processes want two images each, to .* a batch is of 7"),
        (8, 9, 4, True, None),
        (3, 3, 1, True, None),
    ],
)
def test_images_for_each_process_are_wanted(
    batch_size, test_size, processes, normalises, message
):
    options = runs.options("lenet5", batch_size=batch_size)
    sizes = (2 * batch_size, test_size)
    images = [np.zeros((size, 28, 28, 1), np.uint8) for size in sizes]
    dataset = SimpleNamespace(train_images=images[0], test_images=images[1])
    arguments = (options, dataset, processes, normalises)
    if message is None:
        runs.check_parts(*arguments)
        return
    with pytest.raises(UsageError, match=message):
        runs.check_parts(*arguments)


@pytest.mark.parametrize(
    "config",
    [
        "no JSON",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, '
        '"task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_wrong_tf_config_is_named(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with (
        pytest.raises(UsageError, match=r"(?s)TF_CONFIG is .* would do"),
        keras_impl.processes.join(runs.options("lenet5")),
    ):
        pass


def test_processes_that_do_not_come_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(torch_impl.processes, "TIMEOUT", 1)
    for name, value in _environment("torch", 0, [_free_port()] * 2).items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UsageError, match="do not find each other"),
        torch_impl.processes.join(runs.options("lenet5")),
    ):
        pass


def test_several_gpus_of_one_process():
    assert devices.parse("gpu:1,gpu:0") == ("gpu", 1)
    for name in ("gpu:0,", "gpu,gpu:1", "cpu,gpu:0", "gpu:0,gpu:0"):
        with pytest.raises(UsageError, match=name):
            devices.parse(name)
    with pytest.raises(UsageError, match="torchrun --nproc-per-node 2"):
        torch_impl.processes.Group().device("gpu:0,gpu:1")
    if not tf.config.list_physical_devices("GPU"):
        options = runs.options("lenet5", device="gpu:0,gpu:1")
        with (
            pytest.raises(UsageError, match="TensorFlow sees 0 GPUs here"),
            keras_impl.processes.join(options),
        ):
            pass


def test_synchronised_batch_normalisation_is_refused_on_the_cpu():
    group = torch_impl.processes.Group(0, 2)
    model = torch_impl.create_model("lenet5", seed=0)
    assert group.prepare(model, False) is model
    with pytest.raises(UsageError, match="for GPUs only"):
        group.prepare(model, True)


def train(
    side: str, size: int, cases: dict[str, dict], folder: Path, *flags: str
) -> None:
    """Trains in a group, each case into a folder of its name."""
    listed = [
        {"model": "lenet5", "dataset": "digits", "precision": "float64", "epochs": 3}
        | {"quiet": True, "output": str(folder / name)}
        | case
        for name, case in cases.items()
    ]
    with started(side, size, "-c", WORKER, side, json.dumps(listed), *flags) as group:
        for code, printed in group.wait(600):
            assert code == 0, printed


SAME = {
    "sgd": {"optimizer": "sgd", "batch_size": 64, "learning_rate": 0.05},
    "momentum": {
        "optimizer": "momentum",
        "batch_size": 65,
        "learning_rate": 0.1,
        "clip_norm": 1.0,
    },
    "adam": {
        "optimizer": "adam",
        "batch_size": 65,
        "learning_rate": 0.002,
        "weight_decay": 0.01,
        "clip_norm": 0.5,
    },
}
NORMALISED = {"tiny": True, "optimizer": "sgd", "batch_size": 65, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[tuple[str, int | str], Path]:
    """Runs of each side in one process and in two, by side and number.

    "mirrored" is two replicas in one process.
    """
    generator = np.random.default_rng(0)
    shapes = {"conv.weight": (4, 1, 5, 5), "out.weight": (10, 256), "out.bias": (10,)}
    shapes |= {f"bn.{name}": (4,) for name in ("weight", "bias", "running_mean")}
    tensors = {k: generator.normal(size=s) / 8 for k, s in shapes.items()}
    tensors |= {"conv.bias": np.zeros(4), "bn.running_var": np.ones(4)}
    # PyTorch reads them into a model of float32.
    tensors = {name: np.float32(tensor) for name, tensor in tensors.items()}
    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    files.save_weights(weights, tensors, {})
    normalised = {"norm": NORMALISED | {"weights": str(weights)}}
    result = {("keras", "mirrored"): tmp_path_factory.mktemp("mirrored")}
    replicas = {"momentum": SAME["momentum"]} | normalised
    train("keras", 1, replicas, result["keras", "mirrored"], "mirrored")
    for side in PROCESSES:
        folder = tmp_path_factory.mktemp(side)
        result[side, 1], result[side, 2] = folder / "one", folder / "two"
        train(side, 1, SAME | normalised, folder / "one")
        more = {
            "fault": SAME["momentum"] | {"fault": True},
            "dropout": {"model": "cnn_dropout", "epochs": 1, "batch_size": 720},
        }
        if side == "keras":
            more["sync"] = normalised["norm"] | {"sync_bn": True}
        train(side, 2, SAME | normalised | more, folder / "two")
    return result


def difference(ours: Path, theirs: Path) -> float:
    """Returns the largest relative difference of two runs' final weights.

    That of a bias before batch normalisation is left out: it changes nothing, and its
    gradient is rounding.
    """
    (ours, _), (theirs, _) = (
        files.load_weights(x / "final.safetensors") for x in (ours, theirs)
    )
    assert ours.keys() == theirs.keys()
    names = [name for name in ours if not ("bn.bias" in ours and name == "conv.bias")]
    return max(
        np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(ours[name])
        for name in names
    )


def lines(folder: Path) -> list[dict[str, float]]:
    return list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize("side", PROCESSES)
@pytest.mark.parametrize("case", SAME)
def test_two_processes_train_as_one(side, case, folders):
    one, two = (folders[side, size] / case for size in (1, 2))
    assert difference(one, two) < 1e-9
    for ours, theirs in zip(lines(one), lines(two), strict=True):
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6)


@pytest.mark.slow
def test_two_replicas_in_one_process_train_as_one(folders):
    replicas = folders["keras", "mirrored"]
    assert difference(replicas / "momentum", folders["keras", 1] / "momentum") < 1e-9
    assert difference(replicas / "norm", folders["keras", 2] / "norm") < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("side", PROCESSES)
def test_parts_that_do_not_weigh_as_much_as_they_are_large_are_seen(side, folders):
    two = folders[side, 2]
    assert difference(two / "momentum", two / "fault") > 1e-6


@pytest.mark.slow
def test_batch_normalisation_takes_the_statistics_of_a_part_on_both_sides(folders):
    ours, theirs = (folders[side, 2] / "norm" for side in PROCESSES)
    assert difference(ours, theirs) < 1e-9
    for side in PROCESSES:
        assert difference(ours, folders[side, 1] / "norm") > 1e-4


@pytest.mark.slow
def test_synchronised_it_takes_those_of_the_batch(folders):
    two = folders["keras", 2] / "sync"
    for side in PROCESSES:
        assert difference(two, folders[side, 1] / "norm") < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("side", PROCESSES)
def test_each_process_draws_its_own_dropout(side, folders):
    last = folders[side, 2] / "dropout" / runs.LAST_CHECKPOINT
    random = checkpoints.part(checkpoints.load(last)[0], "random")
    assert random
    for rows in random.values():
        assert len(rows) == 2
        assert not np.array_equal(*rows)


LONG = ("lenet5", "--dataset", "digits", "--epochs", "5000", "--checkpoint-every", "10")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "victim"), [("keras", 0), ("keras", 1), ("torch", 0), ("torch", 1)]
)
def test_a_process_that_is_killed_ends_the_run(side, victim, tmp_path):
    folder = tmp_path / "run"
    program = ("-m", f"{side}_impl.train")
    with started(side, 2, *program, *LONG, "--quiet", "--output", folder) as group:
        group.wait_for(folder / "checkpoints" / "previous.safetensors")
        group.processes[victim].kill()
        survivor = group.processes[1 - victim]
        printed, _ = survivor.communicate(timeout=SECONDS)
        assert survivor.returncode == 1
        last = printed.splitlines()[-1]
        assert "another process of the group ended (" in last
        assert last.endswith(f"--resume {folder} goes on")
        assert "Traceback" not in printed
    done = checkpoints.load(folder / runs.LAST_CHECKPOINT)[1].epoch
    again = ("--resume", folder, "--epochs", done + 2, "--quiet")
    with started(side, 1 + victim, *program, *again) as group:
        for code, printed in group.wait(300):
            assert code == 0, printed
    assert [line["epoch"] for line in lines(folder)] == list(range(1, done + 3))
    assert (folder / "final.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("side", PROCESSES)
def test_a_group_stops_together(side, tmp_path):
    folder = tmp_path / "run"
    program = ("-m", f"{side}_impl.train")
    with started(side, 2, *program, *LONG, "--quiet", "--output", folder) as group:
        group.wait_for(folder / "checkpoints" / "previous.safetensors")
        group.processes[1].send_signal(signal.SIGTERM)
        ended = group.wait(SECONDS)
    assert [code for code, _ in ended] == [128 + signal.SIGTERM] * 2
    said = [printed.count("stopped by SIGTERM") for _, printed in ended]
    assert said == [1, 0]
    progress = checkpoints.load(folder / runs.LAST_CHECKPOINT)[1]
    assert f"after {progress.epoch} epochs and {progress.step} steps" in ended[0][1]


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path):
    folder = tmp_path / "run"
    command = "-m torch.distributed.run --nproc-per-node 2 -m torch_impl.train lenet5"
    arguments = "--dataset digits --epochs 1 --quiet --output"
    ended = subprocess.run(
        [sys.executable, *command.split(), *arguments.split(), folder],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("test accuracy") == 1
    assert len(lines(folder)) == 1
