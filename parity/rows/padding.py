"""Padding of convolutions."""

from parity.rows.record import Row, kernel, maps

EVEN = {"images": maps(2, 32, 30, 3), "kernel": kernel(3, 3, 3, 4)}
ODD = {"images": maps(2, 33, 31, 3), "kernel": kernel(3, 3, 3, 4)}
IMAGES = {"images": maps(2, 6, 5, 3)}

ROWS = (
    Row(
        "padding.same_stride_even",
        "'same' with stride 2 at an even size",
        "padding",
        "other meaning",
        keras="keras.ops.conv(images, kernel, strides=2, padding='same')",
        torch="F.conv2d(F.pad(images, (0, 1, 0, 1)), kernel, stride=2)",
        naive_torch="F.conv2d(images, kernel, stride=2, padding=1)",
        symptom="the same shape, with the sampling grid shifted by one pixel",
        fix="pad (0, 1) by hand: TensorFlow puts the odd pixel behind the image",
        operations=("conv2d",),
        inputs=EVEN,
    ),
    Row(
        "padding.same_stride_odd",
        "'same' with stride 2 at an odd size",
        "padding",
        "same",
        keras="keras.ops.conv(images, kernel, strides=2, padding='same')",
        torch="F.conv2d(images, kernel, stride=2, padding=1)",
        operations=("conv2d",),
        inputs=ODD,
        note="at odd sizes there is no odd pixel: a test there misses the shift",
    ),
    Row(
        "padding.same_stem",
        "'same' in the 7x7 convolution that opens a ResNet",
        "padding",
        "other meaning",
        keras="keras.ops.conv(images, kernel, strides=2, padding='same')",
        torch="F.conv2d(F.pad(images, (2, 3, 2, 3)), kernel, stride=2)",
        naive_torch="F.conv2d(images, kernel, stride=2, padding=3)",
        symptom="the same shape, with the sampling grid shifted by one pixel",
        fix="pad (2, 3) by hand",
        operations=("conv2d",),
        inputs={"images": maps(1, 64, 56, 3), "kernel": kernel(7, 7, 3, 4)},
        note="keras.applications.ResNet50 itself pads 3 with ZeroPadding2D",
    ),
    Row(
        "padding.same_stride",
        "padding='same' with a stride in PyTorch",
        "padding",
        "missing on one side",
        keras="keras.ops.conv(images, kernel, strides=2, padding='same')",
        torch="""\
def border(n, k, s):
    total = max((-(-n // s) - 1) * s + k - n, 0)
    return total // 2, total - total // 2

rows, columns = (border(n, 3, 2) for n in images.shape[2:])
F.conv2d(F.pad(images, (*columns, *rows)), kernel, stride=2)""",
        naive_torch="F.conv2d(images, kernel, stride=2, padding='same')",
        symptom="PyTorch refuses",
        fix="pad what 'same' needs for ceil(n / stride) outputs, the odd pixel behind",
        operations=("conv2d",),
        inputs={"images": maps(2, 32, 31, 3), "kernel": kernel(3, 3, 3, 4)},
        shows="RuntimeError",
        says="not supported for strided convolutions",
    ),
    Row(
        "padding.pixels_stride",
        "PyTorch's padding=1 with stride 2 in Keras",
        "padding",
        "missing on one side",
        keras="""\
padded = layers.ZeroPadding2D(1)(images)
keras.ops.conv(padded, kernel, strides=2)""",
        torch="F.conv2d(images, kernel, stride=2, padding=1)",
        naive_keras="keras.ops.conv(images, kernel, strides=2, padding='same')",
        symptom="the same shape, with the sampling grid shifted by one pixel",
        fix="ZeroPadding2D, then 'valid': Keras's layers take no number of pixels",
        operations=("conv2d", "pad"),
        inputs=EVEN,
    ),
    Row(
        "padding.pixels_tensorflow",
        "padding by a number of pixels, in TensorFlow's function",
        "padding",
        "other name",
        keras="tf.nn.conv2d(images, kernel, 2, [[0, 0], [1, 1], [2, 2], [0, 0]])",
        torch="F.conv2d(images, kernel, stride=2, padding=(1, 2))",
        operations=("conv2d",),
        inputs=EVEN,
    ),
    Row(
        "padding.same_dilation",
        "'same' with dilation",
        "padding",
        "other meaning",
        keras="keras.ops.conv(images, kernel, padding='same', dilation_rate=2)",
        torch="F.conv2d(images, kernel, padding=2, dilation=2)",
        naive_torch="F.conv2d(images, kernel, padding=1, dilation=2)",
        symptom="an output that is two pixels smaller",
        fix="padding=dilation * (k - 1) // 2, or padding='same'",
        operations=("conv2d",),
        inputs=ODD,
        shows="shape",
    ),
    Row(
        "padding.same_even_kernel",
        "'same' with a kernel of even size",
        "padding",
        "other meaning",
        keras="keras.ops.conv(images, kernel, padding='same')",
        torch="F.conv2d(images, kernel, padding='same')",
        naive_torch="F.conv2d(images, kernel, padding=2)",
        symptom="an output that is one pixel larger",
        fix="padding='same': with stride 1 PyTorch puts the odd pixel behind as well",
        operations=("conv2d",),
        inputs={"images": maps(2, 9, 8, 3), "kernel": kernel(4, 4, 3, 4)},
        shows="shape",
    ),
    Row(
        "padding.order",
        "the order in which borders are named",
        "padding",
        "other layout",
        keras="layers.ZeroPadding2D(((1, 2), (0, 3)))(images)",
        torch="nn.ZeroPad2d((0, 3, 1, 2))(images)",
        naive_torch="nn.ZeroPad2d((1, 2, 0, 3))(images)",
        symptom="no error where rows and columns get as many pixels, as here",
        fix="(left, right, top, bottom): PyTorch names the last axis first",
        operations=("pad",),
        inputs=IMAGES,
    ),
    Row(
        "padding.pair",
        "a border of (1, 2) pixels",
        "padding",
        "other meaning",
        keras="layers.ZeroPadding2D((1, 2))(images)",
        torch="F.pad(images, (2, 2, 1, 1))",
        naive_torch="F.pad(images, (1, 2))",
        symptom="one column in front, two behind, and no rows",
        fix="a pair is (rows, columns) in Keras, (left, right) in PyTorch",
        operations=("pad",),
        inputs=IMAGES,
        shows="shape",
    ),
    Row(
        "padding.function",
        "a border as a function",
        "padding",
        "other layout",
        keras="keras.ops.pad(images, [[0, 0], [1, 2], [0, 3], [0, 0]])",
        torch="F.pad(images, (0, 3, 1, 2))",
        operations=("pad",),
        inputs=IMAGES,
        note="Keras and TensorFlow name every axis from the first, PyTorch from the "
        "last, and those it needs only",
    ),
    Row(
        "padding.value",
        "a border of another value than 0",
        "padding",
        "other name",
        keras="""\
keras.ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=0.5)""",
        torch="F.pad(images, (1, 1, 1, 1), value=0.5)",
        operations=("pad",),
        inputs=IMAGES,
    ),
    Row(
        "padding.reflect",
        "a convolution whose border mirrors the image",
        "padding",
        "missing on one side",
        keras="""\
border = [[0, 0], [1, 1], [1, 1], [0, 0]]
keras.ops.conv(keras.ops.pad(images, border, mode="reflect"), kernel)""",
        torch="""\
conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False)
conv.load_state_dict({"weight": kernel})
conv(images)""",
        naive_keras="keras.ops.conv(images, kernel, padding='same')",
        symptom="a dark frame: Keras's layers pad with 0 only",
        fix="pad with mode='reflect', then 'valid'",
        operations=("conv2d", "pad"),
        inputs={**IMAGES, "kernel": kernel(3, 3, 3, 4)},
    ),
    Row(
        "padding.edge",
        "a border that repeats the outermost pixels",
        "padding",
        "missing on one side",
        keras="""\
border = [[0, 0], [1, 1], [1, 1], [0, 0]]
once = keras.ops.pad(images, border, mode="symmetric")
keras.ops.pad(once, border, mode="symmetric")""",
        torch="F.pad(images, (2, 2, 2, 2), mode='replicate')",
        naive_keras="""\
border = [[0, 0], [2, 2], [2, 2], [0, 0]]
keras.ops.pad(images, border, mode="symmetric")""",
        symptom="right for one pixel, mirrored for more",
        fix="one pixel at a time: TensorFlow has no such mode, but 'symmetric' repeats "
        "the outermost pixel",
        operations=("pad",),
        note="tf.pad refuses NumPy's mode 'edge'",
        inputs=IMAGES,
    ),
    Row(
        "padding.circular",
        "a border from the opposite side",
        "padding",
        "missing on one side",
        keras="""\
images = keras.ops.concatenate([images[:, -1:], images, images[:, :1]], 1)
keras.ops.concatenate([images[:, :, -1:], images, images[:, :, :1]], 2)""",
        torch="F.pad(images, (1, 1, 1, 1), mode='circular')",
        naive_keras="""\
border = [[0, 0], [1, 1], [1, 1], [0, 0]]
tf.pad(images, border, mode="WRAP")""",
        symptom="NumPy's mode is not among those of TensorFlow",
        fix="join the opposite rows to the image, then the columns",
        operations=("pad",),
        inputs=IMAGES,
        shows="ValueError",
        says="Received `mode` = WRAP",
    ),
)
