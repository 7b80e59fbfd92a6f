"""Normalisation, of batches, layers, groups, channels and images."""

from parity.rows.record import Row, array, maps

STATISTICS = {
    "gamma": array(3, shift=1.0, scale=0.1),
    "beta": array(3),
    "mean": array(3),
    "variance": array(3, values="uniform", shift=0.001, scale=0.01),
}
AFFINE = {"gamma": array(3, shift=1.0, scale=0.1), "beta": array(3)}

ROWS: tuple[Row, ...] = (
    Row(
        "normalization.batch_norm_function",
        "batch normalisation by given statistics, as a function",
        "normalization",
        "other name",
        keras="tf.nn.batch_normalization(images, mean, variance, beta, gamma, 1e-5)",
        torch="F.batch_norm(images, mean, variance, gamma, beta)",
        naive_torch="F.batch_norm(images, mean, variance, beta, gamma)",
        symptom="scale and offset are exchanged: outputs of a plausible size",
        fix="name the arguments: TensorFlow takes the offset first, PyTorch the scale",
        operations=("batch_norm",),
        inputs={"images": maps(4, 6, 5, 3), **STATISTICS},
    ),
    Row(
        "normalization.batch_norm_epsilon",
        "batch normalisation by running statistics",
        "normalization",
        "other default",
        keras="""\
norm = layers.BatchNormalization()
norm.build(images.shape)
norm.set_weights([gamma, beta, mean, variance])
norm(images)""",
        torch="""\
norm = nn.BatchNorm2d(3, eps=1e-3)
norm.load_state_dict(
    {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}
)
norm.eval()(images)""",
        naive_torch="""\
norm = nn.BatchNorm2d(3)
norm.load_state_dict(
    {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}
)
norm.eval()(images)""",
        symptom="channels whose running variance is small come out too large",
        fix="eps=1e-3: Keras's epsilon is 1e-3, PyTorch's 1e-5",
        operations=("batch_norm",),
        inputs={"images": maps(4, 6, 5, 3), **STATISTICS},
    ),
    Row(
        "normalization.batch_norm_affine",
        "batch normalisation without scale and offset",
        "normalization",
        "other name",
        keras="""\
norm = layers.BatchNormalization(epsilon=1e-5, center=False, scale=False)
norm(images, training=True)""",
        torch="nn.BatchNorm2d(3, affine=False)(images)",
        operations=("batch_norm_training",),
        inputs={"images": maps(4, 6, 5, 3, scale=2.0, shift=1.0)},
    ),
    Row(
        "normalization.batch_norm_dense",
        "batch normalisation of feature vectors",
        "normalization",
        "other name",
        keras="layers.BatchNormalization(epsilon=1e-5)(features, training=True)",
        torch="nn.BatchNorm1d(7)(features)",
        operations=("batch_norm_training",),
        inputs={"features": array(6, 7, scale=2.0, shift=1.0)},
    ),
    Row(
        "normalization.batch_norm_training_epsilon",
        "batch normalisation by the batch's own statistics",
        "normalization",
        "other default",
        keras="layers.BatchNormalization()(images, training=True)",
        torch="nn.BatchNorm2d(3, eps=1e-3)(images)",
        naive_torch="nn.BatchNorm2d(3)(images)",
        symptom="channels of small variance come out too large",
        fix="eps=1e-3; both divide by the biased variance of the batch",
        operations=("batch_norm_training",),
        inputs={"images": maps(4, 6, 5, 3, scale=0.05)},
    ),
    Row(
        "normalization.batch_norm_momentum",
        "what the momentum of the running statistics multiplies",
        "normalization",
        "other meaning",
        keras="""\
norm = layers.BatchNormalization(momentum=0.99)
for _ in range(3):
    norm(images, training=True)
norm.moving_mean""",
        torch="""\
norm = nn.BatchNorm2d(3, momentum=0.01)
for _ in range(3):
    norm(images)
norm.running_mean""",
        naive_torch="""\
norm = nn.BatchNorm2d(3, momentum=0.99)
for _ in range(3):
    norm(images)
norm.running_mean""",
        symptom="training is right, but inference goes by the last batch alone",
        fix="1 minus it: Keras's is the share of the old value, PyTorch's of the new",
        operations=("batch_norm_training",),
        inputs={"images": maps(4, 6, 5, 3, shift=1.0)},
    ),
    Row(
        "normalization.batch_norm_momentum_default",
        "how fast the running statistics follow",
        "normalization",
        "other default",
        keras="""\
norm = layers.BatchNormalization(momentum=0.9)
norm(images, training=True)
norm.moving_mean""",
        torch="""\
norm = nn.BatchNorm2d(3)
norm(images)
norm.running_mean""",
        naive_keras="""\
norm = layers.BatchNormalization()
norm(images, training=True)
norm.moving_mean""",
        symptom="after few steps, inference still goes by the initial statistics",
        fix="momentum=0.9: the default of PyTorch forgets ten times faster",
        operations=("batch_norm_training",),
        inputs={"images": maps(4, 6, 5, 3, shift=1.0)},
    ),
    Row(
        "normalization.batch_norm_running_variance",
        "the running variance is the unbiased one in PyTorch and in the paper",
        "normalization",
        "other meaning",
        keras="""\
from keras_impl.layers import BatchNormalization
norm = BatchNormalization()
outputs = norm(images, training=True)
outputs, norm.moving_mean, norm.moving_variance""",
        torch="""\
norm = nn.BatchNorm2d(3)
outputs = norm(images)
outputs, norm.running_mean, norm.running_var""",
        naive_keras="""\
norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
outputs = norm(images, training=True)
outputs, norm.moving_mean, norm.moving_variance""",
        symptom="alike in training, apart in inference: most at small batches and maps",
        fix="a layer that averages the unbiased variances of the batches",
        operations=("batch_norm_training",),
        inputs={"images": maps(2, 2, 2, 3, scale=2.0, shift=1.0)},
    ),
    Row(
        "normalization.batch_norm_running_variance_biased",
        "Keras averages the biased variances of the batches",
        "normalization",
        "other meaning",
        keras="""\
norm = layers.BatchNormalization(momentum=0.9)
norm(images, training=True)
norm.moving_variance""",
        torch="""\
norm = nn.BatchNorm2d(3, eps=1e-3)
before = norm.running_var.clone()
norm(images)
biased = images.var((0, 2, 3), correction=0)
norm.running_var.copy_(before.lerp(biased, norm.momentum))""",
        naive_torch="""\
norm = nn.BatchNorm2d(3, eps=1e-3)
norm(images)
norm.running_var""",
        symptom="alike in training, apart in inference: most at small batches and maps",
        fix="update running_var from the biased variance",
        operations=("batch_norm_training",),
        inputs={"images": maps(2, 2, 2, 3, scale=2.0, shift=1.0)},
    ),
    Row(
        "normalization.batch_norm_fused",
        "the variance that TensorFlow's fused operation returns is the unbiased one",
        "normalization",
        "other meaning",
        keras="""\
_, _, variance = tf.compat.v1.nn.fused_batch_norm(images, gamma, beta)
variance""",
        torch="images.var((0, 2, 3))",
        naive_keras="""\
norm = layers.BatchNormalization(momentum=0.0)
norm(images, training=True)
norm.moving_variance""",
        symptom="advice for Keras 2, whose layer used it, is wrong for Keras 3",
        fix="count on the fused operation for it, not on the layer",
        operations=("batch_norm_training",),
        inputs={"images": maps(2, 2, 2, 3, scale=2.0, shift=1.0), **AFFINE},
        dtypes=("float32",),
        note="The fused operation knows no float64.",
    ),
    Row(
        "normalization.batch_norm_fused_epsilon",
        "an epsilon below 1e-5 in TensorFlow's fused operation",
        "normalization",
        "same",
        keras="tf.compat.v1.nn.fused_batch_norm(images, gamma, beta, epsilon=1e-6)[0]",
        torch="F.batch_norm(images, None, None, gamma, beta, training=True, eps=1e-6)",
        operations=("batch_norm_training",),
        inputs={"images": maps(4, 6, 5, 3, scale=0.003), **AFFINE},
        dtypes=("float32",),
        note="People believe that it is raised to 1.001e-5, as old versions did.",
    ),
    Row(
        "normalization.batch_norm_mode",
        "a new layer is called",
        "normalization",
        "other default",
        keras="layers.BatchNormalization()(images)",
        torch="nn.BatchNorm2d(3, eps=1e-3).eval()(images)",
        naive_torch="nn.BatchNorm2d(3, eps=1e-3)(images)",
        symptom="an evaluation goes by the batch, and changes the running statistics",
        fix="model.eval() first; Keras infers unless it is told training=True",
        operations=("batch_norm", "batch_norm_training"),
        inputs={"images": maps(4, 6, 5, 3, scale=2.0, shift=1.0)},
    ),
    Row(
        "normalization.batch_norm_one_value",
        "a training batch with one value per channel",
        "normalization",
        "other meaning",
        keras="""\
norm = layers.BatchNormalization()
norm.build(features.shape)
norm.beta.assign(beta)
norm(features, training=True)""",
        torch="""\
mean, variance = features.mean(0), features.var(0, correction=0)
F.batch_norm(features, mean, variance, bias=beta, eps=1e-3)""",
        naive_torch="""\
norm = nn.BatchNorm1d(3, eps=1e-3)
norm.bias.data.copy_(beta)
norm(features)""",
        symptom="PyTorch stops at a last batch of 1; Keras goes on and puts out beta",
        fix="DataLoader(drop_last=True), or the batch's own statistics by hand",
        operations=("batch_norm_training",),
        inputs={"features": array(1, 3), "beta": array(3)},
        shows="ValueError",
        says="more than 1 value per channel",
    ),
    Row(
        "normalization.batch_norm_frozen",
        "a frozen layer inside a model that trains",
        "normalization",
        "other meaning",
        keras="""\
norm = layers.BatchNormalization()
norm.trainable = False
norm(images, training=True)""",
        torch="""\
norm = nn.BatchNorm2d(3, eps=1e-3).requires_grad_(False)
norm.train()
norm.eval()(images)""",
        naive_torch="""\
norm = nn.BatchNorm2d(3, eps=1e-3).requires_grad_(False)
norm.train()
norm(images)""",
        symptom="the running statistics of a frozen backbone drift",
        fix="eval() for these layers after every train(): trainable=False implies it",
        operations=("batch_norm", "batch_norm_training"),
        inputs={"images": maps(4, 6, 5, 3, scale=2.0, shift=1.0)},
    ),
    Row(
        "normalization.layer_norm_axes",
        "layer normalisation over the channels of each pixel",
        "normalization",
        "other layout",
        keras="layers.LayerNormalization(epsilon=1e-5)(images)",
        torch="nn.LayerNorm(4)(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)",
        naive_torch="nn.LayerNorm(images.shape[1:])(images)",
        symptom="statistics of the whole image in place of each pixel's",
        fix="bring the channels to the end, normalise, and bring them back",
        operations=("layer_norm",),
        inputs={"images": maps(2, 6, 5, 4, scale=2.0, shift=1.0)},
    ),
    Row(
        "normalization.layer_norm_channels_first",
        "nn.LayerNorm(channels) given NCHW images",
        "normalization",
        "other layout",
        keras="layers.LayerNormalization(epsilon=1e-5)(images)",
        torch="F.layer_norm(images.movedim(1, -1), (4,)).movedim(-1, 1)",
        naive_torch="nn.LayerNorm(4)(images)",
        symptom="an error; wrong numbers where the width is the number of channels",
        fix="bring the channels to the end: PyTorch normalises the last axes",
        operations=("layer_norm",),
        inputs={"images": maps(2, 6, 5, 4)},
        shows="RuntimeError",
        says="Given normalized_shape=[4]",
    ),
    Row(
        "normalization.layer_norm_epsilon",
        "layer normalisation",
        "normalization",
        "other default",
        keras="layers.LayerNormalization()(features)",
        torch="nn.LayerNorm(7, eps=1e-3)(features)",
        naive_torch="nn.LayerNorm(7)(features)",
        symptom="an error that grows as activations shrink",
        fix="eps=1e-3: Keras's epsilon is 1e-3, PyTorch's 1e-5",
        operations=("layer_norm",),
        inputs={"features": array(6, 7, scale=0.05)},
    ),
    Row(
        "normalization.layer_norm_whole_image",
        "layer normalisation of whole images, with a scale per pixel and channel",
        "normalization",
        "other layout",
        keras="""\
norm = layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-5)
norm.build(images.shape)
norm.gamma.assign(gamma)
norm(images)""",
        torch="""\
norm = nn.LayerNorm(images.shape[1:])
norm.weight.data.copy_(gamma.permute(2, 0, 1))
norm(images)""",
        naive_torch="""\
norm = nn.LayerNorm(images.shape[1:])
norm.weight.data.copy_(gamma.reshape(3, 6, 5))
norm(images)""",
        symptom="the scales of other pixels",
        fix="permute the scale and the offset, (H, W, C) to (C, H, W)",
        operations=("layer_norm",),
        inputs={"images": maps(2, 6, 5, 3), "gamma": array(6, 5, 3)},
    ),
    Row(
        "normalization.group_norm_epsilon",
        "group normalisation",
        "normalization",
        "other default",
        keras="layers.GroupNormalization(2)(images)",
        torch="nn.GroupNorm(2, 4, eps=1e-3)(images)",
        naive_torch="nn.GroupNorm(2, 4)(images)",
        symptom="an error that grows as activations shrink",
        fix="eps=1e-3: Keras's epsilon is 1e-3, PyTorch's 1e-5",
        operations=("group_norm",),
        inputs={"images": maps(2, 6, 5, 4, scale=0.05)},
    ),
    Row(
        "normalization.group_norm_groups",
        "which channels are a group",
        "normalization",
        "same",
        keras="layers.GroupNormalization(3, epsilon=1e-5)(images)",
        torch="nn.GroupNorm(3, 6)(images)",
        operations=("group_norm",),
        inputs={"images": maps(2, 6, 5, 6, scale=2.0, shift=1.0)},
        note="People believe that they interleave; they are neighbours on both sides.",
    ),
    Row(
        "normalization.instance_norm",
        "instance normalisation",
        "normalization",
        "missing on one side",
        keras="layers.GroupNormalization(-1, epsilon=1e-5)(images)",
        torch="nn.InstanceNorm2d(3)(images)",
        naive_keras="layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-5)(images)",
        symptom="the channels of an image are normalised together",
        fix="GroupNormalization(groups=-1), a group per channel",
        operations=("group_norm",),
        inputs={"images": maps(2, 6, 5, 3, scale=2.0, shift=1.0)},
        note="Keras's has a scale and an offset, PyTorch's only with affine=True.",
    ),
    Row(
        "normalization.rms_norm_epsilon",
        "normalisation by the root of the mean square",
        "normalization",
        "other default",
        keras="layers.RMSNormalization()(features)",
        torch="nn.RMSNorm(7, eps=1e-6)(features)",
        naive_torch="nn.RMSNorm(7)(features)",
        symptom="an error that grows as activations shrink",
        fix="eps=1e-6: PyTorch's default is the dtype's own epsilon",
        inputs={"features": array(6, 7, scale=0.001)},
    ),
    Row(
        "normalization.unit_norm",
        "vectors of length 1",
        "normalization",
        "other name",
        keras="layers.UnitNormalization()(images)",
        torch="F.normalize(images)",
        inputs={"images": maps(2, 6, 5, 3)},
        note="By default over the channels on both sides.",
    ),
    Row(
        "normalization.local_response_norm_alpha",
        "local response normalisation, as in AlexNet",
        "normalization",
        "other meaning",
        keras="""\
tf.nn.local_response_normalization(images, 2, bias=2.0, alpha=1e-4, beta=0.75)""",
        torch="nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)(images)",
        naive_torch="nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)(images)",
        symptom="a weaker normalisation",
        fix="alpha times the size: PyTorch divides it by the size, the paper doesn't",
        operations=("local_response_norm",),
        inputs={"images": maps(2, 6, 5, 8, scale=50.0)},
        dtypes=("float32",),
        note="TensorFlow's operation knows no float64.",
    ),
    Row(
        "normalization.local_response_norm_size",
        "how many channels local response normalisation sums over",
        "normalization",
        "other meaning",
        keras="""\
tf.nn.local_response_normalization(images, 2, bias=1.0, alpha=1e-4 / 5, beta=0.75)""",
        torch="nn.LocalResponseNorm(5)(images)",
        naive_keras="""\
tf.nn.local_response_normalization(images, 5, bias=1.0, alpha=1e-4 / 5, beta=0.75)""",
        symptom="a sum over 11 channels in place of 5",
        fix="depth_radius = size // 2: it counts the channels on one side",
        operations=("local_response_norm",),
        inputs={"images": maps(2, 6, 5, 16, scale=50.0)},
        dtypes=("float32",),
    ),
    Row(
        "normalization.local_response_norm_defaults",
        "local response normalisation without arguments",
        "normalization",
        "other default",
        keras="tf.nn.local_response_normalization(images)",
        torch="nn.LocalResponseNorm(11, alpha=11.0, beta=0.5, k=1.0)(images)",
        naive_torch="nn.LocalResponseNorm(11)(images)",
        symptom="outputs of another size",
        fix="give all four: only the bias, 1, is the same on both sides",
        operations=("local_response_norm",),
        inputs={"images": maps(2, 6, 5, 16)},
        dtypes=("float32",),
    ),
    Row(
        "normalization.local_response_norm_float64",
        "local response normalisation in float64",
        "normalization",
        "missing on one side",
        keras="""\
from keras_impl.layers import LocalResponseNorm
LocalResponseNorm(dtype=dtype)(images)""",
        torch="nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)(images)",
        naive_keras="""\
tf.nn.local_response_normalization(images, 2, bias=2.0, alpha=1e-4, beta=0.75)""",
        symptom="TensorFlow's operation is there for float16, bfloat16 and float32",
        fix="a layer that sums the squares of shifted channels",
        operations=("local_response_norm",),
        inputs={"images": maps(2, 6, 5, 8, scale=50.0)},
        shows="InvalidArgumentError",
        says="of double is not in the list",
        trap_dtypes=("float64",),
    ),
    Row(
        "normalization.image_standardization_constant",
        "an image of one colour to mean 0 and standard deviation 1",
        "normalization",
        "other meaning",
        keras="tf.image.per_image_standardization(0.0 * images + 128.0)",
        torch="""\
images = 0.0 * images + 128.0
std, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
(images - mean) / std.clamp(min=images[0].numel() ** -0.5)""",
        naive_torch="""\
images = 0.0 * images + 128.0
std, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
(images - mean) / std""",
        symptom="NaN",
        fix="divide by at least 1 / sqrt(number of values), as TensorFlow does",
        inputs={"images": maps(2, 6, 5, 3)},
        dtypes=("float32",),
    ),
)
