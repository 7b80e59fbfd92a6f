"""Padding of convolutions."""

from parity.rows.record import Row, kernel, maps

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
        inputs={"images": maps(2, 32, 30, 3), "kernel": kernel(3, 3, 3, 4)},
    ),
)
