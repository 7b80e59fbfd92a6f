"""Measures a trained network: `python -m torch_impl.evaluate RUN`."""

from parity.spec import cli

ARGUMENTS = (
    cli.parse_evaluate("torch_impl.evaluate") if __name__ == "__main__" else None
)

import torch_impl
from parity.spec import runs
from parity.spec.metrics import top5_accuracy
from torch_impl import data, weights
from torch_impl.devices import select_device
from torch_impl.steps import make_predictor, measure, predict_all


def load_model(trained: runs.Trained):
    """Returns the model of trained weights, from either side."""
    model = torch_impl.create_model(trained.model, **trained.shape.arguments())
    weights.load_state_dict(model, trained.tensors, str(trained.path))
    return model


def evaluate(
    run,
    dataset=None,
    data_dir="data",
    split="test",
    device="auto",
    metrics=("top1",),
    label_names=None,
    strict_data=False,
    workers=0,
):
    """Returns the loss and the accuracies of a run on one part of a data set.

    Args:
        run: path of a run folder or of a weights file of one.
        dataset: a name in the catalogue or "folder"; None takes the run's.
        data_dir: where data sets lie.
        split: "test" or "train".
        device: "auto", "cpu" or "gpu".
        metrics: "top1", or that and "top5".
        label_names: as in training.
        strict_data: likewise.
        workers: likewise.

    Returns:
        A dict of "loss", "accuracy" and, if asked for, "top5".
    """
    trained = runs.find_trained(run)
    device = select_device(device)
    name = dataset or trained.dataset
    runs.check_folder_flags(name, label_names, strict_data)
    images = data.load(
        name,
        data_dir,
        trained.shape.height,
        trained.shape.width,
        only_labels=trained.only_labels,
        label_names=label_names,
        strict=strict_data,
    )
    trained.check(images)
    labels = images.test_labels if split == "test" else images.train_labels
    images = images.test_images if split == "test" else images.train_images
    model = load_model(trained).to(device)
    statistics = (trained.mean, trained.std)
    pipeline = data.Pipeline(
        images, labels, *statistics, workers=workers, device=device
    )
    logits = predict_all(make_predictor(model), pipeline)
    loss, accuracy = measure(logits, labels)
    result = {"loss": loss, "accuracy": accuracy}
    if "top5" in metrics:
        result["top5"] = top5_accuracy(logits, labels)
    return result


def main() -> int:
    """Evaluates with the arguments of the command line."""
    result = evaluate(**vars(ARGUMENTS))
    split = ARGUMENTS.split
    print("  ".join(f"{split} {name} {value:.4f}" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    cli.run("torch_impl.evaluate", main)
