"""Convolutions: what is computed, and where transposed ones put it."""

from parity.rows.record import Row, array, kernel, maps

LAYER = {"images": maps(2, 9, 8, 3), "kernel": kernel(3, 3, 3, 4)}
# (h, w, C, M), of a depthwise convolution.
DEPTHWISE = {"images": maps(2, 9, 8, 3), "kernel": array(3, 3, 3, 1, scale=0.3)}


def transposed(size: int) -> dict:
    """Returns images of 3 channels, and a kernel (h, w, out, in) for them."""
    return {"images": maps(2, 6, 5, 3), "kernel": kernel(size, size, 4, 3)}


ROWS: tuple[Row, ...] = (
    Row(
        "convolution.conv2d",
        "a convolution as a layer",
        "convolution",
        "other name",
        keras="""\
conv = layers.Conv2D(4, 3, strides=2)
conv.build(images.shape)
conv.set_weights([kernel, bias])
conv(images)""",
        torch="""\
conv = nn.Conv2d(3, 4, 3, stride=2)
conv.load_state_dict({"weight": kernel, "bias": bias})
conv(images)""",
        operations=("conv2d",),
        inputs={**LAYER, "bias": array(4)},
        note="Keras takes the number of input channels from the first images, PyTorch "
        "is told (nn.LazyConv2d is not)",
    ),
    Row(
        "convolution.conv2d_function",
        "a convolution as a function",
        "convolution",
        "other name",
        keras="keras.ops.conv(images, kernel, strides=2)",
        torch="F.conv2d(images, kernel, stride=2)",
        operations=("conv2d",),
        inputs=LAYER,
    ),
    Row(
        "convolution.conv2d_tensorflow",
        "a convolution as TensorFlow's function: stride and padding have no default",
        "convolution",
        "other name",
        keras="tf.nn.conv2d(images, kernel, strides=1, padding='VALID')",
        torch="F.conv2d(images, kernel)",
        operations=("conv2d",),
        inputs=LAYER,
    ),
    Row(
        "convolution.activation",
        "a convolution and the activation after it",
        "convolution",
        "missing on one side",
        keras="""\
conv = layers.Conv2D(4, 3, activation="relu", use_bias=False)
conv.build(images.shape)
conv.set_weights([kernel])
conv(images)""",
        torch="""\
conv = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU())
conv.load_state_dict({"0.weight": kernel})
conv(images)""",
        operations=("conv2d", "relu"),
        inputs=LAYER,
        note="PyTorch's layers have no activation",
    ),
    Row(
        "convolution.flipped",
        "the convolution of mathematics, whose kernel is turned by 180 degrees",
        "convolution",
        "other meaning",
        keras="keras.ops.conv(images, keras.ops.flip(kernel, axis=(0, 1)))",
        torch="F.conv2d(images, kernel.flip(2, 3))",
        naive_torch="F.conv2d(images, kernel)",
        symptom="image filters that are not symmetric work backwards",
        fix="flip the kernel: what both frameworks call convolution is correlation",
        operations=("convolve2d",),
        inputs=LAYER,
        note="scipy.signal.convolve2d flips, scipy.signal.correlate2d does not",
    ),
    Row(
        "convolution.output_size",
        "the size of the output",
        "convolution",
        "same",
        keras="""\
conv = layers.Conv2D(4, 3, strides=2)
conv.compute_output_shape((1, 32, 31, 3))[1:3]""",
        torch="""\
from torch_impl.ops import output_size
output_size((32, 31), 3, stride=2)""",
        operations=("output_size",),
        note="(n + 2p - f) / s + 1, rounded down on both sides",
    ),
    Row(
        "convolution.last_row",
        "rows that a stride leaves over",
        "convolution",
        "same",
        keras="keras.ops.conv(images, kernel, strides=2)",
        torch="F.conv2d(images[:, :, :31, :31], kernel, stride=2)",
        operations=("conv2d",),
        inputs={"images": maps(1, 32, 32, 3), "kernel": kernel(3, 3, 3, 4)},
        note="both sides ignore the last row and column here; neither rounds up",
    ),
    Row(
        "convolution.stride_and_dilation",
        "a convolution with both stride and dilation",
        "convolution",
        "missing on one side",
        keras="keras.ops.conv(images, kernel, dilation_rate=2)[:, ::2, ::2]",
        torch="F.conv2d(images, kernel, stride=2, dilation=2)",
        naive_keras="keras.ops.conv(images, kernel, strides=2, dilation_rate=2)",
        symptom="Keras refuses; tf.nn.conv2d does not",
        fix="dilate with stride 1, then take every other pixel",
        operations=("conv2d",),
        inputs=LAYER,
        shows="ValueError",
        says="`strides > 1` not supported",
    ),
    Row(
        "convolution.dilation_gradient",
        "the gradient of a dilated convolution on a CPU, in float64 or without oneDNN",
        "convolution",
        "missing on one side",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(images)
    total = tf.reduce_sum(tf.nn.convolution(images, kernel, dilations=2) ** 2)
tape.gradient(total, images)""",
        torch="""\
images.requires_grad_()
total = F.conv2d(images, kernel, dilation=2).square().sum()
torch.autograd.grad(total, images)""",
        naive_keras="""\
with tf.GradientTape() as tape:
    tape.watch(images)
    total = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "VALID", "NHWC", 2) ** 2)
