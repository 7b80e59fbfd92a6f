"""The run folder: what a training leaves behind, the same from both sides.

args.json             arguments, versions, device, normalisation
metrics.jsonl         one line per epoch
initial.safetensors   weights before the first step, in the common form
checkpoints/          last, previous and best (by test accuracy) .safetensors
final.safetensors     weights after the last step
model.keras|model.pt  the framework's own checkpoint
curves.png            loss and accuracy per epoch
predictions.png       25 test images with prediction and label; written last
"""

import contextlib
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parity.spec import checkpoints, files, pictures, runs
from parity.spec.checkpoints import Progress
from parity.spec.datasets import Dataset
from parity.spec.errors import UsageError

if TYPE_CHECKING:
    from tqdm import tqdm

LAST = "predictions.png"
OF_A_RUN = (
    "args.json",
    "metrics.jsonl",
    "checkpoints",
    "initial.safetensors",
    "final.safetensors",
)
# What a run's data are known by, besides its options.
SAME = ("classes", "train_size", "test_size", "mean", "std")


class Run:
    """A run folder that is being written, and the lines that the user sees.

    In a group of processes that train one model, the first one's writes, and the
    others' do nothing.
    """

    def __init__(
        self,
        options: runs.Options,
        framework: str,
        versions: Mapping[str, str],
        *,
        writes: bool = True,
        event_writer: Callable[[Path, int], object] | None = None,
    ):
        """Makes the folder, or takes that of the run to go on with.

        Raises:
            UsageError: the folder holds a run already, is another program's at the
                moment or cannot be made; there is no run to go on with.
        """
        self.options = options
        self.framework = framework
        self.versions = dict(versions)
        self.writes = writes
        self.event_writer = event_writer
        self.events = None
        self.arguments = {}
        self.epochs = []
        self.folder = self._resumed() if options.resume else self._new()

    def _new(self) -> Path:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        default = Path("runs") / f"{self.options.model}-{self.framework}-{stamp}"
        folder = self.options.output or default
        if not self.writes:
            return folder
        try:
            while self.options.output is None and folder.exists():
                folder = folder.with_name(f"{folder.name}-again")
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make {folder}: {error.strerror}") from None
        self._unlock = files.lock(folder, self)
        if any((folder / name).exists() for name in OF_A_RUN):
            raise UsageError(
                f"{folder} holds a run already; choose another --output, or "
                f"--resume {folder} to go on with it"
            )
        files.remove_unfinished(folder)
        return folder

    def _resumed(self) -> Path:
        folder = runs.folder_of(self.options.resume)
        if self.writes:
            self._unlock = files.lock(folder, self)
            files.remove_unfinished(folder)
            files.remove_unfinished(folder / "checkpoints")
        return folder

    def start(
        self, dataset: Dataset, device: str, parameters: int, processes: int = 1
    ) -> None:
        """Writes args.json and says what is about to be trained."""
        self.arguments = asdict(self.options) | {
            "framework": self.framework,
            "placed_on": device,
            "processes": processes,
            "parameters": parameters,
            "classes": dataset.classes,
            "mean": dataset.mean,
            "std": dataset.std,
            "train_size": len(dataset.train_images),
            "test_size": len(dataset.test_images),
            "versions": {"python": platform.python_version()} | self.versions,
        }
        if self.options.resume:
            before = runs.read_arguments(self.folder)
            self._check_same(f"{self.folder} began", before, "start another run")
        elif self.writes:
            files.write_json(self.folder / "args.json", self.arguments)
        train, test = len(dataset.train_images), len(dataset.test_images)
        self.say(
            f"{self.options.model} ({parameters:,} parameters) in {self.framework} on "
            f"{device}: {dataset.name}, {train:,} training and {test:,} test images"
        )

    def _check_same(self, what: str, before: Mapping[str, object], hint: str) -> None:
        """Raises UsageError where a file of the run says that it was another one."""
        now = json.loads(json.dumps(files.plain(self.arguments), default=str))
        for name in ("framework", *runs.FIXED, *SAME):
            ours, theirs = now[name], before.get(name)
            near = name in ("mean", "std") and ours != theirs and _near(ours, theirs)
            if ours != theirs and not near:
                if name == "framework":
                    hint = f"python -m {theirs}_impl.train goes on"
                raise UsageError(
                    f"{what} with the {name.replace('_', ' ')} {theirs}, and now it is "
                    f"{ours}; {hint}"
                )

    def resume(self) -> tuple[dict[str, np.ndarray] | None, Progress]:
        """Returns the state to go on from, None for that of a new run.

        Nothing is written before `go_on`: it may not fit.

        Raises:
            UsageError: the run is finished, or its checkpoint is damaged or another
                run's.
        """
        if not self.options.resume:
            return None, Progress()
        path = runs.checkpoint_of(self.options.resume)
        if path is None:  # ended before the first one
            if self.writes:
                files.write_json(self.folder / "args.json", self.arguments)
            return None, Progress()
        try:
            state, progress, arguments = checkpoints.load(path)
        except UsageError as error:
            raise UsageError(f"{error}{self._what_would_do(path)}") from None
        hint = "if args.json was changed, remove it: the checkpoint says all of it"
        self._check_same(f"{path} was made", arguments, hint)
        done, epochs = progress.epoch, self.options.epochs
        if done > epochs or (done == epochs and progress.step):
            raise UsageError(f"{path} is beyond --epochs {epochs}: {done} are done")
        if done == epochs and (self.folder / LAST).exists():
            raise UsageError(
                f"{self.folder} is finished: {done} epochs; a larger --epochs would "
                "go on"
            )
        return state, progress

    def _what_would_do(self, damaged: Path) -> str:
        for name in ("last", "previous", "best"):
            path = self.folder / "checkpoints" / f"{name}.safetensors"
            with contextlib.suppress(UsageError):
                if path != damaged:
                    checkpoints.load(path)
                    return f"; --resume {path} would do"
        return "; no other checkpoint is left, so the run is to be started again"

    def go_on(self, progress: Progress) -> None:
        """Makes the folder that of the checkpoint, which has been found to fit."""
        self.epochs = list(progress.epochs)
        if self.writes:
            path = runs.checkpoint_of(self.options.resume)
            # These end an earlier training, not this one; the checkpoint has the same.
            for name in (LAST, "final.safetensors", "model.keras", "model.pt"):
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()
            last = self.folder / runs.LAST_CHECKPOINT
            if path.resolve() != last.resolve():
                self._forget_best_after(progress.epoch)
                files.write_atomically(last, lambda file: shutil.copyfile(path, file))
            files.write_json(self.folder / "args.json", self.arguments)
            self._write_metrics()
        self.say(
            f"going on with {self.folder} after {progress.epoch} epochs and "
            f"{progress.step} steps"
        )

    def _forget_best_after(self, epoch: int) -> None:
        """Removes the best checkpoint where it is of an epoch that is made again."""
        best = self.folder / "checkpoints" / "best.safetensors"
        with contextlib.suppress(UsageError, OSError):
            if checkpoints.load(best)[1].epoch > epoch:
                best.unlink()

    def progress(self, total: int, done: int, epoch: int) -> "tqdm":
        """Returns a progress bar for a terminal, to be told of steps by `update`."""
        from tqdm import tqdm

        hidden = self.options.quiet or not self.writes or not sys.stderr.isatty()
        label = f"epoch {epoch + 1}/{self.options.epochs}"
        return tqdm(
            total=total,
            initial=done,
            desc=label,
            leave=False,
            disable=hidden,
            unit="step",
        )

    def begin_events(self, first_epoch: int) -> None:
        """Begins the files for TensorBoard, where they are asked for."""
        if self.writes and self.options.tensorboard:
            self.events = self.event_writer(self.folder, first_epoch)

    def log(self, **metrics: float) -> None:
        """Adds an epoch's line to metrics.jsonl and says it."""
        self.epochs.append({"epoch": len(self.epochs) + 1} | metrics)
        self._write_metrics()
        if self.events:
            self.events.write(len(self.epochs), metrics)
        digits = {"learning_rate": ".3g", "images_per_second": ".0f"}
        digits["memory_mib"] = ".0f"
        values = "  ".join(
            f"{name} {value:{digits.get(name, '.4f')}}"
            for name, value in metrics.items()
            if name != "first_loss"
        )
        self.say(f"epoch {len(self.epochs)}/{self.options.epochs}  {values}")

    def _write_metrics(self) -> None:
        lines = "".join(f"{json.dumps(files.plain(x))}\n" for x in self.epochs)
        self.save("metrics.jsonl", lambda path: path.write_text(lines, "utf-8"))

    def checkpoint(
        self, state: Mapping[str, np.ndarray], progress: Progress, best: bool = False
    ) -> None:
        """Writes the last checkpoint; the one before becomes the previous one."""
        if not self.writes:
            return
        last = self.folder / runs.LAST_CHECKPOINT
        checkpoints.save(
            last,
            state,
            progress,
            self.arguments,
            old=last.with_stem("previous"),
            also=last.with_stem("best") if best else None,
        )

    def last_state(self) -> dict[str, np.ndarray]:
        """Returns the state of the last checkpoint."""
        return checkpoints.load(self.folder / runs.LAST_CHECKPOINT)[0]

    def finish(self, dataset: Dataset, predictions: np.ndarray) -> float:
        """Draws the pictures and says the last line; returns the test accuracy."""
        self.save("curves.png", lambda path: pictures.draw_curves(self.epochs, path))
        images, labels = dataset.test_images, dataset.test_labels
        self.save(
            LAST,
            lambda path: pictures.draw_predictions(
                images, labels, predictions, dataset.classes, path
            ),
        )
        accuracy = float(np.mean(predictions == labels))
        if self.writes:
            print(f"test accuracy {accuracy:.4f}, run in {self.folder}", flush=True)
        self.close()
        return accuracy

    def close(self) -> None:
        """Leaves the folder to other programs."""
        if self.events:
            self.events.close()
        if self.writes:
            self._unlock()

    def save(self, name: str, write: Callable[[Path], object]) -> None:
        """Writes one of the folder's files, whole or not at all."""
        if self.writes:
            files.write_atomically(self.folder / name, write)

    def save_weights(
        self, name: str, tensors: Mapping[str, np.ndarray], dataset: Dataset
    ) -> None:
        """Writes weights in the common form, with what is needed to use them."""
        if self.writes:
            shape = self.options.shape(dataset)
            metadata = runs.describe(self.options.model, shape, dataset)
            path = self.folder / f"{name}.safetensors"
            files.save_weights(path, tensors, metadata)

    def say(self, line: str) -> None:
        """Prints a line unless the run is quiet."""
        if self.writes and not self.options.quiet:
            with contextlib.suppress(OSError):  # nobody reads it any more
                print(line, flush=True)


def _near(ours: list[float], theirs: object) -> bool:
    """Returns whether two means differ by what another machine's sums explain."""
    try:
        pairs = list(zip(ours, theirs, strict=True))
        return all(math.isclose(x, y, rel_tol=1e-5) for x, y in pairs)
    except (TypeError, ValueError):
        return False
