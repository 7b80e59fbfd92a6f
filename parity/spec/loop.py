"""The epochs of a training: what both sides do around their steps.

Losses stay on the device until they are wanted: every CHECK_EVERY steps, before a
checkpoint and at the end of an epoch.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from parity.spec import checkpoints, memory, metrics, runs
from parity.spec.checkpoints import Progress
from parity.spec.datasets import Dataset
from parity.spec.errors import Failure, UsageError
from parity.spec.run_folder import Run

CHECK_EVERY = 50
# A group agrees on stopping here, and those that start it wait for half a minute.
GROUP_CHECK_EVERY = 10


class Trainer(Protocol):
    """One side's model and optimizer, and the data on its device.

    In a group of processes each has one, and all call the same methods in turn.

    Attributes:
        alone: whether there is no other process.
        group: the processes.
    """

    alone: bool
    group: object

    def set_learning_rate(self, learning_rate: float) -> None:
        """Makes the next steps with a learning rate."""

    def steps(self, order: Sequence[np.ndarray], epoch: int) -> Iterator[object]:
        """Makes the steps of an epoch; yields the losses of one or of several."""

    def to_host(self, losses: Sequence[object]) -> np.ndarray:
        """Returns the losses of all steps that were yielded, waiting for them."""

    def predict(self, part: str) -> np.ndarray:
        """Returns the logits (N, num_classes) of "train" or "test"."""

    def measure(self, logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Returns mean loss and accuracy."""

    def state(self) -> dict[str, np.ndarray]:
        """Returns every tensor that the next steps depend on."""

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Goes back to a state, and to the arithmetic that follows from it."""

    def first_not_finite(self, indices: np.ndarray, epoch: int) -> str | None:
        """Returns the layer whose output is not finite first on a training batch."""

    def any_process(self, flag: bool) -> bool:
        """Returns whether any process of the group says so."""

    def memory(self) -> int:
        """Returns the most bytes that the GPU, if there is one, has had in use."""


def train(trainer: Trainer, run: Run, dataset: Dataset) -> np.ndarray:
    """Makes what is left of a run's epochs; returns the test images' labels.

    Raises:
        Failure: the loss is not finite, or a signal asked the program to stop.
        UsageError: a file could not be written, or a checkpoint does not fit.
    """
    try:
        return _train(trainer, run, dataset)
    except BaseException:
        run.close()  # the error's traceback may keep it alive
        raise


def _train(trainer: Trainer, run: Run, dataset: Dataset) -> np.ndarray:
    state, progress = run.resume()
    if state is not None:
        steps = len(runs.batch_order(run.options, len(dataset.train_images), 0))
        _load(trainer, state, progress, steps)
        run.go_on(progress)
    run.begin_events(progress.epoch)
    with _Stop() as stop:
        loop = _Loop(trainer, run, dataset, progress, stop)
        if state is None:
            loop.begin()
        while progress.epoch < run.options.epochs:
            loop.epoch()
        logits = loop.test_logits
        if logits is None:
            logits = trainer.predict("test")
    return metrics.predicted_labels(logits)


def _load(
    trainer: Trainer, state: dict[str, np.ndarray], progress: Progress, steps: int
) -> None:
    """Loads a checkpoint that may be anything, whole as it is.

    Raises:
        UsageError: it does not fit; the trainer is not to be used any more.
    """
    if progress.step > steps:
        raise UsageError(
            f"the checkpoint does not fit: {progress.step} steps are done, and an "
            f"epoch has {steps}"
        )
    checkpoints.check(state, trainer.state())
    try:
        trainer.load(state)
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"the checkpoint does not fit: {reason}") from None


class _Loop:
    def __init__(self, trainer, run, dataset, progress: Progress, stop: "_Stop"):
        self.trainer = trainer
        self.run = run
        self.options = run.options
        self.dataset = dataset
        self.progress = progress
        self.stop = stop
        self.saved = (progress.epoch, progress.step)
        self.pending = []
        self.test_logits = None

    def begin(self) -> None:
        """Writes the first checkpoint."""
        self._save(self._state([]))

    def epoch(self) -> None:
        """Makes the rest of an epoch, measures, logs and saves."""
        options, progress = self.options, self.progress
        epoch = progress.epoch
        earlier = [line["train_loss"] for line in progress.epochs]
        learning_rate = self.learning_rate = options.epoch_learning_rate(epoch, earlier)
        self.trainer.set_learning_rate(learning_rate)
        order = runs.batch_order(options, len(self.dataset.train_images), epoch)
        self._steps(order, epoch)
        self._stop_if_asked(order)
        state = self._state(order)
        counts = np.array([len(indices) for indices in order])
        logits = self.trainer.predict("train")
        labels, test_labels = self.dataset.train_labels, self.dataset.test_labels
        _, train_accuracy = self.trainer.measure(logits, labels)
        self.test_logits = self.trainer.predict("test")
        test_loss, test_accuracy = self.trainer.measure(self.test_logits, test_labels)
        top5 = {}
        if "top5" in options.metrics:
            top5 = {
                "train_top5": metrics.top5_accuracy(logits, labels),
                "test_top5": metrics.top5_accuracy(self.test_logits, test_labels),
            }
        best = max((line["test_accuracy"] for line in progress.epochs), default=-1.0)
        self.run.log(
            **({} if epoch else {"first_loss": float(progress.losses[0])}),
            train_loss=float(progress.losses @ counts / counts.sum()),
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            **top5,
            learning_rate=learning_rate,
            seconds=progress.seconds,
            images_per_second=float(counts.sum() / progress.seconds),
            memory_mib=(self.trainer.memory() or memory.peak()) / 2**20,
        )
        progress.epoch, progress.step = epoch + 1, 0
        progress.losses, progress.seconds = np.empty(0), 0.0
        progress.epochs = list(self.run.epochs)
        self._save(state, best=test_accuracy > best)
        self._stop_if_asked(order)

    def _steps(self, order: Sequence[np.ndarray], epoch: int) -> None:
        progress, every = self.progress, self.options.checkpoint_every
        before, start = progress.seconds, time.perf_counter()
        first = epoch * len(order)
        check_every = CHECK_EVERY if self.trainer.alone else GROUP_CHECK_EVERY
        done = checked = progress.step
        rest = order[done:]
        with self.run.progress(len(order), done, epoch) as bar:
            for losses in self.trainer.steps(rest, epoch):
                self.pending.append(losses)
                count = int(np.prod(losses.shape))
                done += count
                bar.update(count)
                wanted = every and done < len(order)
                wanted = wanted and (first + done) // every > (
                    (first + self.progress.step) // every
                )
                asked = self.stop.signal and self.trainer.alone
                if wanted or asked or done - checked >= check_every:
                    checked = done
                    self._settle(order, epoch)
                    progress.seconds = before + time.perf_counter() - start
                    if wanted:
                        self._save(self._state(order))
                    self._stop_if_asked(order)
        self._settle(order, epoch)
        progress.seconds = before + time.perf_counter() - start

    def _settle(self, order: Sequence[np.ndarray], epoch: int) -> None:
        """Takes the losses from the device."""
        if not self.pending:
            return
        losses = self.trainer.to_host(self.pending)
        self.pending = []
        progress = self.progress
        progress.losses = np.concatenate([progress.losses, losses])
        progress.step += len(losses)
        bad = np.flatnonzero(~np.isfinite(progress.losses))
        if len(bad):
            self._explain(order, epoch, int(bad[0]))

    def _explain(self, order: Sequence[np.ndarray], epoch: int, step: int) -> None:
        """Says which step, batch and layer a loss that is not finite comes from."""
        loss = self.progress.losses[step]
        self._fail(f"the loss is {loss} at {_where(order, epoch, step)}", order, step)

    def _state(self, order: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the state to save; raises Failure where a weight is not finite.

        A step's loss is that before it, so it does not tell of what the last one did.
        It need not tell of all before either: TensorFlow's largest of NaN and numbers
        is a number on the CPU, so that a max-pooling hides it.
        """
        state = self.trainer.state()
        if name := checkpoints.not_finite(state):
            epoch, step = self.progress.epoch, self.progress.step - 1
            if step < 0:
                raise Failure(f"the initial weights {name} are not finite")
            step, name = self._first_bad_step(order) or (step, name)
            where = _where(order, epoch, step)
            self._fail(f"the weights {name} are not finite after {where}", order, step)
        return state

    def _first_bad_step(self, order: Sequence[np.ndarray]) -> tuple[int, str] | None:
        """Goes on from the last checkpoint to the first weights that are not finite."""
        epoch = self.progress.epoch
        if self._go_back(epoch):
            for step in range(self.saved[1], self.progress.step):
                self._go_on(order[step : step + 1], epoch)
                if name := checkpoints.not_finite(self.trainer.state()):
                    return step, name
        return None

    def _go_back(self, epoch: int) -> bool:
        """Loads the last checkpoint; returns whether it is one of this epoch."""
        if self.saved[0] != epoch or not self.trainer.alone:
            return False
        try:
            state = self.run.last_state()
        except UsageError:
            return False
        self.trainer.load(state)
        self.trainer.set_learning_rate(self.learning_rate)
        return True

    def _go_on(self, order: Sequence[np.ndarray], epoch: int) -> None:
        if losses := list(self.trainer.steps(order, epoch)):
            self.trainer.to_host(losses)

    def _fail(self, message: str, order: Sequence[np.ndarray], step: int) -> None:
        epoch = self.progress.epoch
        if self.saved[0] == epoch and self.trainer.alone:
            self.run.say(f"{message}; making the steps again to find the layer")
        if self._go_back(epoch):
            self._go_on(order[self.saved[1] : step], epoch)
            if layer := self.trainer.first_not_finite(order[step], epoch):
                message += f"; it is first seen in the output of {layer}"
        last = self.run.folder / runs.LAST_CHECKPOINT
        raise Failure(
            f"{message}; a lower --learning-rate, or --clip-norm, would do, from the "
            f"last good state with --weights {last}"
        )

    def _save(self, state: dict[str, np.ndarray], best: bool = False) -> None:
        """Writes a checkpoint of a state whose losses and weights are all finite."""
        self.run.checkpoint(state, self.progress, best)
        self.saved = (self.progress.epoch, self.progress.step)

    def _stop_if_asked(self, order: Sequence[np.ndarray]) -> None:
        if not self.trainer.any_process(bool(self.stop.signal)):
            return
        if (self.progress.epoch, self.progress.step) != self.saved:
            self._save(self._state(order))
        number = self.stop.signal or signal.SIGTERM
        raise Failure(
            f"stopped by {signal.Signals(number).name} after "
            f"{self.progress.epoch} epochs and {self.progress.step} steps; "
            f"--resume {self.run.folder} goes on",
            128 + number,
        )


def _where(order: Sequence[np.ndarray], epoch: int, step: int) -> str:
    """Returns the words for a step and its batch."""
    indices = order[step]
    shown = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
    return f"step {step + 1} of epoch {epoch + 1}, on the training images {shown}"


class _Stop:
    """Takes SIGINT and SIGTERM as a wish to stop; the second one stops at once."""

    def __init__(self):
        self.signal = None
        self.handlers = {}

    def __enter__(self) -> "_Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # Left alone where it is ignored, as in a shell's background.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.handlers[number] = signal.signal(number, self._take)
        return self

    def _take(self, number: int, frame: object) -> None:
        self.signal = number
        self._put_back()
        # A print could come into the middle of another.
        with contextlib.suppress(OSError):
            os.write(2, b"stopping after this step; once more: at once\n")

    def _put_back(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._put_back()
