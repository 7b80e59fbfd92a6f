"""Measures a trained network: `python -m keras_impl.evaluate RUN`."""

from parity.spec import cli

ARGUMENTS = (
    cli.parse_evaluate("keras_impl.evaluate") if __name__ == "__main__" else None
)

import tensorflow as tf

import keras_impl
from keras_impl import data, weights
from keras_impl.devices import select_device
from keras_impl.train import make_predictor, measure
from parity.spec import runs


def load_model(trained: runs.Trained):
    """Returns the model of trained weights, from either side."""
    model = keras_impl.create_model(trained.model, **trained.shape.arguments())
    weights.load_state_dict(model, trained.tensors, str(trained.path))
    return model


def evaluate(run, dataset=None, data_dir="data", split="test", device="auto"):
    """Returns the loss and the accuracy of a run on one part of a data set.

    Args:
        run: path of a run folder or of a weights file of one.
        dataset: a name in the catalogue; None takes the run's.
        data_dir: where data sets lie.
        split: "test" or "train".
        device: "auto", "cpu" or "gpu".
    """
    trained = runs.find_trained(run)
    device = select_device(device)
    name = dataset or trained.dataset
    images = data.load(name, data_dir, trained.shape.height, trained.shape.width)
    labels = images.test_labels if split == "test" else images.train_labels
    images = images.test_images if split == "test" else images.train_images
    with tf.device(device):
        model = load_model(trained)
        images, labels = data.to_tensors(images, labels, trained.mean, trained.std)
        return measure(make_predictor(model)(images), labels)


def main() -> int:
    """Evaluates with the arguments of the command line."""
    loss, accuracy = evaluate(**vars(ARGUMENTS))
    print(
        f"{ARGUMENTS.split} loss {loss:.4f}  {ARGUMENTS.split} accuracy {accuracy:.4f}"
    )
    return 0


if __name__ == "__main__":
    cli.run("keras_impl.evaluate", main)
