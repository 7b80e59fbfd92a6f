"""Numerics: precision, rounding, determinism, and numbers that are not finite."""

from parity.rows.record import Row, array, given, kernel, maps, matrix

DEEP = {"images": maps(2, 10, 9, 8), "kernel": kernel(3, 3, 8, 8)}
DENSE = {"features": array(64, 64), "weights": matrix(64, 48)}
NAN = float("nan")

ROWS: tuple[Row, ...] = (
    Row(
        "numerics.float32_is_no_judge",
        "comparing a deep network in float32",
        "numerics",
        "other meaning",
        keras="""\
images, kernel = (keras.ops.cast(x, "float64") for x in (images, kernel))
for _ in range(20):
    images = keras.ops.relu(keras.ops.conv(images, kernel, padding="same"))
images""",
        torch="""\
images, kernel = images.double(), kernel.double()
for _ in range(20):
    images = F.relu(F.conv2d(images, kernel, padding="same"))
images""",
        naive_torch="""\
images, kernel = images.float(), kernel.float()
for _ in range(20):
    images = F.relu(F.conv2d(images, kernel, padding="same"))
images""",
        symptom="noise that grows with the depth, as large as a small mistake's effect",
        fix="compare in float64, where rounding is far smaller than any mistake",
        operations=("conv2d",),
        inputs=DEEP,
        dtypes=("float64",),
    ),
    Row(
        "numerics.batch_of_one",
        "an image alone and the same image in a batch",
        "numerics",
        "same",
        keras="keras.ops.matmul(features[:1], weights)",
        torch="F.linear(features, weights)[:1]",
        operations=("dense",),
        inputs={"features": array(64, 1152), "weights": matrix(1152, 64)},
        note="either framework may order its sums by the batch size and the number of "
        "threads; what that changes is rounding and no mistake of a port",
    ),
    Row(
        "numerics.onednn",
        "products with and without oneDNN, which TensorFlow may use on the CPU",
        "numerics",
        "same",
        keras="""\
import os
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
import numpy as np
import tensorflow as tf
random = np.random.default_rng(0)
features = tf.constant(random.standard_normal((64, 1152)), tf.float32)
weights = tf.constant(random.standard_normal((1152, 64)), tf.float32)
print(tf.matmul(features, weights).numpy().tolist())""",
        operations=("dense",),
        dtypes=("float32",),
        process=True,
        environment={"TF_ENABLE_ONEDNN_OPTS": "0"},
        note="what it changes is rounding, by the processor and the number of threads; "
        "TensorFlow says so at its start, and leaves it on where the processor gains",
    ),
    Row(
        "numerics.tf32_rounding",
        "products of factors rounded as TensorFloat-32 rounds them",
        "numerics",
        "other default",
        keras="keras.ops.matmul(features, weights)",
        torch="F.linear(features, weights)",
        naive_torch="""\
def rounded(x):
    # the nearest number with 10 bits behind the point
    return (x.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)
F.linear(rounded(features), rounded(weights))""",
        symptom="three digits are right where float32 has seven",
        fix="leave TensorFloat-32 off in both frameworks",
        operations=("dense",),
        inputs=DENSE,
        dtypes=("float32",),
        note="what a GPU does with float32 where it may; simulated, so seen anywhere",
    ),
    Row(
        "numerics.tf32_products",
        "matrix products on a GPU",
        "numerics",
        "other default",
        keras="""\
tf.config.experimental.enable_tensor_float_32_execution(False)
tf.matmul(features, weights)""",
        torch="""\
torch.backends.cuda.matmul.allow_tf32 = False  # the default
F.linear(features, weights)""",
        naive_keras="""\
tf.config.experimental.enable_tensor_float_32_execution(True)  # the default
tf.matmul(features, weights)""",
        symptom="dense layers agree to three digits on a GPU, and to seven on the CPU",
        fix="enable_tensor_float_32_execution(False): TensorFlow allows it by default",
        operations=("dense",),
        inputs=DENSE,
        dtypes=("float32",),
        device="gpu",
    ),
    Row(
        "numerics.tf32_convolutions",
        "convolutions on a GPU",
        "numerics",
        "other default",
        keras="""\
tf.config.experimental.enable_tensor_float_32_execution(False)
tf.nn.conv2d(images, kernel, 2, "VALID")""",
        torch="""\
torch.backends.cudnn.allow_tf32 = False
F.conv2d(images, kernel, stride=2)""",
        naive_torch="""\
torch.backends.cudnn.allow_tf32 = True  # the default
F.conv2d(images, kernel, stride=2)""",
        symptom="convolutions agree to three digits on a GPU, dense layers to seven",
        fix="cudnn.allow_tf32 = False: PyTorch allows it for convolutions by default",
        operations=("conv2d",),
        inputs={"images": maps(8, 33, 31, 32), "kernel": kernel(3, 3, 32, 64)},
        dtypes=("float32",),
        device="gpu",
    ),
    Row(
        "numerics.gpu_determinism",
        "a sum whose order the GPU's threads decide",
        "numerics",
        "other name",
        keras="""\
import tensorflow as tf
tf.config.experimental.enable_op_determinism()
with tf.device("/GPU:0"):
    values = tf.random.stateless_normal((1_000_000,), (0, 0))
    segments = tf.range(1_000_000) % 8
    sums = [
        tf.math.unsorted_segment_sum(values, segments, 8).numpy().tobytes()
        for _ in range(20)
    ]
print(len(set(sums)))""",
        torch="""\
import torch
torch.use_deterministic_algorithms(True)
generator = torch.Generator("cuda").manual_seed(0)
values = torch.randn(1_000_000, device="cuda", generator=generator)
segments = torch.arange(1_000_000, device="cuda") % 8
sums = [
    torch.zeros(8, device="cuda").index_add_(0, segments, values).cpu().numpy()
    for _ in range(20)
]
print(len({x.tobytes() for x in sums}))""",
        naive_torch="""\
import torch
generator = torch.Generator("cuda").manual_seed(0)
values = torch.randn(1_000_000, device="cuda", generator=generator)
segments = torch.arange(1_000_000, device="cuda") % 8
sums = [
    torch.zeros(8, device="cuda").index_add_(0, segments, values).cpu().numpy()
    for _ in range(20)
]
print(len({x.tobytes() for x in sums}))""",
        symptom="two runs of one program with one seed part after some steps",
        fix="use_deterministic_algorithms(True), enable_op_determinism() in TensorFlow",
        dtypes=("float32",),
        process=True,
        device="gpu",
        note="with matrix products PyTorch also wants CUBLAS_WORKSPACE_CONFIG=:4096:8",
    ),
    Row(
        "numerics.float64_input",
        "a layer in float32 that is given NumPy's float64",
        "numerics",
        "other meaning",
        keras="""\
dense = layers.Dense(4)
dense.build((None, 6))
dense.set_weights([weights, bias])
dense(np.linspace(0, 1, 12).reshape(2, 6))""",
        torch="""\
dense = nn.Linear(6, 4)
dense.load_state_dict({"weight": weights, "bias": bias})
features = torch.from_numpy(np.linspace(0, 1, 12).reshape(2, 6))
dense(features.to(weights))""",
        naive_torch="""\
dense = nn.Linear(6, 4)
dense.load_state_dict({"weight": weights, "bias": bias})
features = torch.from_numpy(np.linspace(0, 1, 12).reshape(2, 6))
dense(features.to(weights.device))""",
        symptom="PyTorch raises; Keras silently casts the input to float32",
        fix=".float(), or float64 for the layer too where the digits are wanted",
        operations=("dense",),
        inputs={"weights": matrix(6, 4), "bias": array(4)},
        dtypes=("float32",),
        shows="RuntimeError",
        says="must have the same dtype",
    ),
    Row(
        "numerics.denormals",
        "numbers below the smallest normal one",
        "numerics",
        "other meaning",
        keras="np.asarray(keras.ops.convert_to_numpy(tiny * 0.5)) > 0",
        torch="""\
torch.set_flush_denormal(True)
halves = tiny * 0.5
torch.set_flush_denormal(False)
halves.cpu().numpy() > 0""",
        naive_torch="(tiny * 0.5).cpu().numpy() > 0",
        symptom="tiny weights and gradients are zero in TensorFlow and not in PyTorch",
        fix="torch.set_flush_denormal(True) does as TensorFlow; or pay no heed to them",
        inputs={"tiny": given([1e-37, 1e-39, 3e-39])},
        dtypes=("float32",),
        device="cpu",
        differs_on=("torch",),
    ),
    Row(
        "numerics.nan_in_max_pool",
        "NaN in a pooling window",
        "numerics",
        "other meaning",
        keras="""\
pooled = tf.nn.max_pool2d(images, 2, 2, "VALID")
spoiled = tf.nn.max_pool2d(tf.cast(tf.math.is_nan(images), dtype), 2, 2, "VALID")
tf.where(spoiled > 0, np.nan, pooled)""",
        torch="F.max_pool2d(images, 2)",
        naive_keras='tf.nn.max_pool2d(images, 2, 2, "VALID")',
        symptom="the NaN of a diverged network vanishes in TensorFlow",
        fix="look for NaN before the pooling, as PyTorch's does by itself",
        operations=("max_pool2d",),
        inputs={
            "images": given(
                [[[[1.0], [NAN], [2.0]], [[3.0], [4.0], [5.0]], [[0.5], [2.0], [1.0]]]],
                "maps",
            )
        },
        device="cpu",
        note="on the CPU; ReLU and reduce_max keep NaN in both frameworks",
    ),
    Row(
        "numerics.nan_in_relu",
        "NaN through ReLU and the maximum",
        "numerics",
        "same",
        keras="[keras.ops.relu(values), keras.ops.max(values)]",
        torch="[F.relu(values), values.max()]",
        operations=("relu",),
        inputs={"values": given([1.0, NAN, -2.0])},
        note="either keeps NaN; max-pooling is what differs",
    ),
    Row(
        "numerics.xla",
        "prediction compiled by XLA",
        "numerics",
        "same",
        keras="""\
model = keras.Sequential([layers.Conv2D(4, 3, activation="relu")])
model.build(images.shape)
model.set_weights([kernel, bias])
model.compile(jit_compile=True)
model.predict_on_batch(images)""",
        torch="F.relu(F.conv2d(images, kernel, bias))",
        operations=("conv2d",),
        inputs={
            "images": maps(2, 8, 7, 3),
            "kernel": kernel(3, 3, 3, 4),
            "bias": array(4),
        },
        note="compiling changes the rounding and no more; on the CPU the default, "
        "jit_compile='auto', leaves it off",
    ),
    Row(
        "numerics.long_sum",
        "the sum of many numbers",
        "numerics",
        "same",
        keras="[keras.ops.sum(values), keras.ops.mean(values)]",
        torch="[values.sum(), values.mean()]",
        inputs={"values": array(1_000_000, values="uniform")},
        note="both add in blocks, so that float32 loses little even over many numbers; "
        "a loop that adds one by one loses far more",
    ),
    Row(
        "numerics.standard_deviation",
        "standard deviation and variance as functions",
        "numerics",
        "other default",
        keras="[keras.ops.std(values), keras.ops.var(values)]",
        torch="[values.std(correction=0), values.var(correction=0)]",
        naive_torch="[values.std(), values.var()]",
        symptom="statistics of few numbers come out a little larger in PyTorch",
        fix="correction=0: Keras, TensorFlow and NumPy divide by n, PyTorch by n - 1",
        inputs={"values": array(12)},
    ),
    Row(
        "numerics.round_half",
        "rounding a half",
        "numerics",
        "same",
        keras="keras.ops.round(values)",
        torch="torch.round(values)",
        inputs={"values": given([-1.5, -0.5, 0.5, 1.5, 2.5])},
        note="either goes to the even neighbour",
    ),
    Row(
        "numerics.default_dtype",
        "the type that new tensors have",
        "numerics",
        "other name",
        keras="""\
keras.config.set_floatx(dtype)
keras.ops.ones((3,)) / 3""",
        torch="""\
torch.set_default_dtype(getattr(torch, dtype))
torch.ones(3) / 3""",
    ),
    Row(
        "numerics.gradient",
        "the gradient of a function of a tensor",
        "numerics",
        "other name",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(values)
    loss = tf.reduce_sum(tf.sin(values) ** 2)
tape.gradient(loss, values)""",
        torch="""\
values.requires_grad_()
loss = (torch.sin(values) ** 2).sum()
torch.autograd.grad(loss, values)""",
        inputs={"values": array(7)},
    ),
    Row(
        "numerics.same_seed",
        "random numbers from the same seed",
        "numerics",
        "other meaning",
        keras="""\
random = np.random.default_rng(0)
keras.ops.convert_to_tensor(random.standard_normal(5))""",
        torch="""\
random = np.random.default_rng(0)
torch.from_numpy(random.standard_normal(5))""",
        naive_keras="""\
keras.utils.set_random_seed(0)
keras.random.normal((5,))""",
        symptom="one seed gives other weights, orders, crops and dropout masks",
        fix="draw with NumPy for both, or copy the weights across",
    ),
)
