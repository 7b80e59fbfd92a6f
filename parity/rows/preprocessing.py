"""Rows of the table: from files to the numbers a network reads, and augmentation."""

from parity.rows.record import Input, Row, given, maps

# uint8 images, once the code has cast them.
PIXELS = Input((2, 61, 83, 3), "maps", "integers", scale=256)
IMAGE = Input((61, 83, 3), "array", "integers", scale=256)

JPEG = """\
import io
from PIL import Image
file = io.BytesIO()
Image.fromarray(np.uint8(image)).save(file, "JPEG", quality=85)
"""

ROWS: tuple[Row, ...] = (
    Row(
        "preprocessing.jpeg",
        "decoding JPEG",
        "preprocessing",
        "other default",
        keras=JPEG
        + "tf.io.decode_jpeg(file.getvalue(), 3, dct_method='INTEGER_ACCURATE')",
        torch=JPEG + "np.asarray(Image.open(file))",
        naive_keras=JPEG + "tf.io.decode_jpeg(file.getvalue(), 3)",
        symptom="most pixels are a few grey levels off",
        fix="dct_method='INTEGER_ACCURATE': TensorFlow's default is the fast, rougher "
        "transform; leave fancy_upscaling as it is",
        inputs={"image": IMAGE},
        device="cpu",
        note="torchvision.io.decode_jpeg gives the same pixels as Pillow. "
        "tf.io.decode_image, which image_dataset_from_directory uses, has no such "
        "argument and always decodes the rough way.",
    ),
    Row(
        "preprocessing.read_jpeg",
        "decoding JPEG with torchvision.io",
        "preprocessing",
        "other default",
        keras=JPEG
        + "tf.io.decode_jpeg(file.getvalue(), 3, dct_method='INTEGER_ACCURATE')",
        torch=JPEG + "data = torch.tensor(list(file.getvalue()), dtype=torch.uint8)\n"
        "torchvision.io.decode_jpeg(data).permute(1, 2, 0)",
        naive_keras=JPEG + "tf.io.decode_image(file.getvalue(), 3)",
        symptom="most pixels are a few grey levels off",
        fix="tf.io.decode_jpeg(..., dct_method='INTEGER_ACCURATE'); decode_image has "
        "no such argument",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.write_jpeg",
        "the default quality when writing JPEG",
        "preprocessing",
        "other default",
        keras="import io\n"
        "from PIL import Image\n"
        "data = tf.io.encode_jpeg(tf.cast(image, tf.uint8), quality=75).numpy()\n"
        "np.asarray(Image.open(io.BytesIO(data)))",
        torch="import io\n"
        "from PIL import Image\n"
        "pixels = image.permute(2, 0, 1).byte()\n"
        "data = bytearray(torchvision.io.encode_jpeg(pixels).numpy())\n"
        "np.asarray(Image.open(io.BytesIO(data)))",
        naive_keras="import io\n"
        "from PIL import Image\n"
        "data = tf.io.encode_jpeg(tf.cast(image, tf.uint8)).numpy()\n"
        "np.asarray(Image.open(io.BytesIO(data)))",
        symptom="data sets written by the two have other artefacts",
        fix="name the quality: TensorFlow's default is 95, torchvision's and Pillow's "
        "75; at the same quality the pixels are the same",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.png",
        "decoding PNG",
        "preprocessing",
        "other name",
        keras="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'PNG')\n"
        "tf.io.decode_png(file.getvalue(), 3)",
        torch="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'PNG')\n"
        "np.asarray(Image.open(file).convert('RGB'))",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.png_alpha",
        "a PNG with an alpha channel read as RGB",
        "preprocessing",
        "same",
        keras="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'PNG')\n"
        "tf.io.decode_png(file.getvalue(), channels=3)",
        torch="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'PNG')\n"
        "np.asarray(Image.open(file).convert('RGB'))",
        inputs={"image": Input((9, 7, 4), "array", "integers", scale=256)},
        device="cpu",
        note="People expect one side to blend with a background: both just drop the "
        "channel, and what was hidden under it is seen.",
    ),
    Row(
        "preprocessing.exif",
        "a JPEG that says it should be turned",
        "preprocessing",
        "same",
        keras="import io\n"
        "from PIL import Image\n"
        "file, exif = io.BytesIO(), Image.Exif()\n"
        "exif[0x0112] = 6\n"
        "Image.fromarray(np.uint8(image)).save(file, 'JPEG', exif=exif)\n"
        "tf.io.decode_jpeg(file.getvalue(), 3, dct_method='INTEGER_ACCURATE')",
        torch="import io\n"
        "from PIL import Image\n"
        "file, exif = io.BytesIO(), Image.Exif()\n"
        "exif[0x0112] = 6\n"
        "Image.fromarray(np.uint8(image)).save(file, 'JPEG', exif=exif)\n"
        "np.asarray(Image.open(file))",
        inputs={"image": IMAGE},
        device="cpu",
        note="Viewers turn such a picture, neither framework does: "
        "PIL.ImageOps.exif_transpose does, and torchvision.io with "
        "apply_exif_orientation=True.",
    ),
    Row(
        "preprocessing.gif",
        "tf.io.decode_image on a GIF",
        "preprocessing",
        "other meaning",
        keras="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'GIF')\n"
        "tf.io.decode_image(file.getvalue(), 3, expand_animations=False)",
        torch="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'GIF')\n"
        "np.asarray(Image.open(file).convert('RGB'))",
        naive_keras="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'GIF')\n"
        "tf.io.decode_image(file.getvalue(), 3)",
        shows="shape",
        symptom="one axis more, of the frames; in a pipeline the shape is unknown",
        fix="expand_animations=False takes the first frame",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.load_img",
        "load_img(target_size=...) and Resize on a Pillow image",
        "preprocessing",
        "other default",
        keras="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'PNG')\n"
        "image = keras.utils.load_img(\n"
        "    file, target_size=(24, 24), interpolation='bilinear'\n"
        ")\n"
        "keras.utils.img_to_array(image)",
        torch="from PIL import Image\n"
        "from torchvision.transforms import v2\n"
        "np.asarray(v2.Resize((24, 24))(Image.fromarray(np.uint8(image))))",
        naive_keras="import io\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.fromarray(np.uint8(image)).save(file, 'PNG')\n"
        "image = keras.utils.load_img(file, target_size=(24, 24))\n"
        "keras.utils.img_to_array(image)",
        symptom="badly aliased images: most pixels of the original are skipped",
        fix="interpolation='bilinear': the default is 'nearest'",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.resize_pillow",
        "resizing in TensorFlow and on a Pillow image",
        "preprocessing",
        "other meaning",
        keras="image = tf.image.resize(image, (24, 24), antialias=True)\n"
        "tf.cast(tf.round(image), tf.uint8)",
        torch="from PIL import Image\n"
        "from torchvision.transforms import v2\n"
        "np.asarray(v2.Resize((24, 24))(Image.fromarray(np.uint8(image))))",
        naive_keras="tf.image.resize(image, (24, 24))",
        symptom="aliased images: Pillow always smooths when it shrinks",
        fix="antialias=True, then round to whole grey levels; for the very same pixels "
        "resize with Pillow on both sides (load_img)",
        inputs={"image": IMAGE},
        limit=0.005,
        limit_reason="Pillow rounds to whole grey levels after the rows and again "
        "after the columns: single pixels are one level off",
        device="cpu",
    ),
    Row(
        "preprocessing.resize_shorter_side",
        "Resize(32) with CenterCrop(32) keeps the proportions",
        "preprocessing",
        "other meaning",
        keras="height, width = images.shape[1:3]\n"
        "images = tf.image.resize(images, (32, int(32 * width / height)), "
        "antialias=True)\n"
        "left = round((images.shape[2] - 32) / 2)\n"
        "images[:, :, left : left + 32]",
        torch="from torchvision.transforms import v2\n"
        "v2.Compose([v2.Resize(32), v2.CenterCrop(32)])(images)",
        naive_keras="tf.image.resize(images, (32, 32), antialias=True)",
        symptom="everything is squeezed into a square",
        fix="resize the shorter side to 32 and the longer one in proportion, then crop",
        inputs={"images": maps(2, 61, 83, 3)},
        dtypes=("float32",),
        note="crop_to_aspect_ratio of layers.Resizing crops first and resizes then, "
        "which gives other pixels. tf.image.resize returns float32 always.",
    ),
    Row(
        "preprocessing.center_crop",
        "the middle of an image with an odd margin",
        "preprocessing",
        "other meaning",
        keras="height, width = images.shape[1:3]\n"
        "top, left = round((height - 32) / 2), round((width - 32) / 2)\n"
        "images[:, top : top + 32, left : left + 32]",
        torch="torchvision.transforms.v2.CenterCrop(32)(images)",
        naive_keras="layers.CenterCrop(32, 32)(images)",
        symptom="shifted by one pixel where half the margin is 1.5, 3.5, ...",
        fix="cut by hand at Python's round(), which takes 1.5 to 2 and 2.5 to 2; Keras "
        "rounds down",
        operations=("center_crop",),
        inputs={"images": maps(2, 35, 37, 3)},
    ),
    Row(
        "preprocessing.channels_first",
        "an image from (H, W, C) to (C, H, W)",
        "preprocessing",
        "other layout",
        keras="keras.ops.transpose(image, (2, 0, 1))",
        torch="image.permute(2, 0, 1)",
        naive_torch="image.reshape(3, 9, 7)",
        symptom="the right shape, and the colours in stripes across the image",
        fix="permute or transpose moves axes, reshape and view do not",
        inputs={"image": Input((9, 7, 3))},
    ),
    Row(
        "preprocessing.to_tensor",
        "uint8 images to numbers from 0 to 1",
        "preprocessing",
        "other meaning",
        keras="tf.cast(image, dtype) / 255",
        torch="pixels = np.uint8(image)\n"
        "torchvision.transforms.ToTensor()(pixels).permute(1, 2, 0)",
        naive_keras="tf.cast(image, dtype)",
        symptom="inputs 255 times too large, the loss is huge or NaN",
        fix="divide by 255, or tf.image.convert_image_dtype: tf.cast and img_to_array "
        "only change the type",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.to_tensor_float",
        "ToTensor on an array of floats",
        "preprocessing",
        "other meaning",
        keras="tf.cast(image, dtype) / 255",
        torch="pixels = image.to(torch.get_default_dtype()).numpy()\n"
        "torchvision.transforms.ToTensor()(pixels / 255).permute(1, 2, 0)",
        naive_torch="pixels = image.to(torch.get_default_dtype()).numpy()\n"
        "torchvision.transforms.ToTensor()(pixels).permute(1, 2, 0)",
        symptom="inputs 255 times too large",
        fix="divide by hand: ToTensor only scales uint8",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.to_dtype",
        "v2.ToDtype and tf.image.convert_image_dtype",
        "preprocessing",
        "other default",
        keras="images = tf.cast(images, tf.uint8)\n"
        "tf.image.convert_image_dtype(images, dtype)",
        torch="from torchvision.transforms import v2\n"
        "v2.ToDtype(getattr(torch, dtype), scale=True)(images.byte())",
        naive_torch="from torchvision.transforms import v2\n"
        "v2.ToDtype(getattr(torch, dtype))(images.byte())",
        symptom="inputs 255 times too large",
        fix="scale=True",
        inputs={"images": PIXELS},
    ),
    Row(
        "preprocessing.rescaling",
        "layers.Rescaling",
        "preprocessing",
        "other name",
        keras="layers.Rescaling(1 / 127.5, offset=-1)(images)",
        torch="images / 127.5 - 1",
        inputs={"images": maps(2, 9, 7, 3, scale=64, shift=128)},
        dtypes=("float32",),
        note="In a float64 model the layer still rounds its scale to float32.",
    ),
    Row(
        "preprocessing.to_uint8",
        "numbers from 0 to 1 back to uint8",
        "preprocessing",
        "other meaning",
        keras="tf.cast(tf.round(images * 255), tf.uint8)",
        torch="(images * 255).round().to(torch.uint8)",
        naive_torch="from torchvision.transforms import v2\n"
        "v2.ToDtype(torch.uint8, scale=True)(images)",
        symptom="many pixels one grey level off",
        fix="round by hand: tf.image.convert_image_dtype, v2.ToDtype and ToPILImage "
        "cut off what stands behind the point, after three different scalings",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform")},
        device="cpu",
    ),
    Row(
        "preprocessing.normalize",
        "layers.Normalization and v2.Normalize",
        "preprocessing",
        "other meaning",
        keras="""\
mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
layers.Normalization(mean=mean, variance=std**2)(images)""",
        torch="""\
from torchvision.transforms import v2
v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(images)""",
        naive_keras="""\
mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
layers.Normalization(mean=mean, variance=std)(images)""",
        symptom="contrast too low: divided by the root of the standard deviation",
        fix="give the square: Keras wants the variance, torchvision its root",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform")},
        note="Lists in place of the arrays would be rounded to float32.",
    ),
    Row(
        "preprocessing.standardize_image",
        "each image to mean 0 and variance 1",
        "preprocessing",
        "missing on one side",
        keras="tf.image.per_image_standardization(images)",
        torch="axes = (1, 2, 3)\n"
        "std, mean = torch.std_mean(images, axes, correction=0, keepdim=True)\n"
        "floor = images[0].numel() ** -0.5\n"
        "(images - mean) / std.clamp(min=floor)",
        naive_torch="axes = (1, 2, 3)\n"
        "std, mean = torch.std_mean(images, axes, keepdim=True)\n"
        "(images - mean) / std",
        symptom="small images come out a little too flat; a constant one is NaN",
        fix="correction=0, since torch.std divides by one less, and the floor for the "
        "deviation that TensorFlow has",
        inputs={"images": maps(2, 9, 7, 3, scale=64, shift=128)},
        dtypes=("float32",),
        note="TensorFlow casts to float32.",
    ),
    Row(
        "preprocessing.grayscale",
        "RGB to grey on whole numbers",
        "preprocessing",
        "other meaning",
        keras="tf.image.rgb_to_grayscale(tf.cast(images, dtype))",
        torch="from torchvision.transforms.v2 import functional\n"
        "images = images.to(torch.get_default_dtype())\n"
        "functional.rgb_to_grayscale(images)",
        naive_torch="from torchvision.transforms.v2 import functional\n"
        "functional.rgb_to_grayscale(images.byte())",
        symptom="pixels up to one grey level off",
        fix="float images on both sides: TensorFlow rounds, torchvision cuts off",
        inputs={"images": PIXELS},
        dtypes=("float32",),
        note="TensorFlow computes it in float32, whatever the images are.",
    ),
    Row(
        "preprocessing.grayscale_pillow",
        "RGB to grey as Pillow's convert('L') does",
        "preprocessing",
        "other meaning",
        keras="weights = tf.constant([[19595], [38470], [7471]], tf.int64)\n"
        "grey = tf.linalg.matmul(image, weights)\n"
        "tf.bitwise.right_shift(grey[..., 0] + 0x8000, tf.constant(16, tf.int64))",
        torch="from PIL import Image\n"
        "np.asarray(Image.fromarray(np.uint8(image)).convert('L'))",
        naive_keras="tf.image.rgb_to_grayscale(tf.cast(image, tf.uint8))[..., 0]",
        symptom="pixels up to one grey level off",
        fix="Pillow's whole-number weights, of 65536",
        inputs={"image": IMAGE},
        device="cpu",
    ),
    Row(
        "preprocessing.preprocess_caffe",
        "preprocess_input of ResNet50 and VGG",
        "preprocessing",
        "other meaning",
        keras="keras.applications.resnet50.preprocess_input(images)",
        torch="mean = torch.tensor([103.939, 116.779, 123.68])\n"
        "images.flip(1) - mean.view(3, 1, 1)",
        naive_torch="from torchvision.transforms import v2\n"
        "mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]\n"
        "v2.Normalize(mean, std)(images / 255)",
        symptom="red and blue swapped and numbers some 58 times too small: Keras's "
        "weights give nonsense",
        fix="BGR, from 0 to 255, only the mean taken off, as Caffe's networks had it",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform", scale=255)},
    ),
    Row(
        "preprocessing.preprocess_torch",
        "preprocess_input of DenseNet",
        "preprocessing",
        "same",
        keras="keras.applications.densenet.preprocess_input(images)",
        torch="from torchvision.transforms import v2\n"
        "mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]\n"
        "v2.Normalize(mean, std)(images / 255)",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform", scale=255)},
        note="People believe that all of keras.applications wants BGR: DenseNet is "
        "prepared as torchvision's networks are.",
    ),
    Row(
        "preprocessing.preprocess_tf",
        "preprocess_input of MobileNet, Inception and Xception",
        "preprocessing",
        "other meaning",
        keras="keras.applications.mobilenet_v2.preprocess_input(images)",
        torch="images / 127.5 - 1",
        naive_torch="from torchvision.transforms import v2\n"
        "mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]\n"
        "v2.Normalize(mean, std)(images / 255)",
        symptom="inputs twice too wide: Keras's weights give worse answers",
        fix="from -1 to 1, without the mean of ImageNet",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform", scale=255)},
    ),
    Row(
        "preprocessing.preprocess_nothing",
        "preprocess_input of EfficientNet, MobileNetV3 and ConvNeXt",
        "preprocessing",
        "other meaning",
        keras="keras.applications.efficientnet.preprocess_input(images)",
        torch="images",
        naive_torch="from torchvision.transforms import v2\n"
        "mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]\n"
        "v2.Normalize(mean, std)(images / 255)",
        symptom="normalised twice: the network does it itself",
        fix="give Keras's network the numbers from 0 to 255; the function does nothing",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform", scale=255)},
    ),
    Row(
        "preprocessing.preprocess_in_place",
        "preprocess_input changes the array that it is given",
        "preprocessing",
        "other meaning",
        keras="from keras.applications.resnet50 import preprocess_input\n"
        "pixels = np.array(images)\n"
        "first = preprocess_input(pixels.copy())\n"
        "second = preprocess_input(pixels.copy())\n"
        "first, second",
        torch="mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)\n"
        "first = images.flip(1) - mean\n"
        "second = images.flip(1) - mean\n"
        "first, second",
        naive_keras="from keras.applications.resnet50 import preprocess_input\n"
        "pixels = np.array(images)\n"
        "first = preprocess_input(pixels)\n"
        "second = preprocess_input(pixels)\n"
        "first, second",
        symptom="the second call, or whatever else uses the array, works on images "
        "that are prepared already",
        fix="give it a copy, or a tensor: only NumPy arrays of floats are changed",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform", scale=255)},
        device="cpu",
    ),
    Row(
        "preprocessing.random_flip",
        "RandomFlip() turns images upside down",
        "preprocessing",
        "other default",
        keras="layers.RandomFlip('horizontal')(images, training=True)",
        torch="flip = torchvision.transforms.v2.RandomHorizontalFlip()\n"
        "torch.stack([flip(image) for image in images])",
        naive_keras="layers.RandomFlip()(images, training=True)",
        symptom="half of the training images stand on their heads",
        fix="RandomFlip('horizontal'): the default is 'horizontal_and_vertical'",
        inputs={
            # Their columns are alike: a horizontal flip changes nothing.
            "images": given([[[[0.0]] * 5, [[1.0]] * 5, [[2.0]] * 5]] * 16, "maps")
        },
    ),
    Row(
        "preprocessing.flip_per_image",
        "one draw for each image, or one for the batch",
        "preprocessing",
        "other meaning",
        keras="images = layers.RandomFlip('horizontal')(images, training=True)\n"
        "keras.ops.any(images != images[:1])",
        torch="flip = torchvision.transforms.v2.RandomHorizontalFlip()\n"
        "images = torch.stack([flip(image) for image in images])\n"
        "(images != images[:1]).any()",
        naive_torch="flip = torchvision.transforms.v2.RandomHorizontalFlip()\n"
        "images = flip(images)\n"
        "(images != images[:1]).any()",
        symptom="all images of a batch are flipped, or none: much less variety",
        fix="transform in the Dataset, before the batches are made",
        inputs={"images": given([[[[0.0], [1.0], [2.0]]]] * 24, "maps")},
        note="The value is whether equal images came out different.",
    ),
    Row(
        "preprocessing.crop_per_image",
        "layers.RandomCrop crops a whole batch alike",
        "preprocessing",
        "other meaning",
        keras="crop = layers.RandomCrop(5, 5)\n"
        "images = tf.data.Dataset.from_tensor_slices(images)\n"
        "images = images.map(crop)\n"
        "images = next(iter(images.batch(24)))\n"
        "tf.reduce_any(images != images[:1])",
        torch="crop = torchvision.transforms.v2.RandomCrop(5)\n"
        "images = torch.stack([crop(image) for image in images])\n"
        "(images != images[:1]).any()",
        naive_keras="crop = layers.RandomCrop(5, 5)\n"
        "images = crop(images, training=True)\n"
        "tf.reduce_any(images != images[:1])",
        symptom="all images of a batch are cut at the same place",
        fix="map the layer over single images, before batch(); torchvision's does the "
        "same to a batch, so there too before the batches are made",
        inputs={
            "images": given(
                [[[[r + 0.1 * c] for c in range(9)] for r in range(9)]] * 24, "maps"
            )
        },
        dtypes=("float32",),
        note="The value is whether equal images came out different.",
    ),
    Row(
        "preprocessing.crop_with_padding",
        "the random crop of CIFAR's recipes",
        "preprocessing",
        "missing on one side",
        keras="pad, crop = layers.ZeroPadding2D(4), layers.RandomCrop(8, 8)\n"
        "crops = [crop(pad(images), training=True) for _ in range(4)]\n"
        "keras.ops.any(keras.ops.stack(crops) != images)",
        torch="crop = torchvision.transforms.v2.RandomCrop(8, padding=4)\n"
        "crops = [crop(images) for _ in range(4)]\n"
        "(torch.stack(crops) != images).any()",
        naive_keras="crop = layers.RandomCrop(8, 8)\n"
        "crops = [crop(images, training=True) for _ in range(4)]\n"
        "keras.ops.any(keras.ops.stack(crops) != images)",
        symptom="images that are as large as the crop are never moved",
        fix="pad first: the layer has no padding of its own",
        inputs={"images": maps(1, 8, 8, 3)},
        note="The value is whether anything moved. The two never draw the same "
        "places, whatever the seed: to compare them, draw the places once with NumPy.",
    ),
    Row(
        "preprocessing.rotation_unit",
        "how far RandomRotation turns",
        "preprocessing",
        "other meaning",
        keras="images = layers.ZeroPadding2D(2)(images)\n"
        "turn = layers.RandomRotation((0.1, 0.1), fill_mode='constant')\n"
        "turn(images, training=True)",
        torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (2, 2, 2, 2))\n"
        "turn = v2.RandomRotation(\n"
        "    (36, 36), interpolation=v2.InterpolationMode.BILINEAR\n"
        ")\n"
        "turn(images)",
        naive_torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (2, 2, 2, 2))\n"
        "turn = v2.RandomRotation(\n"
        "    (10, 10), interpolation=v2.InterpolationMode.BILINEAR\n"
        ")\n"
        "turn(images)",
        symptom="0.1 turns up to 36 degrees where 10 were meant",
        fix="degrees = 360 * factor: Keras counts full turns; both turn anticlockwise",
        inputs={"images": maps(2, 24, 24, 3)},
        dtypes=("float32",),
    ),
    Row(
        "preprocessing.rotation_fill",
        "what RandomRotation puts into the corners",
        "preprocessing",
        "other default",
        keras="images = layers.ZeroPadding2D(2)(images)\n"
        "turn = layers.RandomRotation((0.1, 0.1), fill_mode='constant')\n"
        "turn(images, training=True)",
        torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (2, 2, 2, 2))\n"
        "turn = v2.RandomRotation(\n"
        "    (36, 36), interpolation=v2.InterpolationMode.BILINEAR\n"
        ")\n"
        "turn(images)",
        naive_keras="images = layers.ZeroPadding2D(2)(images)\n"
        "turn = layers.RandomRotation((0.1, 0.1))\n"
        "turn(images, training=True)",
        symptom="mirrored pieces of the image in the corners instead of black",
        fix="fill_mode='constant': the default is 'reflect'",
        inputs={"images": maps(2, 24, 24, 3)},
        dtypes=("float32",),
        note="Without a border of zeros the outermost pixels differ still: the two "
        "blend them with the fill in different ways.",
    ),
    Row(
        "preprocessing.rotation_interpolation",
        "how RandomRotation interpolates",
        "preprocessing",
        "other default",
        keras="images = layers.ZeroPadding2D(2)(images)\n"
        "turn = layers.RandomRotation((0.1, 0.1), fill_mode='constant')\n"
        "turn(images, training=True)",
        torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (2, 2, 2, 2))\n"
        "turn = v2.RandomRotation(\n"
        "    (36, 36), interpolation=v2.InterpolationMode.BILINEAR\n"
        ")\n"
        "turn(images)",
        naive_torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (2, 2, 2, 2))\n"
        "v2.RandomRotation((36, 36))(images)",
        symptom="jagged edges",
        fix="interpolation=InterpolationMode.BILINEAR: torchvision's default is the "
        "nearest pixel",
        inputs={"images": maps(2, 24, 24, 3)},
        dtypes=("float32",),
    ),
    Row(
        "preprocessing.zoom",
        "which way RandomZoom goes",
        "preprocessing",
        "other meaning",
        keras="images = layers.ZeroPadding2D(4)(images)\n"
        "zoom = layers.RandomZoom((-0.2, -0.2), fill_mode='constant')\n"
        "zoom(images, training=True)",
        torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (4, 4, 4, 4))\n"
        "zoom = v2.RandomAffine(\n"
        "    0, scale=(1.25, 1.25), interpolation=v2.InterpolationMode.BILINEAR\n"
        ")\n"
        "zoom(images)",
        naive_torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (4, 4, 4, 4))\n"
        "zoom = v2.RandomAffine(\n"
        "    0, scale=(0.8, 0.8), interpolation=v2.InterpolationMode.BILINEAR\n"
        ")\n"
        "zoom(images)",
        symptom="smaller where larger was meant",
        fix="scale = 1 / (1 + factor): a negative factor of Keras enlarges",
        inputs={"images": maps(2, 24, 24, 3)},
        dtypes=("float32",),
    ),
    Row(
        "preprocessing.translation",
        "layers.RandomTranslation and the shift of v2.functional.affine",
        "preprocessing",
        "other meaning",
        keras="images = layers.ZeroPadding2D(2)(images)\n"
        "move = layers.RandomTranslation((0.25, 0.25), (0.1, 0.1), "
        "fill_mode='constant')\n"
        "move(images, training=True)",
        torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (2, 2, 2, 2))\n"
        "down, right = 0.25 * images.shape[2], 0.1 * images.shape[3]\n"
        "v2.functional.affine(\n"
        "    images, 0, [right, down], 1, [0, 0],\n"
        "    interpolation=v2.InterpolationMode.BILINEAR,\n"
        ")",
        naive_torch="from torchvision.transforms import v2\n"
        "images = F.pad(images, (2, 2, 2, 2))\n"
        "down, right = 0.25 * images.shape[2], 0.1 * images.shape[3]\n"
        "v2.functional.affine(\n"
        "    images, 0, [down, right], 1, [0, 0],\n"
        "    interpolation=v2.InterpolationMode.BILINEAR,\n"
        ")",
        symptom="moved sideways where down was meant",
        fix="Keras names the height first, torchvision the width; Keras in shares of "
        "the image, torchvision's function in pixels",
        inputs={"images": maps(2, 24, 24, 3)},
        dtypes=("float32",),
    ),
    Row(
        "preprocessing.brightness",
        "RandomBrightness adds, ColorJitter multiplies",
        "preprocessing",
        "other meaning",
        keras="lighter = layers.RandomBrightness((0.2, 0.2), value_range=(0, 1))\n"
        "lighter(images, training=True)",
        torch="(images + 0.2).clamp(0, 1)",
        naive_torch="from torchvision.transforms import v2\n"
        "v2.ColorJitter(brightness=(1.2, 1.2))(images)",
        symptom="dark pixels hardly change, bright ones more",
        fix="add factor * the range of values, or scale in Keras too",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform")},
        dtypes=("float32",),
        note="The layer draws its factor in float32.",
    ),
    Row(
        "preprocessing.contrast",
        "contrast about the mean of each channel, or of the grey image",
        "preprocessing",
        "other meaning",
        keras="tf.image.adjust_contrast(images, 1.2)",
        torch="mean = images.mean((2, 3), keepdim=True)\n(images - mean) * 1.2 + mean",
        naive_torch="from torchvision.transforms import v2\n"
        "v2.ColorJitter(contrast=(1.2, 1.2))(images)",
        symptom="colours are pushed apart that TensorFlow leaves where they are; "
        "values are cut off at 0 and 1",
        fix="the mean of each channel by itself, and no clamp (layers.RandomContrast "
        "clamps)",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform")},
        dtypes=("float32",),
        note="TensorFlow computes it in float32.",
    ),
    Row(
        "preprocessing.saturation",
        "saturation in HSV, or by blending with the grey image",
        "preprocessing",
        "other meaning",
        keras="grey = tf.image.rgb_to_grayscale(images)\n"
        "tf.clip_by_value(grey + 1.5 * (images - grey), 0, 1)",
        torch="from torchvision.transforms import v2\n"
        "v2.ColorJitter(saturation=(1.5, 1.5))(images)",
        naive_keras="tf.image.adjust_saturation(images, 1.5)",
        symptom="other colours for the same factor",
        fix="blend with the grey image by hand, as torchvision does",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform")},
        dtypes=("float32",),
    ),
    Row(
        "preprocessing.hue",
        "tf.image.adjust_hue and v2.functional.adjust_hue",
        "preprocessing",
        "same",
        keras="tf.image.adjust_hue(images, 0.1)",
        torch="torchvision.transforms.v2.functional.adjust_hue(images, 0.1)",
        inputs={"images": Input((2, 9, 7, 3), "maps", "uniform")},
        dtypes=("float32",),
        note="People expect it to differ as saturation does; both turn the colour "
        "circle by a share of a full turn.",
    ),
    Row(
        "preprocessing.random_resized_crop",
        "the random resized crop of ImageNet's recipes",
        "preprocessing",
        "missing on one side",
        keras="top, left, height, width = 5, 8, 30, 40\n"
        "images = images[:, top : top + height, left : left + width]\n"
        "tf.image.resize(images, (24, 24), antialias=True)",
        torch="from torchvision.transforms import v2\n"
        "top, left, height, width = 5, 8, 30, 40\n"
        "v2.functional.resized_crop(images, top, left, height, width, [24, 24])",
        naive_keras="top, left, height, width = 5, 8, 30, 40\n"
        "rows, columns = images.shape[1] - 1, images.shape[2] - 1\n"
        "bottom, right = top + height, left + width\n"
        "box = [top / rows, left / columns, bottom / rows, right / columns]\n"
        "tf.image.crop_and_resize(images, [box] * 2, [0, 1], (24, 24))",
        symptom="aliased, and the box is stretched by a part of a pixel",
        fix="slice, then resize with antialias=True; crop_and_resize does not smooth "
        "and aligns corners",
        inputs={"images": maps(2, 61, 83, 3)},
        dtypes=("float32",),
        note="tf.image.sample_distorted_bounding_box draws the box where torchvision "
        "uses RandomResizedCrop.get_params; their smallest areas differ (0.05, 0.08).",
    ),
)
