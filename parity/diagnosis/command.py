"""The command `python -m parity diagnose`: any two models, and why they part.

Importing this loads no framework, so that a wrong argument is answered at once.
"""

import argparse
import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from parity.ops_command import check_writable
from parity.spec import cli
from parity.spec.errors import UsageError
from parity.spec.files import load_weights, write_atomically

if TYPE_CHECKING:
    from parity.frameworks import keras, torch

WHERE = "FILE.py:NAME or package.module:NAME"


def add_arguments(commands) -> None:
    """Adds the command to the others."""
    command = commands.add_parser(
        "diagnose",
        help="any two models: which layers part, why, and what to change",
        description=f"Diagnoses two models. Each is {WHERE}; "
        "NAME is a model, or a class or function that returns one when it is called "
        "without arguments. Exit code 0: equal, or different by rounding alone; 1: "
        "different; 2: wrong usage.",
    )
    command.add_argument("keras", metavar="KERAS", help=f"the Keras model, {WHERE}")
    command.add_argument("torch", metavar="TORCH", help="the PyTorch model, likewise")
    command.add_argument(
        "--input",
        type=_shape,
        metavar="H,W,C",
        help="shape of one image (default: what the Keras model was built for)",
    )
    command.add_argument(
        "--batch", type=cli.positive, metavar="N", help="images to draw (default: 3)"
    )
    command.add_argument(
        "--images", type=Path, metavar="FILE.npy", help="NHWC images, in place of drawn"
    )
    command.add_argument(
        "--torch-images",
        type=Path,
        metavar="FILE.npy",
        help="the same images, NCHW, as PyTorch's own pipeline makes them",
    )
    command.add_argument(
        "--labels", type=Path, metavar="FILE.npy", help="integers (N,) (default: drawn)"
    )
    command.add_argument(
        "--level",
        choices=("forward", "backward", "training"),
        default="forward",
        help="outputs; and the loss and gradients; and training (default: forward)",
    )
    command.add_argument(
        "--weights",
        choices=("copy", "as_is"),
        help="copy: PyTorch's side is given Keras's weights, in a copy; as_is: the "
        "weights are compared too (default: copy; as_is with --torch-weights)",
    )
    command.add_argument(
        "--keras-weights",
        type=Path,
        metavar="FILE",
        help=".weights.h5 or .keras, loaded into the Keras model",
    )
    command.add_argument(
        "--torch-weights",
        type=Path,
        metavar="FILE",
        help="a state_dict, .pt, .pth or .safetensors, loaded into the PyTorch model",
    )
    command.add_argument(
        "--keep-mode",
        action="store_true",
        help="leave the PyTorch model in the mode it comes in (default: call eval() on "
        "it first)",
    )
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="the whole diagnosis"
    )
    command.add_argument("--html", type=Path, metavar="FILE", help="a web page of it")
    command.add_argument(
        "--repro",
        type=Path,
        metavar="FOLDER",
        help="a script for each place that differs: one layer per side, and the "
        "assertion that fails",
    )


def _shape(text: str) -> tuple[int, ...]:
    sizes = re.split("[,x]", text.strip("()[] ").lower())
    try:
        return tuple(cli.positive(size.strip()) for size in sizes)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no shape of an image such as 224,224,3 (height, width, "
            "channels)"
        ) from None


