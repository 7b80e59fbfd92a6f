"""One function per operation on NHWC images, written with TensorFlow.

The functions of `keras_impl.ops` and `torch_impl.ops` have the same names and take the
same arguments, tensors or NumPy arrays.
"""

from keras_impl.ops.convolution import (
    conv2d,
    conv2d_1x1,
    conv2d_as_dense,
    conv2d_transpose,
    convolve2d,
    depthwise_conv2d,
    output_size,
    separable_conv2d,
    unfold,
)
from keras_impl.ops.pooling import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    global_avg_pool2d,
    global_max_pool2d,
    max_pool2d,
)

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "conv2d",
    "conv2d_1x1",
    "conv2d_as_dense",
    "conv2d_transpose",
    "convolve2d",
    "depthwise_conv2d",
    "global_avg_pool2d",
    "global_max_pool2d",
    "max_pool2d",
    "output_size",
    "separable_conv2d",
    "unfold",
]
