"""Speed of the training loops: `python benchmarks/train.py [--rounds N]`.

Beside each side's loop, in the same process and the same round: the same step on one
batch that stays where it is (the limit), and the lecture's own loop: a DataLoader that
turns every image into a tensor and normalises it, one by one. Prints images per second
and ratios, each as the median of all rounds (and the range).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from torchvision import transforms

from parity.frameworks import keras, tf, torch
from keras_impl import create_model as create_keras_model
from keras_impl import data as keras_data
from keras_impl import optim as keras_optim
from keras_impl import train as keras_train
from parity.spec import datasets, recipes
from torch_impl import create_model as create_torch_model
from torch_impl import data as torch_data
from torch_impl import optim as torch_optim
from torch_impl import train as torch_train

REPEATS = 8  # the digits this many times over: 11,496 images per epoch


class Images(torch.utils.data.Dataset):
    """Images and labels one by one, transformed, as in the lecture."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform):
        """Keeps uint8 images (N, H, W, C) and labels (N,)."""
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Returns one image as a normalised tensor and its label."""
        picture = transforms.functional.to_pil_image(self.images[index])
        return self.transform(picture), int(self.labels[index])


def make_loops(name: str) -> tuple[dict[str, Callable[[], None]], int]:
    """Returns one epoch of each loop, and the number of images in an epoch."""
    recipe = recipes.find(name)
    size = recipe.image_size
    digits = torch_data.load("digits", "unused", size, size)
    images = np.tile(digits.train_images, (REPEATS, 1, 1, 1))
    labels = np.tile(digits.train_labels, REPEATS)
    order = list(
        datasets.epoch_batches(
            len(images), recipe.batch_size, drop_last=True, seed=0, epoch=0
        )
    )
    loops = {}
    for side, data, step in (
        ("keras", keras_data, keras_step(name, recipe)),
        ("torch", torch_data, torch_step(name, recipe)),
    ):
        tensors = data.to_tensors(images, labels, digits.mean, digits.std)
        resident = next(data.batches(*tensors, order))

        def train(data=data, step=step, tensors=tensors) -> None:
            float(sum(step(*batch) for batch in data.batches(*tensors, order)))

        def limit(step=step, resident=resident) -> None:
            float(sum(step(*resident) for _ in order))

        loops |= {f"{side} loop": train, f"{side} limit": limit}
    loops["lecture"] = lecture_loop(name, recipe, images, labels, digits)
    return loops, len(order) * recipe.batch_size


def keras_step(name: str, recipe: recipes.Recipe) -> Callable:
    """Returns the Keras side's training step."""
    optimizer = keras_optim.create_optimizer(recipe.optimizer, recipe.learning_rate)
    return keras_train.make_train_step(create_keras_model(name), optimizer)


def torch_step(name: str, recipe: recipes.Recipe) -> Callable:
    """Returns the PyTorch side's training step."""
    model = create_torch_model(name)
    optimizer = torch_optim.create_optimizer(
        recipe.optimizer, recipe.learning_rate, model.parameters()
    )
    return torch_train.make_train_step(model, optimizer)


def lecture_loop(name, recipe, images, labels, digits) -> Callable[[], None]:
    """Returns one epoch of the lecture's loop."""
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(digits.mean, digits.std)]
    )
    loader = torch.utils.data.DataLoader(
        Images(images, labels, transform),
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=True,
    )
    model = create_torch_model(name)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)

    def epoch() -> None:
        running_loss = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()

    return epoch


def main() -> None:
    """Prints a line per loop and the ratios."""
    flags = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    flags.add_argument("--model", default="lenet5", choices=recipes.names())
    flags.add_argument("--rounds", type=int, default=7, metavar="N")
    arguments = flags.parse_args()
    loops, count = make_loops(arguments.model)
    print(
        f"{arguments.model}: tensorflow {tf.__version__}, keras {keras.__version__}, "
        f"torch {torch.__version__}; {arguments.rounds} rounds of {count} images"
    )
    speeds = {name: [] for name in loops}
    for number in range(arguments.rounds + 1):
        for name, epoch in loops.items():
            start = time.perf_counter()
            epoch()
            if number:  # the first round warms up
                speeds[name].append(count / (time.perf_counter() - start))
    for name, values in speeds.items():
        print(f"{name:12} {statistics.median(values):8.0f} images/s")
    for side in ("keras", "torch"):
        for other in (f"{side} limit", "lecture"):
            pairs = zip(speeds[f"{side} loop"], speeds[other], strict=True)
            ratios = sorted(loop / beside for loop, beside in pairs)
            print(
                f"{side} loop / {other:11} {statistics.median(ratios):6.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