def main(arguments: argparse.Namespace) -> int:
    """Prints the diagnosis and writes what was asked for; 1 when it is "different"."""
    for name in (arguments.keras, arguments.torch):
        _parts(name)
    for path in (arguments.json, arguments.html):
        if path:
            check_writable(path)
    if arguments.repro:
        check_writable(arguments.repro / "script.py")
    given = [arguments.images, arguments.torch_images, arguments.labels]
    images, torch_images, labels = map(_load, given)
    if images is None and torch_images is not None:
        raise UsageError("--torch-images needs --images, the same ones for Keras")
    if images is not None and (arguments.input or arguments.batch):
        raise UsageError("--images says the shape; leave out --input and --batch")

    from parity.diagnosis.diagnose import diagnose

    keras_model = load_model(arguments.keras, "Keras")
    torch_model = load_model(arguments.torch, "PyTorch")
    images = _images(keras_model, arguments.keras, images, arguments)
    _load_keras_weights(keras_model, arguments.keras_weights)
    _load_torch_weights(torch_model, arguments.torch_weights)
    if not arguments.keep_mode:
        torch_model.eval()
    weights = "as_is" if arguments.torch_weights else "copy"
    diagnosis = diagnose(
        keras_model,
        torch_model,
        images if torch_images is None else (images, torch_images),
        labels=labels,
        level=arguments.level,
        weights=arguments.weights or weights,
    )
    _report(diagnosis, arguments)
    return int(diagnosis.verdict == "different")


def _report(diagnosis, arguments: argparse.Namespace) -> None:
    from parity.diagnosis import page

    print(page.text(diagnosis))
    if arguments.json:
        diagnosis.to_json(arguments.json)
    if arguments.html:
        html = page.html(diagnosis)
        write_atomically(arguments.html, lambda path: path.write_text(html, "utf-8"))
    if arguments.repro:
        from parity.diagnosis.repro.scripts import write_repros

        paths = write_repros(diagnosis, arguments.repro)
        print()
        if not paths:
            print(f"no script in {arguments.repro}: no layer differs by itself")
        for path in paths:
            print(f"python {path}")


def _load(path: Path | None) -> np.ndarray | None:
    """Returns an array of numbers from a file."""
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"no such file: {path}; numpy.save writes one")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise UsageError(
            f"{path} is no .npy file of numbers; numpy.save writes one"
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise UsageError(f"{path} holds no numbers; numpy.save one array of them")
    return array


# --- the models


def _parts(name: str) -> tuple[str, str]:
    """Returns the file or module of a model, and its name there."""
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute or "/" in attribute:
        raise UsageError(f"{name!r} names no model; write {WHERE}")
    if place.endswith(".py") and not Path(place).is_file():
        raise UsageError(f"no such file: {place} (of {name!r})")
    return place, attribute


def load_model(name: str, framework: str) -> "keras.Model | torch.nn.Module":
    """Returns the model that a name stands for.

    Args:
        name: FILE.py:NAME or package.module:NAME.
        framework: "Keras" or "PyTorch".

    Raises:
        UsageError: it cannot be imported, called, or is no such model.
    """
    from parity.frameworks import keras, torch  # before what the user imports

    kind, other = keras.Model, torch.nn.Module
    if framework == "PyTorch":
        kind, other = other, kind
    place, attribute = _parts(name)
    found = _import(place)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{place} has no {attribute!r}{_near(found, part)}")
        found = getattr(found, part)
    if isinstance(found, kind):
        return found
    if not callable(found) or isinstance(found, other):
        raise _no_model(name, found, framework, other)
    try:
        model = found()
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{name} cannot be called without arguments: {_reason(error)}; name a "
            "function that returns the model"
        ) from None
    if not isinstance(model, kind):
        raise _no_model(f"{name}()", model, framework, other)
    return model


def _no_model(name: str, found: object, framework: str, other: type) -> UsageError:
    if isinstance(found, other):
        hint = "the Keras model comes first, then the PyTorch one"
    else:
        hint = "name a model, or a class or function that returns one"
    word = type(found).__name__
    return UsageError(f"{name} is no {framework} model but of type {word}; {hint}")


def _near(module: object, name: str) -> str:
    """Returns which names there are instead."""
    names = [x for x in vars(module) if not x.startswith("_")]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    own = [
        key
        for key, value in vars(module).items()
        if getattr(value, "__module__", None) == getattr(module, "__name__", "")
    ]
    return f"; it has {', '.join(own[:8])}" if own else ""


