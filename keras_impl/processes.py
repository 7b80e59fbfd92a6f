"""Several processes that train one model, each on its part of every batch.

TF_CONFIG in the environment tells each process of the others, as TensorFlow's
MultiWorkerMirroredStrategy wants it; several GPUs of one process are named by
`--device gpu:0,gpu:1`. Each device holds a replica of the model and computes the
gradient on its part, and all make the same step with the sum. Batch normalisation
takes the statistics of each part, or with --sync-bn of the whole batch; the running
statistics are the means over the replicas.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_impl.data import normalise
from keras_impl.devices import share_gpus
from keras_impl.steps import compute_gradients, scale_of
from keras_impl.tracing import named_layers
from parity.spec import devices, metrics
from parity.spec.errors import Failure, UsageError

LONGEST_PATH = 4096  # of a folder, in bytes


class Group:
    """The processes that train one model, and the replicas of it in this one.

    Attributes:
        rank: which process this one is, from 0; the first writes.
        size: how many replicas there are in all processes.
        folder: of the run, as the first process has it, if there is one.
    """

    def __init__(
        self,
        rank: int = 0,
        processes: int = 1,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.rank, self.processes, self.strategy = rank, processes, strategy
        self.size = strategy.num_replicas_in_sync if strategy else 1
        self.folder = None
        local = self.size // processes
        self.replicas = range(rank * local, (rank + 1) * local)
        self._sums = {}

    def device(self, name: str) -> str:
        """Returns the name of this process's device."""
        if self.size == 1:
            return name
        first = self.strategy.extended.worker_devices[0]
        return "gpu" if "GPU" in first else "cpu"

    def scope(self, device: str) -> contextlib.AbstractContextManager:
        """Returns a context in which models are made and trained."""
        return tf.device(device) if self.size == 1 else self.strategy.scope()

    def prepare(self, model: keras.Model, sync_bn: bool) -> keras.Model:
        """Returns a model, before it has an optimizer."""
        if self.size == 1:
            return model
        for layer in named_layers(model).values():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = sync_bn
        # Each replica draws its own dropout, the first one as if it were alone.
        named = {id(variable) for variable in model.weights}
        for variable in model.variables:
            if id(variable) not in named:
                rows = [np.array(variable) + [rank, 0] for rank in range(self.size)]
                self.unstack(variable, np.array(rows))
        return model

    def make_train_step(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        compiled: bool,
    ) -> Callable:
        """Returns what makes one step on each replica's part of a batch.

        Args:
            model: made in `scope`.
            optimizer: of its variables.
            compiled: whether XLA compiles all but the sum of the gradients.
        """
        layers = named_layers(model).values()
        if compiled and any(getattr(layer, "synchronized", False) for layer in layers):
            raise UsageError(
                "XLA does not compile Keras's synchronised batch normalisation: "
                "--compile and --fast do not go with --sync-bn"
            )
        optimizer.build(model.trainable_variables)
        # Clipping and the scaling of float16 want the sum, and Keras's optimizers make
        # it after them: here it is made before, and once.
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner._all_reduce_sum_gradients = list

        def compute(images, labels, size):
            share = tf.shape(labels)[0] / size
            scaled = scale_of(optimizer) or tf.identity
            loss, gradients = compute_gradients(
                model, images, labels, lambda x: scaled(x * tf.cast(share, x.dtype))
            )
            return loss * tf.cast(share, loss.dtype), gradients

        if compiled:
            compute = tf.function(compute, reduce_retracing=True, jit_compile=True)

        def step(images, labels, size):
            loss, gradients = compute(images, labels, size)
            replica = tf.distribute.get_replica_context()
            gradients = replica.all_reduce("sum", gradients)
            optimizer.apply(gradients, model.trainable_variables)
            return loss

        return step

    def make_train_steps(
        self,
        step: Callable,
        tensors: tuple[tf.Tensor, tf.Tensor],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> Callable:
        """Returns what makes the steps of several batches in one call.

        Args:
            step: of `make_train_step`.
            tensors: images uint8 (N, H, W, C) and labels (N,) that the batches are of.
            mean: per channel, of images scaled to 0 to 1.
            std: likewise.
        """
        images, labels = (self.spread([x] * len(self.replicas)) for x in tensors)

        def own_step(indices, images, labels):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            own = indices[replica :: self.size]
            batch = normalise(tf.gather(images, own), mean, std)
            return step(batch, tf.gather(labels, own), tf.shape(indices)[0])

        @tf.function(reduce_retracing=True)
        def train_steps(order):
            losses = tf.TensorArray(tf.float64, tf.shape(order)[0])
            for number in tf.range(tf.shape(order)[0]):
                parts = self.strategy.run(own_step, (order[number], images, labels))
                parts = self.strategy.experimental_local_results(parts)
                losses = losses.write(number, tf.cast(tf.add_n(parts), tf.float64))
            return losses.stack()

        return train_steps

    def run(self, step: Callable) -> Callable:
        """Returns what makes one step on each replica, of batches read beforehand."""

        @tf.function(reduce_retracing=True)
        def train_step(images, labels, size):
            parts = self.strategy.run(step, (images, labels, size))
            return tf.add_n(self.strategy.experimental_local_results(parts))

        return train_step

    def shard(self, indices: np.ndarray) -> list[np.ndarray]:
        """Returns the parts of a batch of this process's replicas."""
        return [indices[replica :: self.size] for replica in self.replicas]

    def spread(self, values: Sequence[tf.Tensor]) -> object:
        """Gives each replica of this process its value, on its device."""
        places = self.strategy.extended.worker_devices

        def value(context):
            number = context.replica_id_in_sync_group - self.replicas.start
            with tf.device(places[number]):
                return tf.identity(values[number])

        return self.strategy.experimental_distribute_values_from_function(value)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of an array over the processes."""
        if self.processes == 1:
            return values
        vector = tf.constant(values.ravel())
        if vector.dtype not in self._sums:
            signature = [tf.TensorSpec([None], vector.dtype)]
            self._sums[vector.dtype] = tf.function(self._sum_of_vectors, signature)
        return self._sums[vector.dtype](vector).numpy().reshape(values.shape)

    def _sum_of_vectors(self, values: tf.Tensor) -> tf.Tensor:
        def in_replica():
            replica = tf.distribute.get_replica_context()
            first = replica.replica_id_in_sync_group == self.replicas.start
            own = tf.identity(values) if first else tf.zeros_like(values)
            return replica.all_reduce("sum", own)

        sums = self.strategy.run(in_replica)
        return self.strategy.experimental_local_results(sums)[0]

    def mean(self, value: float) -> float:
        """Returns the mean of a number over the processes."""
        return float(self.sum(np.float64(value))) / self.processes

    def any(self, flag: bool) -> bool:
        """Returns whether any process says so."""
        return bool(self.sum(np.float32(flag)))

    def stack(self, variable: keras.Variable) -> np.ndarray:
        """Returns a variable's values in all replicas as rows, in their order."""
        if self.size == 1:
            return np.array(variable)[None]
        own = self.strategy.experimental_local_results(variable.value)
        rows = np.zeros((self.size, *variable.shape), variable.dtype)
        rows[self.replicas.start : self.replicas.stop] = [x.numpy() for x in own]
        return self.sum(rows)

    def unstack(self, variable: keras.Variable, rows: np.ndarray) -> None:
        """Gives each replica its value; one without a row keeps what it has."""
        if self.size == 1:
            variable.assign(rows[0])
            return
        own = self.strategy.experimental_local_results(variable.value)
        for replica, value in zip(self.replicas, own, strict=True):
            if replica < len(rows):
                value.assign(rows[replica])

    def average(self, model: keras.Model) -> None:
        """Gives a model the mean of the replicas' running statistics."""
        if self.size == 1:
            return
        for variable in model.non_trainable_weights:
            mean = self.stack(variable).mean(0)
            self.unstack(variable, np.broadcast_to(mean, (self.size, *mean.shape)))

    def predict(self, predictor, pipeline, predict_all) -> np.ndarray:
        """Returns the logits of all of a pipeline's images, in order."""
        if self.processes == 1:
            return predict_all(predictor, pipeline)
        own = np.arange(self.rank, len(pipeline), self.processes)
        order = [own[x] for x in metrics.in_order(len(own), *pipeline.size)]
        batches = pipeline.batches(order)
        part = np.concatenate([predictor(images) for images, _ in batches])
        logits = np.zeros((len(pipeline), *part.shape[1:]), part.dtype)
        logits[own] = part
        return self.sum(logits)

    def share(self, folder: Path) -> None:
        """Tells the others the first process's run folder."""
        self.folder = str(folder)
        if self.processes > 1:
            text = np.zeros(LONGEST_PATH, np.int32)
            said = [] if self.rank else list(os.fsencode(folder))[:LONGEST_PATH]
            text[: len(said)] = said
            self.folder = os.fsdecode(bytes(self.sum(text).tolist()).rstrip(b"\0"))

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Lets the first process do what is inside before the others do it."""
        if self.rank:
            self.any(False)
        yield
        if not self.rank:
            self.any(False)
        self.any(False)


@contextlib.contextmanager
def join(options) -> Iterator[Group]:
    """Gives the group that the environment names, for as long as it lasts.

    Raises:
        UsageError: the environment or --device names one that there cannot be.
        Failure: another process of the group ended.
    """
    group = _create(options.device)
    try:
        yield group
    except Failure as error:
        if group.rank:  # all have the same, and the first one says it
            sys.exit(error.code)
        raise
    except Exception as error:
        if group.processes == 1 or not _is_of_group(error):
            raise
        hint = f"; --resume {group.folder} goes on" if group.folder else ""
        raise Failure(
            f"another process of the group ended ({_reason(error)}){hint}"
        ) from None


def _create(device: str) -> Group:
    """Returns the group; TensorFlow wants that before any operation."""
    rank, processes = _place()
    names = device.split(",")
    if processes == len(names) == 1:
        return Group()
    kind, _ = devices.parse(device)
    numbers = [devices.parse(name)[1] for name in names]
    gpus = share_gpus()
    if kind == "gpu" and max(numbers) >= len(gpus):
        raise UsageError(
            f"TensorFlow sees {len(gpus)} GPUs here; --device {device} wants others"
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    elif ":" in device:
        tf.config.set_visible_devices([gpus[number] for number in numbers], "GPU")
    if processes == 1:
        return Group(strategy=tf.distribute.MirroredStrategy())
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, ValueError) as error:
        raise UsageError(
            f"the processes do not find each other ({_reason(error)}); TF_CONFIG "
            "names all of them, and which one this is"
        ) from None
    return Group(rank, processes, strategy)


def _place() -> tuple[int, int]:
    """Returns which process this is and how many there are.

    Raises:
        UsageError: TF_CONFIG does not say so.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0, 1
    try:
        config = json.loads(text)
        kinds = {kind: len(config["cluster"][kind]) for kind in config["cluster"]}
        kind, index = config["task"]["type"], int(config["task"]["index"])
        if not 0 <= index < kinds[kind] or set(kinds) - {"chief", "worker"}:
            raise ValueError("chief and worker only, of whom this is one")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"TF_CONFIG is {text!r}, which does not say which process this is "
            f'({error}); {{"cluster": {{"worker": ["HOST:PORT", ...]}}, "task": '
            '{"type": "worker", "index": 0}} would do'
        ) from None
    before = kinds.get("chief", 0) if kind == "worker" else 0
    return before + index, sum(kinds.values())


def _is_of_group(error: Exception) -> bool:
    """Returns whether an error is what TensorFlow raises when a process has ended.

    Its heartbeats see that in ten seconds, and a closed connection is seen at once.
    """
    kinds = ("Aborted", "Cancelled", "DeadlineExceeded", "Internal", "Unavailable")
    return isinstance(error, tuple(getattr(tf.errors, f"{x}Error") for x in kinds))


def _reason(error: Exception) -> str:
    """Returns the line of an error that says what happened, without what follows."""
    lines = str(getattr(error, "message", error)).splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    told = [line for line in lines if "aborted by" in line]
    return (told or lines or [type(error).__name__])[0].rpartition("aborted by: ")[2]
