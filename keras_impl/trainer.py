"""What makes a run's steps, and all that they depend on as tensors."""

import time

import numpy as np
import tensorflow as tf

from keras_impl import data, tracing, weights
from keras_impl.optim import set_learning_rate
from keras_impl.steps import (
    make_predictor,
    make_train_step,
    make_train_steps,
    measure,
    predict_all,
)
from parity.spec import checkpoints
from parity.spec.errors import UsageError

# Seconds that the steps of one call are to take at most, and how many they are.
CALL_SECONDS = 0.1
CALL_STEPS = 64


class Trainer:
    """A model, its optimizer and the data on its device; see `parity.spec.loop`."""

    def __init__(self, model, optimizer, dataset, options, device, group):
        """Puts the data where the steps want them.

        Args:
            model: whose layers have the precision's policy.
            optimizer: of its variables.
            dataset: of the run.
            options: of the run.
            device: of `select_device`.
            group: of `processes.join`.
        """
        self.model = model
        self.optimizer = optimizer
        self.options = options
        self.device = device
        self.group = group
        settings = {
            "mean": dataset.mean,
            "std": dataset.std,
            "workers": options.workers,
        }
        train_part = (dataset.train_images, dataset.train_labels)
        self.train_set = data.Pipeline(
            *train_part, augment=options.augment, seed=options.seed, **settings
        )
        plain = data.Pipeline(*train_part, **settings) if options.augment else None
        self.parts = {
            "train": plain or self.train_set,
            "test": data.Pipeline(dataset.test_images, dataset.test_labels, **settings),
        }
        self.train_step = make_train_step(model, optimizer, options.compile)
        if tensors := self.train_set.tensors:
            statistics = (dataset.mean, dataset.std)
            self.train_steps = make_train_steps(self.train_step, tensors, *statistics)
        self.predictor = make_predictor(model)

    @property
    def alone(self):
        """Whether there is no other process."""
        return self.group.size == 1

    def set_learning_rate(self, learning_rate):
        """Makes the next steps with a learning rate."""
        set_learning_rate(self.optimizer, learning_rate)

    def steps(self, order, epoch):
        """Makes the steps of an epoch; yields the losses of one or of several."""
        if self.train_set.tensors is None:
            for images, labels in self.train_set.batches(order, epoch):
                yield self.train_step(images, labels)
            return
        count, done = 1, 0
        while done < len(order):
            size = len(order[done])
            batches = [x for x in order[done : done + count] if len(x) == size]
            start = time.perf_counter()
            losses = self.train_steps(tf.constant(np.stack(batches)))
            yield losses
            done += len(batches)
            if count < CALL_STEPS:
                losses.numpy()
                seconds = (time.perf_counter() - start) / len(batches)
                count = min(2 * count, max(1, int(CALL_SECONDS / seconds)), CALL_STEPS)

    def to_host(self, losses):
        """Returns the losses (n,) of n steps."""
        return np.concatenate([np.atleast_1d(x.numpy()) for x in losses]).astype(float)

    def predict(self, part):
        """Returns the logits (N, num_classes) of "train" or "test"."""
        return predict_all(self.predictor, self.parts[part])

    def measure(self, logits, labels):
        """Returns mean loss and accuracy."""
        return measure(logits, labels)

    def state(self):
        """Returns every tensor that the next steps depend on."""
        state = checkpoints.under("model", weights.state_dict(self.model))
        for index, variable in enumerate(self.optimizer.variables):
            state[f"optimizer/{index}"] = np.asarray(variable)
        for index, variable in enumerate(self._random()):
            state[f"random/{index}"] = np.asarray(variable)
        return state

    def load(self, state):
        """Goes back to a state."""
        for name, variables in (
            ("optimizer", self.optimizer.variables),
            ("random", self._random()),
        ):
            tensors = checkpoints.part(state, name)
            if len(tensors) != len(variables):
                raise UsageError(
                    f"the checkpoint has {len(tensors)} tensors of {name}, "
                    f"not {len(variables)}"
                )
            for index, variable in enumerate(variables):
                value = tensors[str(index)]
                checkpoints.check_shape(f"{name}/{index}", value, variable.shape)
        model = checkpoints.part(state, "model")
        weights.load_state_dict(self.model, model, "the checkpoint")
        for name, variables in (
            ("optimizer", self.optimizer.variables),
            ("random", self._random()),
        ):
            for index, variable in enumerate(variables):
                variable.assign(state[f"{name}/{index}"])

    def _random(self):
        """Returns the variables of the generators that dropout draws from."""
        named = {id(variable) for variable in self.model.weights}
        return [x for x in self.model.variables if id(x) not in named]

    def first_not_finite(self, indices, epoch):
        """Returns the layer whose output is not finite first on a training batch."""
        images, _ = next(self.train_set.batches([indices], epoch))
        with tracing.record_calls(self.model) as calls:
            self.model(images, training=True)
        for call in calls:
            if not all(np.isfinite(output).all() for output in call.outputs):
                return call.name
        return None

    def any_process(self, flag):
        """Returns whether any process of the group says so."""
        return flag if self.alone else self.group.any(flag)

    def memory(self):
        """Returns the most bytes that the GPU, if there is one, has had in use."""
        if "GPU" not in self.device:
            return 0
        return tf.config.experimental.get_memory_info(self.device)["peak"]

    def speed(self, indices, steps=3):
        """Returns images per second of some steps on one batch, for a trial."""
        times = []
        for _ in range(1 + steps):  # the first one prepares
            start = time.perf_counter()
            self.to_host(list(self.steps([indices], 0)))
            times.append(time.perf_counter() - start)
        return len(indices) / min(times[1:])