def _import(place: str) -> ModuleType:
    """Returns the module of a file or of a dotted name."""
    try:
        return (
            _import_file(Path(place))
            if place.endswith(".py")
            else importlib.import_module(place)
        )
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import {place}: {_reason(error, place)}") from None


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    # Two files of one name are two modules.
    digest = hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest()
    name = f"{path.stem}_{digest[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as `python FILE.py` would
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _reason(error: BaseException, place: str = "") -> str:
    """Returns in one line what an error says, and where it arose in a file."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = re.sub(r"^Exception encountered when calling [^\n]*\n", "", text)
    text = " ".join(text.split("Arguments received by")[0].split())[:300]
    word = type(error).__name__
    if isinstance(error, SyntaxError):
        text = error.msg
    if isinstance(error, SystemExit):
        word, text = "it ends the process", ""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if place.endswith(".py") and Path(frame.filename) == Path(place).resolve()
    ]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    found = f"{word}: {text}" if text else word
    return f"line {line}: {found}" if line and place.endswith(".py") else found


def _images(
    model: "keras.Model",
    name: str,
    images: np.ndarray | None,
    arguments: argparse.Namespace,
) -> np.ndarray:
    """Returns the images to compare on; builds the model if it is not built yet."""
    from keras_impl.tracing import input_shape
    from parity import probe

    wanted = arguments.input if images is None else images.shape[1:]
    if not _is_built(model):
        if wanted is None:
            raise UsageError(f"{name} is not built yet: give --input, as in 224,224,3")
        try:
            model(np.zeros((1, *wanted), np.float32))
        except Exception as error:
            raise UsageError(
                f"{name} cannot be called on images (1, {_words(wanted)}): "
                f"{_reason(error)}"
            ) from None
    shape = input_shape(model)
    sizes = shape[1:] if wanted is None else wanted
    fits = len(sizes) == len(shape) - 1 and all(
        own in (None, size) for own, size in zip(shape[1:], sizes, strict=True)
    )
    if not fits:
        raise UsageError(
            f"images of shape ({_words(wanted)}) do not fit {name}, which takes "
            f"({_words(shape[1:])}), height, width and channels"
        )
    if images is not None:
        return images
    return probe.images((arguments.batch or shape[0], *sizes))


def _is_built(model: "keras.Model") -> bool:
    """Returns whether a model knows its input's shape."""
    from keras_impl.tracing import input_shape

    try:
        input_shape(model)
    except UsageError:
        return bool(model.built and model.get_build_config())
    except AttributeError:  # a Sequential model that nothing has been put into
        return False
    return True


def _words(shape: tuple[int | None, ...]) -> str:
    return ", ".join(map(str, shape))


def _load_keras_weights(model: "keras.Model", path: Path | None) -> None:
    if path is None:
        return
    if not path.is_file():
        raise UsageError(f"no such weights file: {path}")
    if not path.name.endswith((".weights.h5", ".keras")):
        raise UsageError(f"{path} is neither a .weights.h5 nor a .keras file")
    try:
        model.load_weights(path)
    except Exception as error:
        raise UsageError(
            f"{path} does not fit the Keras model: {_reason(error)}"
        ) from None


def _load_torch_weights(model: "torch.nn.Module", path: Path | None) -> None:
    if path is None:
        return
    from parity.frameworks import torch

    if not path.is_file():
        raise UsageError(f"no such weights file: {path}")
    if path.suffix == ".safetensors":
        arrays, _ = load_weights(path)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    elif path.suffix in (".pt", ".pth"):
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UsageError(f"{path} is no state_dict: {_reason(error)}") from None
    else:
        raise UsageError(f"{path} is neither a .pt, a .pth nor a .safetensors file")
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    try:
        model.load_state_dict(tensors)
    except Exception as error:
        raise UsageError(
            f"{path} does not fit the PyTorch model: {_reason(error)}"
        ) from None
