"""Copies weights between the two sides, and between their file formats."""

import zipfile
from pathlib import Path

from parity.frameworks import keras, torch
from keras_impl import create_model as create_keras_model
from keras_impl import weights as keras_weights
from parity.spec import files, layouts, recipes, runs
from parity.spec.errors import UsageError, WeightMismatch
from torch_impl import create_model as create_torch_model
from torch_impl import weights as torch_weights

__all__ = ["SUFFIXES", "WeightMismatch", "convert", "copy_weights"]

SUFFIXES = (".safetensors", ".weights.h5", ".keras", ".pt", ".pth")

Model = keras.Model | torch.nn.Module


def copy_weights(source: Model, target: Model) -> list[layouts.Layout]:
    """Copies every weight of one model into its twin of the other framework.

    Partners have the same attribute path. A dense layer whose input is a flattened
    map is reordered from (H, W, C) to (C, H, W) or back.

    Args:
        source: a built Keras model or a PyTorch module.
        target: the other.

    Returns:
        Each tensor's name, shapes and layout rule, in the Keras model's order.

    Raises:
        WeightMismatch: some tensor has no partner or another shape; lists them all,
            and the target is as it was.
        TypeError: the two are not one Keras model and one PyTorch module.
    """
    if isinstance(source, keras.Model) and isinstance(target, torch.nn.Module):
        keras_model, load = source, torch_weights.load_state_dict
        tensors = keras_weights.state_dict(source)
    elif isinstance(source, torch.nn.Module) and isinstance(target, keras.Model):
        keras_model, load = target, keras_weights.load_state_dict
        tensors = torch_weights.state_dict(source)
    else:
        raise TypeError(
            "one model must be a keras.Model and the other a torch.nn.Module, not "
            f"{type(source).__name__} and {type(target).__name__}"
        )
    load(target, tensors, type(source).__name__)
    return [weight.layout for weight in keras_weights.named_weights(keras_model)]


def convert(
    name: str, source: Path, target: Path, shape: recipes.Shape
) -> list[layouts.Layout]:
    """Writes a model's weights in another format; the suffix names the format.

    Args:
        name: the model.
        source: `.safetensors`, `.weights.h5`, `.keras`, or a `.pt`/`.pth` state_dict.
        target: likewise.
        shape: the model's input and output.

    Returns:
        Each tensor's name, shapes and layout rule.

    Raises:
        UsageError: a suffix that is none of these, a file that is missing, damaged or
            of another model; an old target is as it was.
    """
    source, target = Path(source), Path(target)
    for path in (source, target):
        if not path.name.endswith(SUFFIXES):
            raise UsageError(
                f"{path} has no known suffix; choose from {', '.join(SUFFIXES)}"
            )
    if not source.is_file():
        raise UsageError(f"no such weights file: {source}")
    arguments = {
        "num_classes": shape.num_classes,
        "image_size": (shape.height, shape.width),
        "in_channels": shape.in_channels,
    }
    keras_model = create_keras_model(name, **arguments)
    torch_model = create_torch_model(name, **arguments)
    metadata = runs.describe(name, shape, None)
    if source.name.endswith((".weights.h5", ".keras")):
        _load_keras(keras_model, source)
        rows = copy_weights(keras_model, torch_model)
    else:
        if source.name.endswith(".safetensors"):
            tensors, metadata = files.load_weights(source)
            torch_weights.load_state_dict(torch_model, tensors, str(source))
        else:
            _load_torch(torch_model, source)
        rows = copy_weights(torch_model, keras_model)
    if target.name.endswith(".safetensors"):
        tensors = torch_weights.state_dict(torch_model)
        files.save_weights(target, tensors, metadata)
    elif target.name.endswith(".weights.h5"):
        files.write_atomically(target, keras_model.save_weights)
    elif target.name.endswith(".keras"):
        files.write_atomically(target, keras_model.save)
    else:
        state = torch_model.state_dict()
        files.write_atomically(target, lambda path: torch.save(state, path))
    return rows


def _load_keras(model: keras.Model, path: Path) -> None:
    try:
        if path.name.endswith(".weights.h5"):
            model.load_weights(path)
        else:
            tensors = keras_weights.state_dict(keras.models.load_model(path))
            keras_weights.load_state_dict(model, tensors, str(path))
    except WeightMismatch:
        raise
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{path} does not fit {model.name}: {reason}") from None


def _load_torch(model: torch.nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{path} is not a PyTorch state_dict: {reason}") from None
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise UsageError(f"{path} is not a PyTorch state_dict: not a dict of tensors")
    counter = torch_weights.COUNTER
    tensors = {k: t.numpy() for k, t in state.items() if not k.endswith(counter)}
    torch_weights.load_state_dict(model, tensors, str(path))
