"""What a row of the table of operations holds; imports no framework."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

CATEGORIES = (
    "same",
    "other name",
    "other default",
    "other layout",
    "other meaning",
    "missing on one side",
)
SECTIONS = (
    "weights",
    "convolution",
    "padding",
    "pooling",
    "normalization",
    "activations",
    "images",
    "losses",
    "initializers",
    "optimizers",
    "schedules",
    "preprocessing",
    "data",
    "metrics",
    "numerics",
    "backends",
)
BACKENDS = ("jax", "torch")
# The axes of a Keras tensor in PyTorch's order, by what the tensor is.
AXES = {"maps": (0, 3, 1, 2), "kernel": (3, 2, 0, 1), "matrix": (1, 0)}


@dataclass(frozen=True)
class Input:
    """A tensor that the code of both sides reads by its name.

    Attributes:
        shape: as the Keras side sees it.
        layout: "maps" is NHWC on the Keras side and NCHW on the other, "kernel" HWIO
            and OIHW, "matrix" (in, out) and (out, in), "array" the same on both.
        values: "normal", "uniform" (0 to 1), or "integers" (0 to `scale` - 1, int64).
        scale: factor of the values.
        shift: added to the values.
        given: the values themselves, nested lists, in place of drawn ones.
    """

    shape: tuple[int, ...]
    layout: str = "array"
    values: str = "normal"
    scale: float = 1.0
    shift: float = 0.0
    given: object = None

    def array(self, name: str) -> np.ndarray:
        """Returns the values as float64 or int64, the same ones at every call."""
        if self.given is not None:
            array = np.asarray(self.given)
            return array.astype(np.int64 if array.dtype.kind in "bi" else np.float64)
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if self.values == "integers":
            return random.integers(0, int(self.scale), self.shape)
        draw = random.random if self.values == "uniform" else random.standard_normal
        return draw(self.shape) * self.scale + self.shift


def maps(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Input:
    """Returns images or feature maps (N, H, W, C), (N, C, H, W) in PyTorch."""
    return Input(shape, "maps", scale=scale, shift=shift)


def kernel(*shape: int) -> Input:
    """Returns a convolution's kernel (h, w, I, O), (O, I, h, w) in PyTorch."""
    return Input(shape, "kernel", scale=1 / math.sqrt(math.prod(shape[:3])))


def matrix(*shape: int) -> Input:
    """Returns a dense layer's kernel (in, out), (out, in) in PyTorch."""
    return Input(shape, "matrix", scale=1 / math.sqrt(shape[0]))


def array(*shape: int, values: str = "normal", scale=1.0, shift=0.0) -> Input:
    """Returns numbers that stand alike on both sides."""
    return Input(shape, "array", values, scale, shift)


def integers(*shape: int, below: int) -> Input:
    """Returns integers from 0 to `below` - 1, such as labels."""
    return Input(shape, "array", "integers", scale=below)


def given(values: object, layout: str = "array") -> Input:
    """Returns the values that are given, as the Keras side sees them."""
    return Input(np.shape(values), layout, given=values)


@dataclass(frozen=True)
class Row:
    """One thing that is written in both frameworks, and the trap in it.

    The code is Python as people write it; the value of its last line is what is
    compared. It may use its inputs by name, `dtype` ("float64" or "float32"), and on
    the Keras side keras, layers, tf and np, on the other torch, nn, F, torchvision
    and np. Code of several lines may import what else it needs.

    Attributes:
        name: short and stable, "conv2d.same_stride".
        what: one line that says what it is about.
        section: one of SECTIONS.
        category: one of CATEGORIES.
        keras: the Keras code.
        torch: the PyTorch code that computes the same.
        naive_keras: Keras code that people write for the PyTorch code, and that
            computes something else; at most one of the naive ones is there.
        naive_torch: the same the other way round.
        symptom: what one sees of it.
        fix: what to write instead, in words.
        operations: names of functions in `*_impl.ops`, `optim` or `initializers`.
        inputs: by name.
        layout: of four-dimensional results: "maps" brings Keras's to NCHW.
        dtypes: the types that both sides compute in.
        trap_dtypes: those of them in which the naive port errs; empty if in all.
        limit: the relative L2 error that the fix may leave where that is more than
            rounding.
        limit_reason: why.
        shows: what the naive port does: "error" (other numbers), "shape" (another
            shape), the name of the exception that it raises, or "killed" where a
            signal ends its process.
        says: what the exception's message has to have in it, where its name alone
            could be that of another failure.
        differs_on: the other Keras backends on which the Keras code gives something
            else than on TensorFlow.
        backend: the Keras backend that the row is about; then the naive code is
            `naive_keras` and the fix `keras`, each run there and on TensorFlow.
        process: whether each code is a script for a process of its own, that prints
            its numbers as JSON in its last line; nothing where it is enough that it
            ends well, for the naive code's does not.
        environment: variables of the naive code's process. Without `torch` the row
            is about them: the naive code is `naive_keras` and the fix `keras`, each
            run with and without them.
        device: "gpu" if it can be measured on a GPU only; "cpu" if its code makes
            tensors on the CPU, so that it is run there always.
        note: anything else worth knowing, without figures.
    """

    name: str
    what: str
    section: str
    category: str
    keras: str
    torch: str = ""
    naive_keras: str = ""
    naive_torch: str = ""
    symptom: str = ""
    fix: str = ""
    operations: tuple[str, ...] = ()
    inputs: Mapping[str, Input] = field(default_factory=dict)
    layout: str = "maps"
    dtypes: tuple[str, ...] = ("float64", "float32")
    trap_dtypes: tuple[str, ...] = ()
    limit: float = 0.0
    limit_reason: str = ""
    shows: str = "error"
    says: str = ""
    differs_on: tuple[str, ...] = ()
    backend: str = ""
    process: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    device: str = ""

    @property
    def naive(self) -> str:
        """The naive port, of whichever side."""
        return self.naive_keras or self.naive_torch

    @property
    def backend_dtype(self) -> str:
        """The type that a backend computes in, float32 where the row has it."""
        return "float32" if "float32" in self.dtypes else self.dtypes[0]
