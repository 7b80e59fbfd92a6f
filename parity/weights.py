"""Copies weights between the two sides, and between their file formats."""

from pathlib import Path

import h5py
import numpy as np

from parity.frameworks import keras, torch
from keras_impl import create_model as create_keras_model
from keras_impl import weights as keras_weights
from parity.spec import files, layouts, recipes, runs
from parity.spec.errors import UsageError, WeightMismatch
from torch_impl import create_model as create_torch_model
from torch_impl import weights as torch_weights

__all__ = ["SUFFIXES", "WeightMismatch", "convert", "copy_weights", "read_weights"]

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
        weights = keras_weights.named_weights(source)
        rows = [weight.layout for weight in weights]
        views = {
            row.name: row.permuted(w.read())
            for row, w in zip(rows, weights, strict=True)
        }
        shapes = {row.name: row.torch_shape for row in rows}
        torch_weights.load_state_dict(target, views, type(source).__name__, shapes)
        return rows
    if isinstance(source, torch.nn.Module) and isinstance(target, keras.Model):
        tensors = torch_weights.state_dict(source)
        return keras_weights.load_state_dict(target, tensors, type(source).__name__)
    raise TypeError(
        "one model must be a keras.Model and the other a torch.nn.Module, not "
        f"{type(source).__name__} and {type(target).__name__}"
    )


def read_weights(
    name: str, path: Path, shape: recipes.Shape
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns a model's weights from a file of any format, in the common form.

    Args:
        name: the model.
        path: `.safetensors`, `.weights.h5`, `.keras`, or a `.pt`/`.pth` state_dict.
        shape: the model's input and output.

    Returns:
        The tensors, and the metadata of a safetensors file.

    Raises:
        UsageError: another suffix, or a file that is missing or damaged.
        WeightMismatch: a `.weights.h5` or `.keras` file of another network.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise UsageError(f"no such weights file: {path}")
    if path.name.endswith(".safetensors"):
        return files.load_weights(path)
    if path.name.endswith((".pt", ".pth")):
        return _read_torch(path), {}
    return _read_keras(name, path, shape), {}


def convert(
    name: str, source: Path, target: Path, shape: recipes.Shape
) -> list[layouts.Layout]:
    """Writes a model's weights in another format; the suffix names the format.

    Args:
        name: the model.
        source: as in `read_weights`.
        target: likewise.
        shape: the model's input and output.

    Returns:
        Each tensor's name, shapes and layout rule.

    Raises:
        UsageError: as in `read_weights`; an old target is as it was.
        WeightMismatch: the source is of another network.
    """
    target = Path(target)
    _check_suffix(target)
    tensors, metadata = read_weights(name, source, shape)
    keras_model = create_keras_model(name, **shape.arguments())
    rows = keras_weights.load_state_dict(keras_model, tensors, str(source))
    if target.name.endswith(".safetensors"):
        metadata = runs.describe(name, shape, None) | metadata
        files.save_weights(target, keras_weights.state_dict(keras_model), metadata)
    elif target.name.endswith(".weights.h5"):
        files.write_atomically(target, keras_model.save_weights)
    elif target.name.endswith(".keras"):
        files.write_atomically(target, keras_model.save)
    else:
        torch_model = create_torch_model(name, **shape.arguments())
        copy_weights(keras_model, torch_model)
        state = torch_model.state_dict()
        files.write_atomically(target, lambda path: torch.save(state, path))
    return rows


def _check_suffix(path: Path) -> None:
    if not path.name.endswith(SUFFIXES):
        raise UsageError(
            f"{path} has no known suffix; choose from {', '.join(SUFFIXES)}"
        )


def _read_keras(name: str, path: Path, shape: recipes.Shape) -> dict[str, np.ndarray]:
    try:
        if path.name.endswith(".keras"):
            model = keras.models.load_model(path, compile=False)
        else:
            model = create_keras_model(name, **shape.arguments())
            model.load_weights(path)
            _check_count(path, len(model.variables))
    except Exception as error:
        # Keras raises whatever its readers do: OSError, KeyError, ValueError, ...
        raise WeightMismatch(f"{path} does not fit {name}: {_line(error)}") from None
    return keras_weights.state_dict(model)


def _check_count(path: Path, wanted: int) -> None:
    """Raises for tensors that Keras leaves unread in a `.weights.h5` file."""
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
    if len(found) != wanted:
        raise WeightMismatch(f"it holds {len(found)} tensors, not {wanted}: {found}")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Likewise: UnpicklingError, RuntimeError, EOFError, ...
        raise UsageError(f"{path} is no state_dict: {_line(error)}") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in state.items()
    ):
        raise UsageError(f"{path} is no state_dict: it is not a dict of tensors")
    counter = torch_weights.COUNTER
    return {
        name: tensor.detach().float().numpy()
        for name, tensor in state.items()
        if not name.endswith(counter)
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
