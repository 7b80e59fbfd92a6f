"""Trains every network on the bundled digits, on both sides: accuracy and time.

    python benchmarks/digits.py [MODEL ...]

Small images and few epochs, so that two cores do. Both sides start from the same
weights and see the same batches; each draws its own dropout. Prints one line of a table
per network: test accuracies, and the seconds of the training loop without evaluation.
No number here is tuned: it shows that they train.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from parity.frameworks import keras, tf, torch
from keras_impl.train import train as train_keras
from parity.spec import recipes, runs
from torch_impl.train import train as train_torch

# Image size, epochs, learning rate; batches of 64.
LECTURE = (28, 10, 1e-3)
SETTINGS = {
    "alexnet": (64, 3, 1e-4),
    "alexnet_owt": (64, 3, 1e-4),
    "block_conv": (28, 40, 3e-3),
    "block_conv_pool": (28, 40, 3e-3),
    "block_dense": (8, 40, 1e-2),
    "cnn_dropout": (28, 20, 1e-3),
    "googlenet": (32, 5, 3e-4),
    "googlenet_bn": (32, 3, 1e-3),
    "lenet5_1998": (32, 10, 1e-3),
    **{name: (32, 2, 1e-3) for name in recipes.names("resnet*")},
    **{name: (32, 1, 1e-4) for name in recipes.names("vgg*")},
    **{name: (32, 2, 1e-4) for name in ("vgg11", *recipes.names("vgg*_bn"))},
    "vgg19": (32, 3, 1e-4),
}


def measure(name: str) -> str:
    """Returns a network's line of the table."""
    image_size, epochs, learning_rate = SETTINGS.get(name, LECTURE)
    options = runs.options(
        name,
        dataset="digits",
        image_size=image_size,
        epochs=epochs,
        batch_size=64,
        learning_rate=learning_rate,
        scheduler="constant",
        # The mean of a block's maps tells little enough apart as it is.
        normalise=True if name.startswith("block_conv") else None,
        augment=(),
        quiet=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        theirs = train_torch(replace(options, output=Path(folder) / "torch"))
        weights = theirs.folder / "initial.safetensors"
        ours = train_keras(
            replace(options, output=Path(folder) / "keras", weights=weights)
        )
    cells = [f"`{name}`", image_size, epochs, learning_rate]
    for run in (ours, theirs):
        cells.append(f"{run.epochs[-1]['test_accuracy']:.3f}")
    for run in (ours, theirs):
        cells.append(f"{sum(epoch['seconds'] for epoch in run.epochs):.0f}")
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measures the networks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    names = parser.parse_args().models or recipes.names()
    print(f"keras {keras.__version__}, tensorflow {tf.__version__}, ", end="")
    print(f"torch {torch.__version__}")
    print("| model | pixels | epochs | rate | Keras | PyTorch | Keras s | PyTorch s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        print(measure(name), flush=True)


if __name__ == "__main__":
    main()