tape.gradient(total, images)""",
        symptom="the forward pass works, the backward pass raises",
        fix="tf.nn.convolution, which moves the pixels; Keras's layers call it",
        operations=("conv2d",),
        inputs=LAYER,
        shows="InvalidArgumentError",
        says="Current CPU implementations do not",
        device="cpu",
        trap_dtypes=("float64",),
    ),
    Row(
        "convolution.channels_first",
        "(N, C, H, W) in TensorFlow on a CPU, in float64 or without oneDNN",
        "convolution",
        "missing on one side",
        keras="keras.ops.conv(images, kernel)",
        torch="F.conv2d(images, kernel)",
        naive_keras="""\
channels_first = keras.ops.transpose(images, (0, 3, 1, 2))
keras.ops.conv(channels_first, kernel, data_format="channels_first")""",
        symptom="a model that runs on a GPU does not on the CPU",
        fix="keep images as (N, H, W, C)",
        operations=("conv2d",),
        inputs=LAYER,
        shows="UnimplementedError",
        says="only supports the NHWC",
        device="cpu",
        trap_dtypes=("float64",),
    ),
    Row(
        "convolution.unbatched",
        "a convolution of one image without its batch",
        "convolution",
        "missing on one side",
        keras="""\
conv = layers.Conv2D(4, 3, use_bias=False)
conv.build(images.shape)
conv.set_weights([kernel])
conv(images[0][None])""",
        torch="""\
conv = nn.Conv2d(3, 4, 3, bias=False)
conv.load_state_dict({"weight": kernel})
conv(images[0])[None]""",
        naive_keras="""\
conv = layers.Conv2D(4, 3, use_bias=False)
conv.build(images.shape)
conv.set_weights([kernel])
conv(images[0])[None]""",
        symptom="Keras refuses what PyTorch takes",
        fix="add the batch's axis",
        operations=("conv2d",),
        inputs=LAYER,
        shows="ValueError",
        says="expected min_ndim=4, found ndim=3",
    ),
    Row(
        "convolution.depthwise",
        "a depthwise convolution: groups=channels",
        "convolution",
        "other name",
        keras="keras.ops.depthwise_conv(images, kernel, strides=2)",
        torch="F.conv2d(images, kernel.permute(2, 3, 0, 1), stride=2, groups=3)",
        operations=("depthwise_conv2d",),
        inputs=DEPTHWISE,
        note="kernel (h, w, C, 1) and (C, 1, h, w)",
    ),
    Row(
        "convolution.depthwise_strides",
        "a depthwise convolution with another stride for rows than for columns",
        "convolution",
        "missing on one side",
        keras="keras.ops.depthwise_conv(images, kernel)[:, :, ::2]",
        torch="F.conv2d(images, kernel.permute(2, 3, 0, 1), stride=(1, 2), groups=3)",
        naive_keras="keras.ops.depthwise_conv(images, kernel, strides=(1, 2))",
        symptom="in float64, or without oneDNN, TensorFlow has no such kernel",
        fix="stride 1, then drop rows or columns",
        operations=("depthwise_conv2d",),
        inputs=DEPTHWISE,
        shows="InvalidArgumentError",
        says="Current implementation only support",
        trap_dtypes=("float64",),
    ),
    Row(
        "convolution.separable",
        "a separable convolution as a function",
        "convolution",
        "missing on one side",
        keras="keras.ops.separable_conv(images, depthwise, pointwise)",
        torch="""\
channels = F.conv2d(images, depthwise.permute(2, 3, 0, 1), groups=3)
F.conv2d(channels, pointwise)""",
        operations=("separable_conv2d",),
        inputs={
            "images": maps(2, 9, 8, 3),
            "depthwise": array(3, 3, 3, 1, scale=0.3),
            "pointwise": kernel(1, 1, 3, 5),
        },
    ),
    Row(
        "convolution.pointwise",
        "a dense layer at every pixel",
        "convolution",
        "other layout",
        keras="""\
dense = layers.Dense(4, use_bias=False)
dense.build(images.shape)
dense.set_weights([kernel])
dense(images)""",
        torch="""\
conv = nn.Conv2d(4, 4, 1, bias=False)
conv.load_state_dict({"weight": kernel.T[:, :, None, None]})
conv(images)""",
        naive_torch="""\
dense = nn.Linear(4, 4, bias=False)
dense.load_state_dict({"weight": kernel.T})
dense(images)""",
        symptom="no error where an image is as wide as deep, but its columns are mixed",
        fix="a 1x1 convolution: nn.Linear reads the last axis, which is the width",
        operations=("conv2d_1x1",),
        inputs={"images": maps(2, 6, 4, 4), "kernel": array(4, 4, scale=0.5)},
    ),
    Row(
        "convolution.patches",
        "what each window sees, as a vector",
        "convolution",
        "other layout",
        keras="keras.ops.image.extract_patches(images, 3, strides=1)",
        torch="""\
