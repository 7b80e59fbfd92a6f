"""Names the class of image files: `python -m keras_impl.predict RUN IMAGE ...`."""

from parity.spec import cli

ARGUMENTS = cli.parse_predict("keras_impl.predict") if __name__ == "__main__" else None

import keras
import numpy as np
import tensorflow as tf

from keras_impl.devices import select_device
from keras_impl.evaluate import load_model
from keras_impl.steps import make_predictor
from parity.spec import datasets, runs


def predict(run, images, device="auto"):
    """Returns the probabilities (N, num_classes) of image files, and the classes.

    Args:
        run: path of a run folder or of a weights file of one.
        images: paths of image files.
        device: "auto", "cpu" or "gpu".
    """
    trained = runs.find_trained(run)
    shape = trained.shape
    size = (shape.height, shape.width, shape.in_channels)
    pixels = np.concatenate([datasets.read_image(path, *size) for path in images])
    pixels = datasets.normalise(pixels, trained.mean, trained.std)
    with tf.device(select_device(device)):
        logits = make_predictor(load_model(trained))(tf.constant(pixels))
        if logits.shape[1] == 1:  # the softmax of (0, logit) is the sigmoid
            logits = np.concatenate([np.zeros_like(logits), logits], 1)
        return keras.ops.softmax(logits).numpy(), trained.classes


def main() -> int:
    """Predicts with the arguments of the command line."""
    probabilities, classes = predict(**vars(ARGUMENTS))
    cli.print_predictions(ARGUMENTS.images, probabilities.tolist(), classes)
    return 0


if __name__ == "__main__":
    cli.run("keras_impl.predict", main)
