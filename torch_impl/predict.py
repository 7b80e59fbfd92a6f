"""Names the class of image files: `python -m torch_impl.predict RUN IMAGE ...`."""

from parity.spec import cli

ARGUMENTS = cli.parse_predict("torch_impl.predict") if __name__ == "__main__" else None

import numpy as np
import torch

from parity.spec import datasets, runs
from torch_impl.devices import select_device
from torch_impl.evaluate import load_model
from torch_impl.steps import make_predictor


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
    device = select_device(device)
    pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    logits = make_predictor(load_model(trained).to(device))(pixels)
    logits = torch.from_numpy(logits)
    if logits.shape[1] == 1:  # the softmax of (0, logit) is the sigmoid
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits.softmax(1).numpy(), trained.classes


def main() -> int:
    """Predicts with the arguments of the command line."""
    probabilities, classes = predict(**vars(ARGUMENTS))
    cli.print_predictions(ARGUMENTS.images, probabilities.tolist(), classes)
    return 0


if __name__ == "__main__":
    cli.run("torch_impl.predict", main)