patches = F.unfold(images, 3).unflatten(1, (3, 9))
patches.transpose(1, 2).flatten(1, 2).unflatten(2, (7, 6))""",
        naive_torch="F.unfold(images, 3).unflatten(2, (7, 6))",
        symptom="the same numbers in another order",
        fix="reorder them: Keras writes (h, w, C), PyTorch (C, h, w)",
        operations=("unfold",),
        inputs=LAYER,
    ),
    Row(
        "convolution.patches_stride",
        "how far apart patches lie if nothing is said",
        "convolution",
        "other default",
        keras="keras.ops.image.extract_patches(images[..., :1], 3)",
        torch="F.unfold(images[:, :1], 3, stride=3).unflatten(2, (3, 2))",
        naive_torch="F.unfold(images[:, :1], 3).unflatten(2, (7, 6))",
        symptom="windows that overlap where Keras sets them side by side",
        fix="say the stride: Keras's default is the window's size, PyTorch's is 1",
        operations=("unfold",),
        inputs=LAYER,
        shows="shape",
    ),
    Row(
        "convolution.as_dense",
        "a convolution as a dense layer that looks at each window",
        "convolution",
        "same",
        keras="""\
patches = keras.ops.image.extract_patches(images, 3, strides=1)
patches @ keras.ops.reshape(kernel, (27, 4))""",
        torch="(kernel.flatten(1) @ F.unfold(images, 3)).unflatten(2, (7, 6))",
        operations=("conv2d_as_dense",),
        inputs=LAYER,
        note="each side's patches lie in the order of its own kernels",
    ),
    Row(
        "convolution.transpose",
        "a transposed convolution",
        "convolution",
        "other name",
        keras="keras.ops.conv_transpose(images, kernel, strides=2)",
        torch="F.conv_transpose2d(images, kernel, stride=2)",
        operations=("conv2d_transpose",),
        inputs=transposed(3),
    ),
    Row(
        "convolution.transpose_same",
        "a transposed convolution, 'same', of 3x3 pixels",
        "convolution",
        "other meaning",
        keras="keras.ops.conv_transpose(images, kernel, strides=2, padding='same')",
        torch="F.conv_transpose2d(images, kernel, stride=2)[:, :, :12, :10]",
        naive_torch="""\
F.conv_transpose2d(images, kernel, stride=2, padding=1, output_padding=1)""",
        symptom="the same shape, shifted by one pixel",
        fix="no padding, then take stride * size pixels from (k - s) // 2 on, 0 here",
        operations=("conv2d_transpose",),
        inputs=transposed(3),
    ),
    Row(
        "convolution.transpose_same_5x5",
        "a transposed convolution, 'same', of 5x5 pixels, as in DCGAN",
        "convolution",
        "other meaning",
        keras="keras.ops.conv_transpose(images, kernel, strides=2, padding='same')",
        torch="F.conv_transpose2d(images, kernel, stride=2)[:, :, 1:13, 1:11]",
        naive_torch="""\
F.conv_transpose2d(images, kernel, stride=2, padding=2, output_padding=1)""",
        symptom="the same shape, shifted by one pixel",
        fix="no padding, then take stride * size pixels from (k - s) // 2 on, 1 here",
        operations=("conv2d_transpose",),
        inputs=transposed(5),
    ),
    Row(
        "convolution.transpose_same_4x4",
        "a transposed convolution, 'same', of 4x4 pixels",
        "convolution",
        "same",
        keras="keras.ops.conv_transpose(images, kernel, strides=2, padding='same')",
        torch="F.conv_transpose2d(images, kernel, stride=2, padding=1)",
        operations=("conv2d_transpose",),
        inputs=transposed(4),
        note="where kernel size less stride is even, 'same' is symmetric",
    ),
    Row(
        "convolution.transpose_output_padding",
        "a transposed convolution with output_padding",
        "convolution",
        "other meaning",
        keras="keras.ops.conv_transpose(images, kernel, strides=2)[:, 1:, 1:]",
        torch="F.conv_transpose2d(images, kernel, None, 2, 1, 1)",
        naive_keras="""\
keras.ops.conv_transpose(
    images, kernel, strides=2, padding="same", output_padding=1
)""",
        symptom="the same shape, shifted by one pixel",
        fix="'valid', then cut off `padding` in front and `padding - output_padding` "
        "behind: Keras's output_padding sets a size and moves nothing",
        operations=("conv2d_transpose",),
        inputs=transposed(3),
    ),
    Row(
        "convolution.transpose_small_kernel",
        "a transposed convolution whose stride is larger than its kernel",
        "convolution",
        "other default",
        keras="keras.ops.conv_transpose(images, kernel, strides=3)",
        torch="F.conv_transpose2d(images, kernel, stride=3, output_padding=1)",
        naive_torch="F.conv_transpose2d(images, kernel, stride=3)",
        symptom="rows and columns of zeros behind are missing",
        fix="output_padding=stride - kernel_size, which Keras adds by itself",
        operations=("conv2d_transpose",),
        inputs=transposed(2),
        shows="shape",
    ),
)
