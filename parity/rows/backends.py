"""The same Keras code on other backends than TensorFlow, and the order of imports."""

from parity.rows.record import BACKENDS, Row, array, given, integers, kernel, maps

NAN = float("nan")
EVEN_AND_ODD = {"even": maps(2, 8, 10, 3), "odd": maps(2, 9, 7, 3)}
PRODUCT = {"features": integers(5, 6, below=9), "weights": integers(6, 4, below=7)}


def on_each(name: str, what: str, category: str, **rest: object) -> list[Row]:
    """Returns the same row for each backend."""
    return [
        Row(f"{name}_{x}", f"{what}, on {x}", "backends", category, backend=x, **rest)
        for x in BACKENDS
    ]


ROWS: tuple[Row, ...] = (
    *on_each(
        "backends.conv_same",
        "convolutions padded by 'same'",
        "same",
        keras="""\
conv, depthwise_conv = keras.ops.conv, keras.ops.depthwise_conv
[
    conv(even, kernel, strides=2, padding="same"),
    conv(odd, kernel, strides=2, padding="same"),
    conv(even, kernel, padding="same", dilation_rate=2),
    depthwise_conv(even, filters, strides=2, padding="same"),
]""",
        operations=("conv2d", "depthwise_conv2d"),
        inputs=EVEN_AND_ODD
        | {"kernel": kernel(4, 3, 3, 4), "filters": array(4, 3, 3, 1)},
        note="Keras pads as TensorFlow does on every backend",
    ),
    *on_each(
        "backends.conv_transpose",
        "transposed convolutions",
        "same",
        keras="""\
conv_transpose = keras.ops.conv_transpose
[
    conv_transpose(odd, kernel, 2, padding="same"),
    conv_transpose(even, kernel, 2, padding="same", output_padding=1),
    conv_transpose(even, kernel, 2, padding="valid", output_padding=1),
]""",
        operations=("conv2d_transpose",),
        inputs=EVEN_AND_ODD | {"kernel": array(3, 4, 5, 3, scale=0.2)},
        note="also where PyTorch's own output_padding aligns otherwise",
    ),
    *on_each(
        "backends.max_pool_same",
        "max-pooling padded by 'same'",
        "same",
        keras="""\
max_pool = keras.ops.max_pool
[
    max_pool(even, 2, 2, padding="same"),
    max_pool(odd - 9, 3, 2, padding="same"),
    max_pool(even - 9, 4, 2, padding="same"),
]""",
        operations=("max_pool2d",),
        inputs=EVEN_AND_ODD,
        note="no border of zeros comes through where all values are negative",
    ),
    Row(
        "backends.average_pool_same_torch",
        "average-pooling padded by 'same' on one side only, on torch",
        "backends",
        "other meaning",
        keras="""\
def pool(x):
    x = keras.ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return keras.ops.average_pool(x, 3, 2)
pool(images) / pool(keras.ops.ones_like(images))""",
        naive_keras='layers.AveragePooling2D(3, 2, padding="same")(images)',
        symptom="the last row and column differ at even sizes",
        fix="pad by hand and divide by the average of ones: Keras repeats the border "
        "on the torch backend and counts it",
        operations=("avg_pool2d",),
        inputs={"images": maps(2, 8, 10, 3)},
        backend="torch",
    ),
    Row(
        "backends.average_pool_same_jax",
        "average-pooling padded by 'same' on one side only, on jax",
        "backends",
        "same",
        keras='layers.AveragePooling2D(3, 2, padding="same")(images)',
        operations=("avg_pool2d",),
        inputs={"images": maps(2, 8, 10, 3)},
        backend="jax",
        note="the torch backend alone counts the padding",
    ),
    Row(
        "backends.pool_default_strides_jax",
        "pooling functions without strides, on jax",
        "backends",
        "other meaning",
        keras="keras.ops.average_pool(images, 2, 2)",
        naive_keras="keras.ops.average_pool(images, 2)",
        symptom="an error about window strides, on this backend only",
        fix="give the strides; layers have them from the pool size on every backend",
        operations=("avg_pool2d", "max_pool2d"),
        inputs={"images": maps(2, 8, 10, 3)},
        shows="TypeError",
        says="inconsistent window_strides",
        backend="jax",
    ),
    *on_each(
        "backends.normalization",
        "normalisation of centred values",
        "same",
        keras="""\
norm = layers.BatchNormalization(momentum=0.5)
[
    norm(images, training=True),
    norm.moving_variance,
    layers.LayerNormalization()(images),
    layers.GroupNormalization(2)(images),
]""",
        operations=("batch_norm_training", "layer_norm", "group_norm"),
        inputs={"images": maps(4, 6, 5, 4)},
        note="the running variance is the biased one on every backend",
    ),
    Row(
        "backends.batch_norm_large_mean_torch",
        "batch normalisation of values far from zero, on torch",
        "backends",
        "other meaning",
        keras="layers.BatchNormalization()(images - 1000.0, training=True)",
        naive_keras="layers.BatchNormalization()(images, training=True)",
        symptom="outputs too large or NaN where the mean is large beside the deviation",
        fix="subtract a constant first: here the variance is the mean of squares less "
        "the squared mean, whose digits cancel",
        operations=("batch_norm_training",),
        inputs={"images": maps(4, 6, 5, 3, shift=1000.0)},
        backend="torch",
    ),
    *on_each(
        "backends.resize_bicubic",
        "bicubic resizing without antialiasing",
        "other meaning",
        keras='keras.ops.image.resize(images, (5, 6), interpolation="bilinear")',
        naive_keras='keras.ops.image.resize(images, (5, 6), interpolation="bicubic")',
        symptom="other pixels: each backend has a cubic of its own",
        fix="bilinear; or antialias=True, with which the bicubic ones agree",
        operations=("resize",),
        inputs={"images": maps(2, 8, 10, 3)},
    ),
    *on_each(
        "backends.resize",
        "other resizing",
        "same",
        keras="""\
resize = keras.ops.image.resize
[
    resize(images, (5, 6), interpolation="nearest"),
    resize(images, (5, 6), interpolation="bilinear"),
    resize(images, (13, 17), interpolation="bilinear"),
    resize(images, (5, 6), interpolation="bilinear", antialias=True),
    resize(images, (13, 17), interpolation="bicubic", antialias=True),
]""",
        operations=("resize",),
        inputs={"images": maps(2, 8, 10, 3)},
    ),
    Row(
        "backends.resize_lanczos_torch",
        "resizing by Lanczos, on torch",
        "backends",
        "missing on one side",
        keras="""\
resize = keras.ops.image.resize
resize(images, (5, 6), interpolation="bicubic", antialias=True)""",
        naive_keras="""\
resize = keras.ops.image.resize
resize(images, (5, 6), interpolation="lanczos3", antialias=True)""",
        symptom="an error: this backend has no Lanczos",
        fix="bicubic with antialias=True, everywhere",
        operations=("resize",),
        inputs={"images": maps(2, 8, 10, 3)},
        shows="ValueError",
        says="Lanczos interpolation is not supported",
        backend="torch",
    ),
    *on_each(
        "backends.cross_entropy_probabilities",
        "cross entropy of positive scores that are no probabilities",
        "other meaning",
        keras="""\
probabilities = scores / keras.ops.sum(scores, -1, keepdims=True)
keras.losses.sparse_categorical_crossentropy(labels, probabilities)""",
        naive_keras="keras.losses.sparse_categorical_crossentropy(labels, scores)",
        symptom="another loss: TensorFlow clips before it normalises, the others after",
        fix="divide by the sum; or give logits and from_logits=True",
        operations=("cross_entropy",),
        inputs={
            "scores": given([[2.0, 3.0, 9.0], [0.5, 4.0, 0.6], [1.0, 7.0, 0.1]]),
            "labels": given([2, 0, 1]),
        },
    ),
    *on_each(
        "backends.softmax_output",
        "training a network that ends in a softmax",
        "other meaning",
        keras="""\
model = keras.Sequential([layers.Dense(3)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
model.build((None, 2))
model.set_weights([weights, bias])
[model.train_on_batch(features, labels), *model.get_weights()]""",
        naive_keras="""\
model = keras.Sequential([layers.Dense(3, activation="softmax")])
loss = "sparse_categorical_crossentropy"
model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
model.build((None, 2))
model.set_weights([weights, bias])
[model.train_on_batch(features, labels), *model.get_weights()]""",
        symptom="confidently wrong samples give no gradient; the loss is capped",
        fix="from_logits=True: TensorFlow alone finds the logits behind a softmax",
        operations=("cross_entropy",),
        inputs={
            "features": given([[1.0, 1.0]]),
            "weights": given([[0.0, 15.0, 2.0], [0.0, 15.0, 1.0]]),
            "bias": given([0.0, 0.0, 0.0]),
            "labels": given([0]),
        },
    ),
    Row(
        "backends.one_hot_out_of_range_torch",
        "one-hot vectors of labels that are no class, on torch",
        "backends",
        "other meaning",
        keras="""\
classes = keras.ops.arange(3)
keras.ops.cast(keras.ops.equal(labels[:, None], classes), "float32")""",
        naive_keras="keras.ops.one_hot(labels, 3)",
        symptom="an error, where other backends give a row of zeros",
        fix="check the labels; or compare them with the classes, for the zeros",
        operations=("one_hot",),
        inputs={"labels": given([0, 3, 2])},
        shows="RuntimeError",
        says="smaller than num_classes",
        backend="torch",
    ),
    *on_each(
        "backends.one_hot_negative",
        "one-hot vectors of the label -1",
        "same",
        keras="keras.ops.one_hot(labels, 3)",
        operations=("one_hot",),
        inputs={"labels": given([0, -1, 2])},
        note="a row of zeros everywhere, and no error",
    ),
    *on_each(
        "backends.argmax_nan",
        "the place of the largest number beside NaN",
        "other meaning",
        keras="""\
scores = keras.ops.where(keras.ops.isnan(scores), -np.inf, scores)
keras.ops.argmax(scores, -1)""",
        naive_keras="keras.ops.argmax(scores, -1)",
        symptom="TensorFlow passes over NaN where the others point at it",
        fix="replace NaN first",
        inputs={"scores": given([[1.0, NAN, 2.0], [1.0, 3.0, 2.0]])},
    ),
    Row(
        "backends.top_k_ties_torch",
        "the largest of equal scores, on torch",
        "backends",
        "other meaning",
        keras="keras.ops.argsort(-scores)[:4]",
        naive_keras="keras.ops.top_k(scores, 4)[1]",
        symptom="an untrained network's top 5 are others than on other backends",
        fix="a stable sort; or do not rely on the order of equal scores",
        operations=("top_k", "top_k_accuracy"),
        inputs={"scores": given([0.0] * 12)},
        backend="torch",
    ),
    Row(
        "backends.top_k_ties_jax",
        "the largest of equal scores, on jax",
        "backends",
        "same",
        keras="keras.ops.top_k(scores, 4)[1]",
        operations=("top_k", "top_k_accuracy"),
        inputs={"scores": given([0.0] * 12)},
        backend="jax",
        note="the first of them, as in TensorFlow",
    ),
    *on_each(
        "backends.max_pool_nan",
        "NaN in a pooling window",
        "other meaning",
        keras="""\
pooled = keras.ops.max_pool(images, 2, 1)
spoiled = keras.ops.max_pool(keras.ops.cast(keras.ops.isnan(images), dtype), 2, 1)
keras.ops.where(spoiled > 0, np.nan, pooled)""",
        naive_keras="keras.ops.max_pool(images, 2, 1)",
        symptom="the NaN of a diverged network vanishes in TensorFlow alone",
        fix="look for NaN before the pooling",
        operations=("max_pool2d",),
        inputs={
            "images": given([[[[1.0], [NAN]], [[3.0], [4.0]], [[0.5], [2.0]]]], "maps")
        },
    ),
    *on_each(
        "backends.functions",
        "activations, rounding and statistics",
        "same",
        keras="""\
[
    keras.activations.gelu(values),
    keras.ops.softplus(values),
    keras.ops.round(values),
    keras.ops.std(values),
]""",
        operations=("gelu", "softplus"),
        inputs={"values": array(40, scale=3.0)},
    ),
    *on_each(
        "backends.optimizers",
        "steps of the optimizers",
        "same",
        keras="""\
def train(optimizer):
    weights = keras.Variable(start + 0.0)
    for _ in range(5):
        optimizer.apply([weights - target], [weights])
    return weights.value
optimizers = keras.optimizers
[
    train(optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=1.0)),
    train(optimizers.Adam(0.1)),
    train(optimizers.AdamW(0.1)),
    train(optimizers.Nadam(0.1)),
    train(optimizers.RMSprop(0.1)),
    train(optimizers.Adagrad(0.1)),
]""",
        operations=("nesterov", "adam", "adamw", "rmsprop", "adagrad", "clip_by_norm"),
        inputs={"start": array(6), "target": array(6)},
    ),
    Row(
        "backends.variable_shares_memory_torch",
        "a variable made of a tensor, on torch",
        "backends",
        "other meaning",
        keras="""\
weights = keras.Variable(keras.ops.copy(start))
weights.assign_sub(weights / 2)
start""",
        naive_keras="""\
weights = keras.Variable(start)
weights.assign_sub(weights / 2)
start""",
        symptom="training changes the tensor that the variable was made of",
        fix="copy the tensor, or make the variable of a NumPy array",
        inputs={"start": array(6)},
        backend="torch",
    ),
    *on_each(
        "backends.seed",
        "initial weights and dropout of the same seed",
        "other meaning",
        keras="""\
random = np.random.default_rng(0)
mask = random.random((6, 7)) < 0.5
[random.standard_normal((7, 6)) * (2 / 7) ** 0.5, 2.0 * mask]""",
        naive_keras="""\
weights = keras.initializers.HeNormal(seed=0)((7, 6))
dropout = layers.Dropout(0.5, seed=0)
[weights, dropout(keras.ops.ones((6, 7)), training=True)]""",
        symptom="a seed does not give the same run on another backend",
        fix="draw with NumPy, or save the weights once and load them",
        operations=("he_normal", "dropout"),
    ),
    *on_each(
        "backends.random_crop",
        "random crops of a batch",
        "same",
        keras="""\
images = np.tile(np.arange(64.0).reshape(1, 8, 8, 1), (20, 1, 1, 1))
crops = layers.RandomCrop(4, 4, seed=0)(images, training=True)
len(np.unique(keras.ops.convert_to_numpy(crops), axis=0))""",
        operations=("crop",),
        note="all images of a batch are cropped at the same place",
    ),
    *on_each(
        "backends.float64_input",
        "a layer in float32 that is given NumPy's float64",
        "same",
        keras="""\
dense = layers.Dense(4)
dense.build((None, 6))
dense.set_weights([weights, np.zeros(4)])
output = dense(np.linspace(0, 1, 12).reshape(2, 6))
[output, keras.backend.standardize_dtype(output.dtype) == "float32"]""",
        operations=("dense",),
        inputs={"weights": array(6, 4)},
        note="the input is cast to float32 everywhere",
    ),
    Row(
        "backends.denormals_torch",
        "numbers below the smallest normal one, on torch",
        "backends",
        "other meaning",
        keras="""\
halves = tiny * 0.5
smallest = np.finfo("float32").tiny
halves = keras.ops.where(keras.ops.abs(halves) < smallest, 0.0, halves)
keras.ops.convert_to_numpy(halves) > 0""",
        naive_keras="keras.ops.convert_to_numpy(tiny * 0.5) > 0",
        symptom="tiny numbers are zero in TensorFlow and not here",
        fix="set them to zero; or pay no heed to them",
        inputs={"tiny": given([1e-37, 1e-39, 3e-39])},
        backend="torch",
    ),
    Row(
        "backends.denormals_jax",
        "numbers below the smallest normal one, on jax",
        "backends",
        "same",
        keras="keras.ops.convert_to_numpy(tiny * 0.5) > 0",
        inputs={"tiny": given([1e-37, 1e-39, 3e-39])},
        backend="jax",
        note="zero as in TensorFlow",
    ),
    Row(
        "backends.float64_torch",
        "products and means in float64, on torch",
        "backends",
        "other meaning",
        keras="""\
features = keras.ops.cast(features, "float64") / 3
[
    keras.ops.einsum("ni,io->no", features, keras.ops.cast(weights, "float64")),
    keras.ops.sum(features, 0) / features.shape[0],
]""",
        naive_keras="""\
features = keras.ops.cast(features, "float64") / 3
[
    keras.ops.matmul(features, keras.ops.cast(weights, "float64")),
    keras.ops.mean(features, 0),
]""",
        symptom="errors as of float32 in a result that says it is float64",
        fix="judge on TensorFlow; here einsum, sums and convolutions stay float64",
        operations=("dense", "global_avg_pool2d"),
        inputs={
            "features": integers(5, 6, below=9),
            "weights": integers(6, 4, below=7),
        },
        dtypes=("float64",),
        backend="torch",
        note="Dense, GlobalAveragePooling2D and the normalisations too, whatever their "
        "dtype says",
    ),
    Row(
        "backends.float64_jax",
        "products in float64, on jax",
        "backends",
        "other meaning",
        keras="""\
import jax
jax.config.update("jax_enable_x64", True)
features = keras.ops.cast(features, "float64") / 3
product = keras.ops.matmul(features, keras.ops.cast(weights, "float64"))
jax.config.update("jax_enable_x64", False)
product""",
        naive_keras="""\
features = keras.ops.cast(features, "float64") / 3
keras.ops.matmul(features, keras.ops.cast(weights, "float64"))""",
        symptom="float32, though float64 was asked for",
        fix="judge on the TensorFlow backend; or set jax_enable_x64 at the start",
        operations=("dense",),
        inputs={
            "features": integers(5, 6, below=9),
            "weights": integers(6, 4, below=7),
        },
        dtypes=("float64",),
        backend="jax",
        note="means and normalisations stay float32 even so",
    ),
    Row(
        "backends.import_order",
        "importing TensorFlow and torchvision in one process",
        "backends",
        "other meaning",
        keras="""\
import torchvision
import keras""",
        torch="import torch",
        naive_keras="""\
import keras
import torchvision""",
        symptom="the process is killed; nothing can catch it",
        fix="torchvision first: both carry LLVM, and its options are registered twice",
        dtypes=("float64",),
        process=True,
        shows="killed",
        note="torch.compile and PyTorch's optimizers load the same library",
    ),
)
