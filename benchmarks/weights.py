"""Speed of copying weights: `python benchmarks/weights.py [--rounds N]`.

Beside each copy, in the same process, NumPy makes a transposed copy of the same arrays.
Prints GB/s and the ratio of the two, each as the median of all rounds (and the range).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import create_model as create_keras_model
from keras_impl import weights as keras_weights
from parity import copy_weights
from torch_impl import create_model as create_torch_model

VGG16 = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M"]
VGG16 += [512, 512, 512, "M", 512, 512, 512, "M"]


def lenet5_twins() -> tuple[keras.Model, torch.nn.Module]:
    """Returns both sides' LeNet-5: 178 KB, where the cost is that of calls."""
    return create_keras_model("lenet5"), create_torch_model("lenet5")


def large_twins() -> tuple[keras.Model, torch.nn.Module]:
    """Returns layers of VGG-16's shapes: 553 MB, where the cost is that of bytes."""
    ours, theirs, channels = [keras.Input((224, 224, 3))], [], 3
    for width in VGG16:
        if width == "M":
            ours.append(keras.layers.MaxPooling2D(2))
            theirs.append(torch.nn.MaxPool2d(2))
        else:
            ours.append(keras.layers.Conv2D(width, 3, padding="same"))
            theirs.append(torch.nn.Conv2d(channels, width, 3, padding=1))
            channels = width
    ours.append(keras.layers.Flatten())
    theirs.append(torch.nn.Flatten())
    for inputs, outputs in ((25088, 4096), (4096, 4096), (4096, 1000)):
        ours.append(keras.layers.Dense(outputs))
        theirs.append(torch.nn.Linear(inputs, outputs))
    return keras.Sequential(ours), torch.nn.Sequential(*theirs)


def seconds(work: Callable[[], object]) -> float:
    """Returns how long a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(keras_model, torch_model, rounds: int) -> dict[str, tuple[list, list]]:
    """Returns (seconds of the copy, seconds of NumPy) per direction and round."""
    weights = keras_weights.named_weights(keras_model)
    kernels = [(weight.layout, weight.variable.numpy()) for weight in weights]
    tensors = {name: t.numpy() for name, t in torch_model.state_dict().items()}

    def plain_to_torch() -> list[np.ndarray]:
        return [
            np.array(layout.to_torch(array), order="C") for layout, array in kernels
        ]

    def plain_to_keras() -> list[np.ndarray]:
        return [
            np.array(layout.to_keras(tensors[layout.name]), order="C")
            for layout, _ in kernels
        ]

    directions = {
        "keras -> torch": (
            lambda: copy_weights(keras_model, torch_model),
            plain_to_torch,
        ),
        "torch -> keras": (
            lambda: copy_weights(torch_model, keras_model),
            plain_to_keras,
        ),
    }
    times = {name: ([], []) for name in directions}
    for _ in range(rounds + 1):  # the first warms up
        for name, works in directions.items():
            for results, work in zip(times[name], works, strict=True):
                results.append(seconds(work))
    return {name: (ours[1:], plain[1:]) for name, (ours, plain) in times.items()}


def main() -> None:
    """Prints a line per network and direction."""
    flags = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    flags.add_argument("--rounds", type=int, default=7, metavar="N")
    rounds = flags.parse_args().rounds
    print(
        f"tensorflow {tf.__version__}, keras {keras.__version__}, "
        f"torch {torch.__version__}, numpy {np.__version__}; {rounds} rounds"
    )
    for name, make in (("lenet5", lenet5_twins), ("vgg16's shapes", large_twins)):
        twins = make()
        size = sum(t.numel() * t.element_size() for t in twins[1].parameters())
        for direction, (ours, plain) in measure(*twins, rounds).items():
            ratios = sorted(b / a for a, b in zip(ours, plain, strict=True))
            print(
                f"{name:14} {direction}  {size / 1e6:7.2f} MB  "
                f"{size / statistics.median(ours) / 1e9:6.3f} GB/s  "
                f"numpy {size / statistics.median(plain) / 1e9:6.3f} GB/s  "
                f"ratio {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
