"""Initial weights: their spread and their tails, not their values."""

from parity.rows.record import Row

# Two generators never draw the same numbers: rows compare spreads and largest values.
SAMPLING = "two draws of random numbers"

ROWS = (
    Row(
        "initializers.glorot_uniform",
        "Glorot's uniform distribution",
        "initializers",
        "other name",
        keras="""\
kernel = keras.initializers.GlorotUniform()((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.max(keras.ops.abs(kernel))]""",
        torch="""\
kernel = nn.init.xavier_uniform_(torch.empty(256, 128, 3, 3))
[kernel.std(), kernel.abs().max()]""",
        operations=("glorot_uniform",),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.he_uniform",
        "He's uniform distribution",
        "initializers",
        "other name",
        keras="""\
kernel = keras.initializers.HeUniform()((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.max(keras.ops.abs(kernel))]""",
        torch="""\
kernel = nn.init.kaiming_uniform_(torch.empty(256, 128, 3, 3))
[kernel.std(), kernel.abs().max()]""",
        operations=("he_uniform",),
        limit=1e-2,
        limit_reason=SAMPLING,
        note="PyTorch's layers call it with a=sqrt(5), which is another distribution",
    ),
    Row(
        "initializers.lecun_uniform",
        "LeCun's uniform distribution",
        "initializers",
        "missing on one side",
        keras="""\
kernel = keras.initializers.LecunUniform()((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.max(keras.ops.abs(kernel))]""",
        torch="""\
kernel = torch.empty(256, 128, 3, 3)
nn.init.kaiming_uniform_(kernel, nonlinearity="linear")
[kernel.std(), kernel.abs().max()]""",
        naive_torch="""\
kernel = nn.init.kaiming_uniform_(torch.empty(256, 128, 3, 3))
[kernel.std(), kernel.abs().max()]""",
        symptom="a spread larger by sqrt(2)",
        fix="kaiming_uniform_ with nonlinearity='linear', whose gain is 1",
        operations=("lecun_uniform",),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.glorot_normal",
        "Glorot's normal distribution, truncated in Keras",
        "initializers",
        "other meaning",
        keras="""\
kernel = keras.initializers.GlorotNormal()((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.max(keras.ops.abs(kernel))]""",
        torch="""\
from torch_impl.initializers import glorot_normal

layer = glorot_normal(nn.Conv2d(128, 256, 3), truncated=True)
[layer.weight.std(), layer.weight.abs().max()]""",
        naive_torch="""\
kernel = nn.init.xavier_normal_(torch.empty(256, 128, 3, 3))
[kernel.std(), kernel.abs().max()]""",
        symptom="the same spread, but single weights twice as large as any in Keras",
        fix="torch_impl.initializers.glorot_normal(layer, truncated=True)",
        operations=("glorot_normal",),
        dtypes=("float32",),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.he_normal",
        "He's normal distribution, truncated in Keras",
        "initializers",
        "other meaning",
        keras="""\
kernel = keras.initializers.HeNormal()((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.max(keras.ops.abs(kernel))]""",
        torch="""\
kernel = torch.empty(256, 128, 3, 3)
std = (2 / (9 * 128)) ** 0.5 / 0.87962566
nn.init.trunc_normal_(kernel, std=std, a=-2 * std, b=2 * std)
[kernel.std(), kernel.abs().max()]""",
        naive_torch="""\
kernel = nn.init.kaiming_normal_(torch.empty(256, 128, 3, 3))
[kernel.std(), kernel.abs().max()]""",
        symptom="the same spread, but single weights twice as large as any in Keras",
        fix="cut at two deviations, and widen by what the cut takes from the spread",
        operations=("he_normal",),
        dtypes=("float32",),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.he_normal_untruncated",
        "He's normal distribution as in the paper",
        "initializers",
        "other default",
        keras="""\
he_normal = keras.initializers.VarianceScaling(2, "fan_in", "untruncated_normal")
kernel = he_normal((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.quantile(keras.ops.abs(kernel), 0.99)]""",
        torch="""\
kernel = nn.init.kaiming_normal_(torch.empty(256, 128, 3, 3))
[kernel.std(), kernel.abs().quantile(0.99)]""",
        naive_keras="""\
kernel = keras.initializers.HeNormal()((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.quantile(keras.ops.abs(kernel), 0.99)]""",
        symptom="the same spread without the tails",
        fix="VarianceScaling with distribution='untruncated_normal'",
        operations=("he_normal",),
        dtypes=("float32",),
        limit=2e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.lecun_normal",
        "LeCun's normal distribution, truncated in Keras",
        "initializers",
        "missing on one side",
        keras="""\
kernel = keras.initializers.LecunNormal()((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.max(keras.ops.abs(kernel))]""",
        torch="""\
from torch_impl.initializers import lecun_normal

layer = lecun_normal(nn.Conv2d(128, 256, 3), truncated=True)
[layer.weight.std(), layer.weight.abs().max()]""",
        naive_torch="""\
kernel = torch.empty(256, 128, 3, 3)
nn.init.kaiming_normal_(kernel, nonlinearity="linear")
[kernel.std(), kernel.abs().max()]""",
        symptom="the same spread, but single weights twice as large as any in Keras",
        fix="torch_impl.initializers.lecun_normal(layer, truncated=True)",
        operations=("lecun_normal",),
        dtypes=("float32",),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.truncated_normal",
        "where a truncated normal distribution is cut",
        "initializers",
        "other default",
        keras="""\
kernel = keras.initializers.TruncatedNormal(stddev=0.02)((3, 3, 128, 256), dtype)
[keras.ops.std(kernel), keras.ops.max(keras.ops.abs(kernel))]""",
        torch="""\
kernel = torch.empty(256, 128, 3, 3)
nn.init.trunc_normal_(kernel, std=0.02, a=-0.04, b=0.04)
[kernel.std(), kernel.abs().max()]""",
        naive_torch="""\
kernel = nn.init.trunc_normal_(torch.empty(256, 128, 3, 3), std=0.02)
[kernel.std(), kernel.abs().max()]""",
        symptom="PyTorch cuts at -2 and 2 whatever the spread is, so not at all: its "
        "weights are wider and have tails",
        fix="a=-2 * std, b=2 * std",
        dtypes=("float32",),
        limit=1e-2,
        limit_reason=SAMPLING,
        note="Keras does not widen what it cuts: the spread is smaller than stddev",
    ),
    Row(
        "initializers.normal",
        "a normal distribution's default spread",
        "initializers",
        "other default",
        keras="keras.ops.std(keras.initializers.RandomNormal()((400, 400), dtype))",
        torch="nn.init.normal_(torch.empty(400, 400), std=0.05).std()",
        naive_torch="nn.init.normal_(torch.empty(400, 400)).std()",
        symptom="weights larger by a factor of 20",
        fix="say the deviation",
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.uniform",
        "a uniform distribution's default range",
        "initializers",
        "other default",
        keras="""\
weights = keras.initializers.RandomUniform()((400, 400), dtype)
[keras.ops.std(weights), keras.ops.max(weights), keras.ops.min(weights)]""",
        torch="""\
weights = nn.init.uniform_(torch.empty(400, 400), -0.05, 0.05)
[weights.std(), weights.max(), weights.min()]""",
        naive_torch="""\
weights = nn.init.uniform_(torch.empty(400, 400))
[weights.std(), weights.max(), weights.min()]""",
        symptom="weights from 0 to 1 in place of small ones around 0",
        fix="say the range",
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.orthogonal",
        "orthogonal kernels",
        "initializers",
        "same",
        keras="""\
kernel = keras.initializers.Orthogonal()((3, 3, 8, 16), dtype)
rows = keras.ops.reshape(kernel, (72, 16))
keras.ops.matmul(keras.ops.transpose(rows), rows)""",
        torch="""\
rows = nn.init.orthogonal_(torch.empty(16, 8, 3, 3)).flatten(1)
rows @ rows.T""",
        note="both make the output channels' kernels orthogonal to each other",
    ),
    Row(
        "initializers.conv_default",
        "the kernel of a new convolution",
        "initializers",
        "other default",
        keras="""\
layer = layers.Conv2D(256, 3)
layer.build((None, 8, 8, 128))
[keras.ops.std(layer.kernel), keras.ops.max(keras.ops.abs(layer.kernel))]""",
        torch="""\
layer = nn.Conv2d(128, 256, 3)
nn.init.xavier_uniform_(layer.weight)
[layer.weight.std(), layer.weight.abs().max()]""",
        naive_torch="""\
layer = nn.Conv2d(128, 256, 3)
[layer.weight.std(), layer.weight.abs().max()]""",
        symptom="another spread at the first step: a curve that starts elsewhere",
        fix="xavier_uniform_ on the kernel, zeros_ on the bias",
        operations=("conv2d", "glorot_uniform"),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.conv_default_of_torch",
        "PyTorch's new kernels in Keras",
        "initializers",
        "other default",
        keras="""\
uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
layer = layers.Conv2D(256, 3, kernel_initializer=uniform)
layer.build((None, 8, 8, 128))
[keras.ops.std(layer.kernel), keras.ops.max(keras.ops.abs(layer.kernel))]""",
        torch="""\
layer = nn.Conv2d(128, 256, 3)
[layer.weight.std(), layer.weight.abs().max()]""",
        naive_keras="""\
layer = layers.Conv2D(256, 3, kernel_initializer="he_uniform")
layer.build((None, 8, 8, 128))
[keras.ops.std(layer.kernel), keras.ops.max(keras.ops.abs(layer.kernel))]""",
        symptom="PyTorch's kaiming_uniform_(a=sqrt(5)) is not He's: its weights reach "
        "to 1 / sqrt(fan_in) only",
        fix="VarianceScaling(1 / 3, 'fan_in', 'uniform')",
        operations=("conv2d", "he_uniform"),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.dense_default",
        "the kernel of a new dense layer",
        "initializers",
        "other default",
        keras="""\
layer = layers.Dense(256)
layer.build((None, 512))
[keras.ops.std(layer.kernel), keras.ops.max(keras.ops.abs(layer.kernel))]""",
        torch="""\
layer = nn.Linear(512, 256)
nn.init.xavier_uniform_(layer.weight)
[layer.weight.std(), layer.weight.abs().max()]""",
        naive_torch="""\
layer = nn.Linear(512, 256)
[layer.weight.std(), layer.weight.abs().max()]""",
        symptom="another spread at the first step: a curve that starts elsewhere",
        fix="xavier_uniform_ on the kernel, zeros_ on the bias",
        operations=("dense", "glorot_uniform"),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.bias_default",
        "the bias of a new layer",
        "initializers",
        "other default",
        keras="""\
layer = layers.Conv2D(8, 3)
layer.build((None, 8, 8, 3))
layer.bias""",
        torch="""\
layer = nn.Conv2d(3, 8, 3)
nn.init.zeros_(layer.bias)
layer.bias""",
        naive_torch="nn.Conv2d(3, 8, 3).bias",
        symptom="zeros in Keras, small random numbers in PyTorch",
        fix="zeros_ on the bias",
        operations=("conv2d", "dense"),
    ),
    Row(
        "initializers.depthwise_fan",
        "He's distribution for a depthwise kernel",
        "initializers",
        "other meaning",
        keras="""\
normal = keras.initializers.RandomNormal(stddev=(2 / 9) ** 0.5)
layer = layers.DepthwiseConv2D(3, depthwise_initializer=normal)
layer.build((None, 8, 8, 8192))
keras.ops.std(layer.kernel)""",
        torch="""\
layer = nn.Conv2d(8192, 8192, 3, groups=8192)
nn.init.kaiming_normal_(layer.weight)
layer.weight.std()""",
        naive_keras="""\
layer = layers.DepthwiseConv2D(3, depthwise_initializer="he_normal")
layer.build((None, 8, 8, 8192))
keras.ops.std(layer.kernel)""",
        symptom="weights smaller by the root of the channels: Keras counts all of them "
        "as inputs, though each output sees one",
        fix="give the deviation, sqrt(2 / (h * w)); or "
        "keras_impl.initializers.he_normal(kind='depthwise')",
        operations=("depthwise_conv2d", "he_normal"),
        limit=2e-2,
        limit_reason=SAMPLING,
    ),
    Row(
        "initializers.depthwise_glorot",
        "Glorot's distribution for a depthwise kernel",
        "initializers",
        "same",
        keras="""\
layer = layers.DepthwiseConv2D(3)
layer.build((None, 8, 8, 8192))
[keras.ops.std(layer.kernel), keras.ops.max(keras.ops.abs(layer.kernel))]""",
        torch="""\
layer = nn.Conv2d(8192, 8192, 3, groups=8192)
nn.init.xavier_uniform_(layer.weight)
[layer.weight.std(), layer.weight.abs().max()]""",
        operations=("depthwise_conv2d", "glorot_uniform"),
        limit=1e-2,
        limit_reason=SAMPLING,
        note="each takes the other's inputs for outputs; only their sum counts here",
    ),
    Row(
        "initializers.transposed_fan",
        "He's distribution for a transposed convolution",
        "initializers",
        "same",
        keras="""\
layer = layers.Conv2DTranspose(64, 3, kernel_initializer="he_normal")
layer.build((None, 8, 8, 512))
keras.ops.std(layer.kernel)""",
        torch="""\
layer = nn.ConvTranspose2d(512, 64, 3)
nn.init.kaiming_normal_(layer.weight)
layer.weight.std()""",
        operations=("conv2d_transpose", "he_normal"),
        limit=1e-2,
        limit_reason=SAMPLING,
        note="believed to differ; both take the outputs for the fan-in, since the "
        "kernel is stored the other way round",
    ),
    Row(
        "initializers.shared_instance",
        "one initializer for two layers",
        "initializers",
        "other meaning",
        keras="""\
kernels = []
for _ in range(2):
    layer = layers.Dense(256, kernel_initializer="he_uniform")
    layer.build((None, 512))
    kernels.append(layer.kernel)
keras.ops.std(kernels[0] - kernels[1])""",
        torch="""\
kernels = [nn.init.kaiming_uniform_(torch.empty(256, 512)) for _ in range(2)]
(kernels[0] - kernels[1]).std()""",
        naive_keras="""\
he_uniform = keras.initializers.HeUniform()
kernels = []
for _ in range(2):
    layer = layers.Dense(256, kernel_initializer=he_uniform)
    layer.build((None, 512))
    kernels.append(layer.kernel)
keras.ops.std(kernels[0] - kernels[1])""",
        symptom="both layers start with the same weights: an initializer of Keras "
        "draws its seed once",
        fix="the initializer's name, or a new one per layer",
        operations=("he_uniform",),
        limit=1e-2,
        limit_reason=SAMPLING,
    ),
)
