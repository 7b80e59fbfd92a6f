"""Training where Keras does not run on TensorFlow: by Keras's own `train_on_batch`.

Batches come from NumPy, and every step waits for its loss.
"""

import contextlib
import os

import keras
import numpy as np

from keras_impl import data, trainer
from keras_impl.steps import make_predictor, training_loss, widened
from parity.spec.errors import UsageError

BACKEND = keras.backend.backend()


class Group:
    """The only process: what `processes.Group` is where there is one."""

    rank, size = 0, 1

    def device(self, name):
        """Returns the name of the device."""
        return name

    def scope(self, device):
        """Returns a context in which models are made and trained."""
        name = device.strip("/").lower()
        # PyTorch takes cpu:0 for another device than cpu, and copies variables to it.
        return keras.device("cpu" if name == "cpu:0" and BACKEND == "torch" else name)

    def in_turn(self):
        """Returns a context that waits for nobody."""
        return contextlib.nullcontext()

    def share(self, folder):
        """Has nobody to tell of a folder."""

    def prepare(self, model, sync_bn):
        """Returns the model."""
        return model

    def average(self, model):
        """Has one replica's running statistics only."""

    def predict(self, predictor, pipeline, predict_all):
        """Returns the logits of all of a pipeline's images, in order."""
        return predict_all(predictor, pipeline)

    def stack(self, variable):
        """Returns a variable's value as the only row."""
        return keras.ops.convert_to_numpy(variable)[None]

    def unstack(self, variable, rows):
        """Gives a variable the first row."""
        variable.assign(rows[0])


@contextlib.contextmanager
def join(options):
    """Gives the only process.

    Raises:
        UsageError: the options or the environment want what only TensorFlow has.
    """
    for flag, used in (
        ("--precision float64", options.precision == "float64"),
        ("--compile", options.compile),
        ("training in several processes", "TF_CONFIG" in os.environ),
        (f"--device {options.device}", "," in options.device),
        ("--sync-bn", options.sync_bn),
        ("--fast", options.fast),
    ):
        if used:
            raise UsageError(
                f"{flag} needs TensorFlow, and Keras runs on {BACKEND} here; "
                "KERAS_BACKEND=tensorflow would do"
            )
    yield Group()


class Trainer(trainer.Trainer):
    """A model, its optimizer and the data in NumPy's arrays."""

    def __init__(self, model, optimizer, dataset, options, device, group):
        """Compiles the model, in the sense that Keras gives the word."""
        self.model = model
        self.optimizer = optimizer
        self.options = options
        self.device = device
        self.group = group
        statistics = {"mean": dataset.mean, "std": dataset.std}
        train_part = (dataset.train_images, dataset.train_labels)
        self.train_set = data.Pipeline(
            *train_part, augment=options.augment, seed=options.seed, **statistics
        )
        test_part = (dataset.test_images, dataset.test_labels)
        self.parts = {
            "train": self.train_set,
            "test": data.Pipeline(*test_part, **statistics),
        }
        self.predictor = make_predictor(model)
        optimizer.build(model.trainable_variables)
        # `loss=` does not provide for heads that are there in training only.
        object.__setattr__(model, "compute_loss", _compute_loss)
        model.compile(optimizer)

    def steps(self, order, epoch):
        """Makes the steps of an epoch; yields the loss of each."""
        for images, labels in self.train_set.batches(order, epoch):
            losses = self.model.train_on_batch(images, labels)
            yield np.asarray(np.ravel(losses)[0], np.float64)

    def to_host(self, losses):
        """Returns the losses (n,) of n steps."""
        return np.stack(losses)

    def first_not_finite(self, indices, epoch):
        """Returns None: layers cannot be looked into while they are compiled."""

    def memory(self):
        """Returns 0: the backends do not say."""
        return 0


def _compute_loss(x=None, y=None, y_pred=None, sample_weight=None, training=True):
    return training_loss(widened(y_pred), y)
