"""A PyTorch model's weights in the common form: PyTorch's names and layout."""

import warnings

import numpy as np
import torch
from torch import nn

from parity.spec import layouts
from parity.spec.errors import WeightMismatch

# BatchNorm2d counts its batches and never uses the count unless momentum is None;
# Keras keeps no such count, so it has no place in the common form.
COUNTER = "num_batches_tracked"


def named_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns every weight of a model, parameters and state alike."""
    tensors = model.state_dict(keep_vars=False)
    return {k: t for k, t in tensors.items() if k.rpartition(".")[2] != COUNTER}


def state_dict(model: nn.Module) -> dict[str, np.ndarray]:
    """Returns every weight in the common form, without copying where that can be."""
    return {k: t.detach().cpu().numpy() for k, t in named_weights(model).items()}


def load_state_dict(
    model: nn.Module,
    tensors: dict[str, np.ndarray],
    source: str,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> None:
    """Copies weights in the common form into a model, all of them or none.

    Args:
        model: a module.
        tensors: name to array.
        source: what to call the tensors' origin in an error.
        shapes: the arrays' shapes, where some of their last axes are still apart.

    Raises:
        WeightMismatch: lists what is missing, left over or misshapen; the model is
            as it was.
    """
    weights = named_weights(model)
    wanted = {name: tuple(weight.shape) for name, weight in weights.items()}
    shapes = shapes or {name: tuple(array.shape) for name, array in tensors.items()}
    layouts.check(wanted, shapes, source)
    with torch.no_grad(), warnings.catch_warnings():
        # The arrays may be read-only: they are only read.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        try:
            sources = {name: torch.from_numpy(tensors[name]) for name in weights}
        except TypeError as error:
            raise WeightMismatch(f"{source} does not fit: {error}") from None
        for name, weight in weights.items():
            weight.view(sources[name].shape).copy_(sources[name])
