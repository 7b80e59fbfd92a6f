"""Outside witnesses of the operations: SciPy, NumPy and ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from scipy.signal import correlate2d

from parity.ops_cases import assert_equal, assert_rounded, to_keras
from parity.spec.padding import Placement, place

ONNX_TYPES = {
    "float64": onnx.TensorProto.DOUBLE,
    "float32": onnx.TensorProto.FLOAT,
    "int64": onnx.TensorProto.INT64,
}
DTYPES = ("float64", "float32")
# Which onnxruntime 1.20 knows already.
OPSET, IR_VERSION = 21, 10


def correlate(images, kernel, stride=1, padding="valid", dilation=1, groups=1):
    """Returns the cross-correlation by SciPy, channel by channel."""
    windows = place(images.shape[1:3], kernel.shape[:2], stride, padding, dilation)
    images = np.pad(images, [(0, 0), *windows.padding, (0, 0)])
    extent = zip(kernel.shape[:2], windows.dilation, strict=True)
    spread = np.zeros([*((f - 1) * d + 1 for f, d in extent), *kernel.shape[2:]])
    spread[:: windows.dilation[0], :: windows.dilation[1]] = kernel
    filters, channels = kernel.shape[3] // groups, kernel.shape[2]
    outputs = []
    for index in range(kernel.shape[3]):
        first = index // filters * channels
        outputs.append(
            sum(
                np.stack(
                    [
                        correlate2d(x[..., first + c], spread[..., c, index], "valid")
                        for x in images
                    ]
                )
                for c in range(channels)
            )
        )
    outputs = np.stack(outputs, 3)
    return outputs[:, :: windows.stride[0], :: windows.stride[1]]


def correlate_depthwise(images, kernel, **arguments):
    """Returns each channel's cross-correlations by SciPy."""
    parts = [
        correlate(images[..., c : c + 1], kernel[:, :, c : c + 1], **arguments)
        for c in range(images.shape[3])
    ]
    return np.concatenate(parts, 3)


def pool(images: np.ndarray, windows: Placement, reduce: Callable, border=np.nan):
    """Returns windows reduced by a NumPy function that leaves out NaN.

    Args:
        images: (N, H, W, C).
        windows: where they lie.
        reduce: such as np.nanmax.
        border: the value of the padding.
    """
    around = [(0, 0), *windows.padding, (0, 0)]
    padded = np.pad(images, around, constant_values=border)
    behind = [(0, 0), *((0, missing) for missing in windows.missing), (0, 0)]
    padded = np.pad(padded, behind, constant_values=np.nan)
    outputs = np.empty((len(images), *windows.output_size, images.shape[3]))
    for row, column in np.ndindex(*windows.output_size):
        top, left = row * windows.stride[0], column * windows.stride[1]
        (height, width), (down, across) = windows.kernel_size, windows.dilation
        seen = padded[
            :,
            top : top + (height - 1) * down + 1 : down,
            left : left + (width - 1) * across + 1 : across,
        ]
        outputs[:, row, column] = reduce(seen, (1, 2))
    return outputs


def resize(images: np.ndarray, size, method: str, antialias: bool, a=-0.5):
    """Returns resized images, pixel by pixel from the kernel's definition."""
    axes = zip(images.shape[1:3], size, strict=True)
    rows, columns = (_resizing(*axis, method, antialias, a) for axis in axes)
    return np.einsum("ph,nhwc,qw->npqc", rows, images, columns)


def _resizing(old, new, method, antialias, a):
    weights = np.zeros((new, old))
    stretch = max(old / new, 1) if antialias else 1
    for i in range(new):
        centre = (i + 0.5) * old / new
        if method == "nearest":
            weights[i, int((2 * i + 1) * old // (2 * new))] = 1
            continue
        for j in range(old):
            x = abs(j + 0.5 - centre) / stretch
            weights[i, j] = max(0, 1 - x) if method == "bilinear" else keys(x, a)
    return weights / weights.sum(1, keepdims=True)


def keys(x: float, a: float) -> float:
    """Returns Keys's kernel (1981, equation 4), with PyTorch's or his own a of -0.5."""
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def run_onnx(
    operator: str, arrays, *, outputs=1, opset=OPSET, dtypes=DTYPES, **attributes
):
    """Returns what ONNX Runtime computes on the CPU, in float64 where it can.

    Args:
        operator: of the default domain.
        arrays: its inputs, None for one that is left out.
        outputs: how many it has.
        opset: the version.
        dtypes: in which of them it is tried, one after the other.
        attributes: of the operator.

    Returns:
        The outputs, and "float64" or "float32", in which they were computed.
    """
    for dtype in dtypes:
        cast = [
            x if x is None or x.dtype.kind != "f" else x.astype(dtype) for x in arrays
        ]
        try:
            session, feed = _session(operator, cast, outputs, opset, attributes)
            return session.run(None, feed), dtype
        except (InvalidGraph, NoKernel):
            if dtype == dtypes[-1]:
                raise
    raise AssertionError


def _session(operator, arrays, outputs, opset, attributes):
    names = ["" if x is None else f"x{i}" for i, x in enumerate(arrays)]
    feed = {name: x for name, x in zip(names, arrays, strict=True) if name}
    inputs = [
        helper.make_tensor_value_info(name, ONNX_TYPES[str(x.dtype)], x.shape)
        for name, x in feed.items()
    ]
    results = [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)]
    node = helper.make_node(operator, names, [x.name for x in results], **attributes)
    model = helper.make_model(
        helper.make_graph([node], operator, inputs, results),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options), feed


def assert_onnx(
    output: np.ndarray,
    magnitude: np.ndarray,
    terms: int,
    operator: str,
    *arrays: np.ndarray | None,
    **attributes: object,
) -> None:
    """Asserts that an operation's float64 output is that of ONNX Runtime.

    Where that has no float64, the numbers have to be float32's, and it may be off by
    its rounding, see `assert_rounded`.

    Args:
        output: as the Keras side has it.
        magnitude: of what is summed.
        terms: that are summed.
        operator: see `run_onnx`.
        arrays: likewise, as the PyTorch side has them.
        attributes: likewise.
    """
    (found, *_), dtype = run_onnx(operator, arrays, **attributes)
    found = to_keras(found, "maps", ()) if found.ndim == 4 else found
    if dtype == "float64":
        assert_equal(found, output)
    else:
        assert_rounded(found, output, magnitude, terms)
