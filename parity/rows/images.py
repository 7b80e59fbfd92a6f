"""Resizing, padding and cropping of images and feature maps."""

from parity.rows.record import Row, maps

MAPS = {"images": maps(2, 7, 9, 3)}

ROWS: tuple[Row, ...] = (
    Row(
        "images.upsampling_nearest",
        "every pixel repeated",
        "images",
        "other name",
        keras="layers.UpSampling2D(2)(images)",
        torch="nn.Upsample(scale_factor=2)(images)",
        operations=("resize",),
        inputs=MAPS,
        note="'nearest' is the default on both sides.",
    ),
    Row(
        "images.upsampling_bilinear",
        "bilinear upsampling",
        "images",
        "other meaning",
        keras="layers.UpSampling2D(2, interpolation='bilinear')(images)",
        torch="nn.Upsample(scale_factor=2, mode='bilinear')(images)",
        naive_torch="nn.UpsamplingBilinear2d(scale_factor=2)(images)",
        symptom="another grid: the layer of that name aligns the corners",
        fix="nn.Upsample without align_corners",
        operations=("resize",),
        inputs=MAPS,
        dtypes=("float32",),
        note="TensorFlow resizes in float32.",
    ),
    Row(
        "images.resize_bilinear",
        "bilinear resizing, up and down",
        "images",
        "same",
        keras="tf.image.resize(images, (16, 13)), tf.image.resize(images, (4, 5))",
        torch="""\
larger = F.interpolate(images, (16, 13), mode="bilinear")
larger, F.interpolate(images, (4, 5), mode="bilinear")""",
        operations=("resize",),
        inputs=MAPS,
        dtypes=("float32",),
        note="People believe that the grids differ: both count from pixels' centres.",
    ),
    Row(
        "images.resize_align_corners",
        "the grid of bilinear resizing",
        "images",
        "other meaning",
        keras="keras.ops.image.resize(images, (16, 13))",
        torch='F.interpolate(images, (16, 13), mode="bilinear")',
        naive_torch="""\
F.interpolate(images, (16, 13), mode="bilinear", align_corners=True)""",
        symptom="a map that is shifted more, the farther a pixel is from the centre",
        fix="align_corners=False, PyTorch's default",
        operations=("resize",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "images.resize_align_corners_keras",
        "resizing with the corners aligned, as decoders for segmentation have it",
        "images",
        "missing on one side",
        keras="tf.compat.v1.image.resize(images, (16, 13), align_corners=True)",
        torch="""\
F.interpolate(images, (16, 13), mode="bilinear", align_corners=True)""",
        naive_keras="tf.image.resize(images, (16, 13))",
        symptom="a map that is shifted more, the farther a pixel is from the centre",
        fix="the function of TensorFlow 1, which has the argument still",
        operations=("resize",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "images.resize_antialias",
        "resizing with torchvision, downwards",
        "images",
        "other default",
        keras="tf.image.resize(images, (8, 9), antialias=True)",
        torch="""\
from torchvision.transforms.v2 import functional
functional.resize(images, [8, 9])""",
        naive_keras="tf.image.resize(images, (8, 9))",
        symptom="small images are jagged: what lies between the samples is dropped",
        fix="antialias=True: the default of torchvision, not of the three others",
        operations=("resize",),
        inputs={"images": maps(2, 21, 31, 3)},
        dtypes=("float32",),
        note="F.interpolate, tf.image.resize and keras.ops.image.resize have it off.",
    ),
    Row(
        "images.resize_bicubic",
        "bicubic resizing, with antialias on both sides",
        "images",
        "other meaning",
        keras="tf.image.resize(images, (16, 13), 'bicubic', antialias=True)",
        torch='F.interpolate(images, (16, 13), mode="bicubic", antialias=True)',
        naive_torch='F.interpolate(images, (16, 13), mode="bicubic")',
        symptom="another overshoot at edges: PyTorch's kernel has -0.75, not -0.5",
        fix="antialias=True on both sides, for enlarging too: both have -0.5 then",
        operations=("resize",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "images.resize_bicubic_torch",
        "bicubic resizing as F.interpolate does it without antialias",
        "images",
        "missing on one side",
        keras="""\
def weights(size, count):
    matrix = np.zeros((count, size))
    for row, x in enumerate((np.arange(count) + 0.5) * size / count - 0.5):
        for pixel in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            d = abs(x - pixel)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[row, np.clip(pixel, 0, size - 1)] += near if d < 1 else far
    return keras.ops.convert_to_tensor(matrix, dtype)
keras.ops.einsum("ph,nhwc,qw->npqc", weights(7, 16), images, weights(9, 13))""",
        torch='F.interpolate(images, (16, 13), mode="bicubic")',
        naive_keras="keras.ops.image.resize(images, (16, 13), 'bicubic')",
        symptom="another overshoot at edges, and another border",
        fix="weights by hand: a kernel with -0.75, the border repeated",
        operations=("resize",),
        inputs=MAPS,
    ),
    Row(
        "images.resize_bicubic_table",
        "bicubic resizing in TensorFlow without antialias",
        "images",
        "other meaning",
        keras="""\
from keras_impl.ops import resize
resize(images, (9, 11), method="bicubic")""",
        torch='F.interpolate(images, (9, 11), mode="bicubic", antialias=True)',
        naive_keras="tf.image.resize(images, (9, 11), 'bicubic')",
        symptom="more than rounding: TensorFlow takes its kernel from a table",
        fix="calculate the weights; in float32 antialias=True does",
        operations=("resize",),
        inputs=MAPS,
    ),
    Row(
        "images.resize_float64",
        "bilinear resizing in float64",
        "images",
        "other meaning",
        keras="""\
from keras_impl.ops import resize
resize(images, (16, 13))""",
        torch='F.interpolate(images, (16, 13), mode="bilinear")',
        naive_keras="keras.ops.image.resize(images, (16, 13))",
        symptom="float64 by its type, but rounded to float32: so TensorFlow resizes",
        fix="a product with the weights of each axis",
        operations=("resize",),
        inputs=MAPS,
        trap_dtypes=("float64",),
    ),
    Row(
        "images.resize_nearest",
        "resizing to the nearest pixel",
        "images",
        "other meaning",
        keras="tf.image.resize(images, (16, 13), 'nearest')",
        torch='F.interpolate(images, (16, 13), mode="nearest-exact")',
        naive_torch='F.interpolate(images, (16, 13), mode="nearest")',
        symptom="pixels beside the right ones wherever the ratio isn't whole",
        fix="mode='nearest-exact', which counts from pixels' centres",
        operations=("resize",),
        inputs=MAPS,
    ),
    Row(
        "images.resize_nearest_floor",
        "resizing to the nearest pixel as F.interpolate does it",
        "images",
        "missing on one side",
        keras="""\
rows, columns = np.arange(16) * 7 // 16, np.arange(13) * 9 // 13
tf.gather(tf.gather(images, rows, axis=1), columns, axis=2)""",
        torch='F.interpolate(images, (16, 13), mode="nearest")',
        naive_keras="tf.image.resize(images, (16, 13), 'nearest')",
        symptom="pixels beside the right ones wherever the ratio isn't whole",
        fix="take pixel floor(i * size / new size), which 'nearest' means in PyTorch",
        operations=("resize",),
        inputs=MAPS,
    ),
    Row(
        "images.resize_scale_factor",
        "resizing by a factor that gives no whole number of pixels",
        "images",
        "other meaning",
        keras="keras.ops.image.resize(images, (10, 13))",
        torch='F.interpolate(images, (10, 13), mode="bilinear")',
        naive_torch='F.interpolate(images, scale_factor=1.5, mode="bilinear")',
        symptom="the same shape and another grid: PyTorch steps by the factor itself",
        fix="give the size, or recompute_scale_factor=True",
        operations=("resize",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "images.resize_area",
        "means of areas at a whole ratio",
        "images",
        "other name",
        keras="tf.image.resize(images, (4, 5), 'area')",
        torch='F.interpolate(images, (4, 5), mode="area")',
        operations=("resize",),
        inputs={"images": maps(2, 8, 15, 3)},
        dtypes=("float32",),
        note="At other ratios PyTorch's is adaptive average pooling, TensorFlow's not.",
    ),
    Row(
        "images.resizing_layer",
        "resizing as a layer of a model",
        "images",
        "other name",
        keras="layers.Resizing(16, 13)(images)",
        torch="nn.Upsample((16, 13), mode='bilinear')(images)",
        operations=("resize",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "images.pad_reflect",
        "a border that mirrors the image, without its outermost pixels",
        "images",
        "same",
        keras="""\
border = [(0, 0), (1, 2), (3, 0), (0, 0)]
keras.ops.pad(images, border, mode="reflect")""",
        torch='F.pad(images, (3, 0, 1, 2), mode="reflect")',
        operations=("pad",),
        inputs=MAPS,
    ),
    Row(
        "images.pad_symmetric",
        "a border that mirrors the image, with its outermost pixels",
        "images",
        "missing on one side",
        keras="""\
border = [(0, 0), (1, 2), (3, 0), (0, 0)]
keras.ops.pad(images, border, mode="symmetric")""",
        torch="""\
from torchvision.transforms.v2 import functional
functional.pad(images, [3, 1, 0, 2], padding_mode="symmetric")""",
        naive_torch='F.pad(images, (3, 0, 1, 2), mode="replicate")',
        symptom="right for borders of one pixel, wrong for wider ones",
        fix="torchvision's pad, whose order is (left, top, right, bottom)",
        operations=("pad",),
        inputs=MAPS,
        differs_on=("torch",),
    ),
    Row(
        "images.pad_symmetric_backend",
        "a border that mirrors the image, on Keras's torch backend",
        "images",
        "other meaning",
        keras="""\
rows = np.pad(np.arange(7), (1, 2), mode="symmetric")
columns = np.pad(np.arange(9), (3, 0), mode="symmetric")
keras.ops.take(keras.ops.take(images, rows, axis=1), columns, axis=2)""",
        naive_keras="""\
border = [(0, 0), (1, 2), (3, 0), (0, 0)]
keras.ops.pad(images, border, mode="symmetric")""",
        symptom="the outermost pixels repeated: right for a border of one pixel only",
        fix="take the rows and columns that are meant",
        operations=("pad",),
        inputs=MAPS,
        backend="torch",
    ),
    Row(
        "images.crop",
        "a part of an image by its place and size",
        "images",
        "other name",
        keras="tf.image.crop_to_bounding_box(images, 1, 2, 4, 6)",
        torch="""\
from torchvision.transforms.v2 import functional
functional.crop(images, 1, 2, 4, 6)""",
        operations=("crop",),
        inputs=MAPS,
        note="The order is top, left, height, width on both sides.",
    ),
    Row(
        "images.crop_outside",
        "a part that reaches beyond the image",
        "images",
        "other meaning",
        keras="""\
image = tf.image.crop_to_bounding_box(images, 2, 0, 5, 9)
tf.image.pad_to_bounding_box(image, 0, 1, 6, 11)""",
        torch="""\
from torchvision.transforms.v2 import functional
functional.crop(images, 2, -1, 6, 11)""",
        naive_keras="tf.image.crop_to_bounding_box(images, 2, -1, 6, 11)",
        symptom="torchvision fills up with 0, TensorFlow refuses",
        fix="crop what is there, then pad",
        operations=("crop", "pad"),
        inputs=MAPS,
        shows="ValueError",
        says="offset_width must be >= 0",
    ),
    Row(
        "images.cropping_layer",
        "pixels cut off each side",
        "images",
        "other layout",
        keras="layers.Cropping2D(((1, 0), (0, 2)))(images)",
        torch="F.pad(images, (0, -2, -1, 0))",
        naive_torch="images[:, :, 1:-0, 0:-2]",
        symptom="an empty image: in a slice, -0 is the beginning",
        fix="pad by negative numbers, or slice up to the size less what is cut",
        operations=("crop",),
        inputs=MAPS,
        shows="shape",
    ),
    Row(
        "images.center_crop",
        "the centre of an image, an even number of pixels smaller",
        "images",
        "same",
        keras="layers.CenterCrop(3, 7)(images)",
        torch="""\
from torchvision.transforms.v2 import functional
functional.center_crop(images, [3, 7])""",
        operations=("center_crop",),
        inputs=MAPS,
    ),
    Row(
        "images.center_crop_odd",
        "the centre of an image, an odd number of pixels smaller",
        "images",
        "other meaning",
        keras="tf.image.resize_with_crop_or_pad(images, 4, 6)",
        torch="""\
top, left = (7 - 4) // 2, (9 - 6) // 2
images[:, :, top : top + 4, left : left + 6]""",
        naive_torch="""\
from torchvision.transforms.v2 import functional
functional.center_crop(images, [4, 6])""",
        symptom="one pixel off at margins of 3, 7 ...: torchvision rounds half to even",
        fix="cut from (size - new size) // 2",
        operations=("center_crop",),
        inputs=MAPS,
    ),
    Row(
        "images.center_crop_small",
        "the centre of an image that is smaller than it",
        "images",
        "other meaning",
        keras="tf.image.resize_with_crop_or_pad(images, 11, 5)",
        torch="""\
from torchvision.transforms.v2 import functional
functional.center_crop(images, [11, 5])""",
        naive_keras="layers.CenterCrop(11, 5)(images)",
        symptom="Keras enlarges the image, torchvision puts 0 around it",
        fix="resize_with_crop_or_pad",
        operations=("center_crop", "crop", "pad"),
        inputs=MAPS,
    ),
    Row(
        "images.flip",
        "an image mirrored",
        "images",
        "other name",
        keras="tf.image.flip_left_right(images), tf.image.flip_up_down(images)",
        torch="images.flip(3), images.flip(2)",
        inputs=MAPS,
    ),
    Row(
        "images.rotate",
        "an image turned counter-clockwise by 90 degrees",
        "images",
        "other layout",
        keras="tf.image.rot90(images)",
        torch="torch.rot90(images, 1, (2, 3))",
        naive_torch="torch.rot90(images)",
        symptom="the first two axes are turned, images and channels",
        fix="dims=(2, 3)",
        inputs=MAPS,
        shows="shape",
    ),
)
