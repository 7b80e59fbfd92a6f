"""What makes a run's steps, and all that they depend on as tensors."""

import functools
import time

import keras
import numpy as np
from keras import ops

from keras_impl import data, tracing, weights
from keras_impl.optim import set_learning_rate
from keras_impl.steps import (
    make_predictor,
    make_train_step,
    make_train_steps,
    measure,
    predict_all,
)
from parity.spec import checkpoints, runs

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

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
        runs.check_parts(options, dataset, group.size, normalises_batches(model))
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
        arguments = (model, optimizer, options.compile)
        if self.alone:
            self.train_step = make_train_step(*arguments)
        else:
            step = group.make_train_step(*arguments)
            self.train_step = group.run(step)
        if tensors := self.train_set.tensors:
            statistics = (dataset.mean, dataset.std)
            if self.alone:
                steps = make_train_steps(self.train_step, tensors, *statistics)
            else:
                steps = group.make_train_steps(step, tensors, *statistics)
            self.train_steps = steps
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
            yield from self._steps_of_files(order, epoch)
            return
        count, done = 1, 0
        most = min(self.options.checkpoint_every or CALL_STEPS, CALL_STEPS)
        while done < len(order):
            size = len(order[done])
            batches = [x for x in order[done : done + count] if len(x) == size]
            start = time.perf_counter()
            losses = self.train_steps(tf.constant(np.stack(batches)))
            done += len(batches)
            if count < most:
                losses.numpy()
                seconds = (time.perf_counter() - start) / len(batches)
                seconds = self.group.mean(seconds)
                count = min(2 * count, max(1, int(CALL_SECONDS / seconds)), most)
            yield losses

    def _steps_of_files(self, order, epoch):
        if self.alone:
            for images, labels in self.train_set.batches(order, epoch):
                yield self.train_step(images, labels)
            return
        parts = [part for indices in order for part in self.group.shard(indices)]
        batches = self.train_set.batches(parts, epoch)
        for indices in order:
            own = zip(*(next(batches) for _ in self.group.replicas), strict=True)
            size = tf.constant(len(indices))
            yield self.train_step(*map(self.group.spread, own), size)

    def to_host(self, losses):
        """Returns the losses (n,) of n steps."""
        losses = np.concatenate([np.atleast_1d(x.numpy()) for x in losses])
        return self.group.sum(losses.astype(float))

    def predict(self, part):
        """Returns the logits (N, num_classes) of "train" or "test"."""
        self.group.average(self.model)
        return self.group.predict(self.predictor, self.parts[part], predict_all)

    def measure(self, logits, labels):
        """Returns mean loss and accuracy."""
        return measure(logits, labels)

    def state(self):
        """Returns every tensor that the next steps depend on.

        A generator's are a row for each replica.
        """
        self.group.average(self.model)
        state = checkpoints.under("model", weights.to_common(self._named))
        for index, variable in enumerate(self.optimizer.variables):
            state[f"optimizer/{index}"] = ops.convert_to_numpy(variable)
        for index, variable in enumerate(self._random()):
            state[f"random/{index}"] = self.group.stack(variable)
        return state

    @functools.cached_property
    def _named(self):
        """The model's weights by name; to find them takes a run of it."""
        return weights.named_weights(self.model)

    def load(self, state):
        """Goes back to a state."""
        model = checkpoints.part(state, "model")
        weights.load_state_dict(self.model, model, "the checkpoint")
        for index, variable in enumerate(self.optimizer.variables):
            variable.assign(state[f"optimizer/{index}"])
        for index, variable in enumerate(self._random()):
            self.group.unstack(variable, state[f"random/{index}"])

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


def normalises_batches(model):
    """Returns whether a model has batch normalisation."""
    layers = tracing.named_layers(model).values()
    return any(isinstance(x, keras.layers.BatchNormalization) for x in layers)
