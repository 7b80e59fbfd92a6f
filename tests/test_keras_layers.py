"""The Keras side's own classes: configuration, arithmetic, other types than float32."""

import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from parity.frameworks import keras, tf
from keras_impl import create_model, initializers, layers, optim, weights
from parity import probe
from parity.precision import keras_as
from parity.spec import recipes


@pytest.mark.parametrize(
    "layer",
    [
        layers.LocalResponseNorm(size=3, alpha=0.1),
        layers.Conv2D(4, 3, strides=2, padding=2),
        layers.Conv2D(5, 3, padding=1, groups=5),
        layers.BatchNormalization(momentum=0.7),
        layers.MaxPooling2D(3, strides=2, padding=1, ceil_mode=True),
        layers.AdaptiveAveragePooling2D(3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_from_its_configuration(layer):
    again = type(layer).from_config(layer.get_config())
    images = np.random.default_rng(0).standard_normal((2, 7, 8, 5)).astype(np.float32)
    expected = layer(images)
    again(images)
    again.set_weights(layer.get_weights())
    assert np.array_equal(again(images), expected)


INITIALIZERS = [
    name
    for name in vars(initializers)
    if name[0] != "_" and name.endswith(("_uniform", "_normal"))
]


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_model_with_our_initialiser_and_optimizer_is_saved_and_loaded(name, tmp_path):
    initializer = getattr(initializers, name)()
    layer = keras.layers.Dense(3, kernel_initializer=initializer)
    model = keras.Sequential([keras.Input((4,)), layer])
    assert keras.models.clone_model(model).count_params() == model.count_params()
    model.compile(optim.adam(weight_decay=0.01), "mse")
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 3)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
    assert loaded.layers[0].kernel_initializer.get_config() == initializer.get_config()
    assert loaded.optimizer.l2 == 0.01


@pytest.mark.parametrize("name", recipes.OPTIMIZERS)
def test_an_optimizer_from_its_configuration(name):
    optimizer = optim.create_optimizer(name, 0.1, weight_decay=0.3, clip_norm=2.0)
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


UNITS = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}

# What a sum in 16 bits would spoil: its square, in float16, is beyond what that holds.
WIDE = np.random.default_rng(0).uniform(200, 400, (3, 7, 5, 6)).astype(np.float32)
SUMMING = {
    "LocalResponseNorm": lambda dtype: layers.LocalResponseNorm(dtype=dtype),
    "AdaptiveAveragePooling2D": lambda dtype: layers.AdaptiveAveragePooling2D(
        3, dtype=dtype
    ),
    "BatchNormalization": lambda dtype: layers.BatchNormalization(dtype=dtype),
}


def rounding_of_16_bits(create, policy):
    """Returns a layer's largest relative error, in units, and its statistics'."""
    layer, exact = create(policy), create("float32")
    images = ops.cast(WIDE, layer.compute_dtype)
    outputs = layer(images, training=True)
    assert outputs.dtype == layer.compute_dtype
    expected = exact(ops.cast(images, "float32"), training=True)
    error = np.abs(ops.cast(outputs, "float32") - expected) / np.abs(expected)
    pairs = zip(layer.get_weights(), exact.get_weights(), strict=True)
    statistics = [np.abs(x / y - 1).max() for x, y in pairs if y.all()]
    return error.max() / UNITS[policy], max(statistics, default=0)


@pytest.mark.parametrize("policy", UNITS)
@pytest.mark.parametrize("name", SUMMING)
def test_16_bits_round_once_at_the_end(name, policy):
    outputs, statistics = rounding_of_16_bits(SUMMING[name], policy)
    assert outputs <= 1.01
    assert statistics < 1e-5


@pytest.mark.parametrize("policy", UNITS)
@pytest.mark.parametrize("name", ["LocalResponseNorm", "AdaptiveAveragePooling2D"])
def test_sums_in_16_bits_are_found(name, policy, monkeypatch):
    monkeypatch.setattr(layers, "_at_least_float32", lambda tensor: tensor)
    outputs, _ = rounding_of_16_bits(SUMMING[name], policy)
    assert not outputs <= 1.01


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_local_response_norm_is_the_formula(size):
    constants = {"alpha": 0.3, "beta": 0.6, "k": 1.5}
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    total = np.zeros_like(images)
    for channel in range(6):
        first = max(0, channel - size // 2)
        window = images[..., first : channel - size // 2 + size]
        total[..., channel] = (window**2).sum(-1)
    expected = images / (1.5 + 0.3 * total) ** 0.6
    layer = layers.LocalResponseNorm(size, **constants, dtype="float64")
    np.testing.assert_allclose(layer(images), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("kernel_size", "padding", "options"),
    [
        (3, 1, {}),
        ((3, 5), 1, {}),
        (5, 2, {"groups": 2}),
        (3, 1, {"strides": 2}),
        (2, 1, {}),
        (3, 2, {"dilation_rate": 2}),
        (1, 0, {"groups": 2, "strides": 2}),
    ],
)
def test_a_convolution_is_padded_on_every_side(kernel_size, padding, options):
    images = np.random.default_rng(0).standard_normal((2, 7, 8, 4))
    layer = layers.Conv2D(6, kernel_size, padding=padding, dtype="float64", **options)
    outputs = layer(images)
    assert outputs.shape == layer.compute_output_shape(images.shape)
    border = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    padded, kernel = np.pad(images, border), layer.kernel.numpy()
    groups = options.pop("groups", 1)
    dilations = options.pop("dilation_rate", 1)
    parts = [
        tf.nn.conv2d(x, w, options.get("strides", 1), "VALID", dilations=dilations)
        for x, w in zip(
            np.split(padded, groups, 3), np.split(kernel, groups, 3), strict=True
        )
    ]
    np.testing.assert_allclose(outputs, tf.concat(parts, 3), rtol=0, atol=1e-13)


class Formula(layers.BatchNormalization):
    """Without TensorFlow's kernel."""

    def _has_kernel(self, inputs):
        return False


def normalised(create, dtype, open_batch, **options):
    """Returns outputs, gradients and statistics."""
    random = np.random.default_rng(0)
    images, factors = random.standard_normal((2, 5, 4, 3, 6)).astype(np.float32)
    images, factors = tf.constant(images + 1.5, dtype), tf.constant(factors, dtype)
    layer = create(dtype=dtype, **options)
    layer.build(images.shape)
    values = random.uniform(0.5, 2, np.shape(layer.get_weights()))
    layer.set_weights(values.astype(np.float32))
    shape = [None, *images.shape[1:]] if open_batch else images.shape

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype)])
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
            loss = tf.reduce_sum(outputs * factors)
        return outputs, tape.gradient(loss, [images, *layer.trainable_variables])

    outputs, gradients = step(images)
    found = [outputs, *gradients, *layer.get_weights()[-2:]]
    return [np.asarray(array, float) for array in found]


@pytest.mark.parametrize("open_batch", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}]
)
def test_the_kernel_of_batch_normalisation_is_the_formula(options, open_batch):
    ours = normalised(layers.BatchNormalization, "float32", open_batch, **options)
    exact = normalised(Formula, "float64", open_batch, **options)
    wrong = normalised(Formula, "float64", open_batch, **options | {"epsilon": 0.11})
    for array, answer in zip(ours, exact, strict=True):
        assert np.linalg.norm(array - answer) < 1e-5 * np.linalg.norm(answer)
    assert np.linalg.norm(ours[0] - wrong[0]) > 1e-3 * np.linalg.norm(wrong[0])


def test_where_the_kernel_is_used():
    layer = layers.BatchNormalization()
    layer.build((None, 2, 2, 3))
    used = {
        "float32": layer._has_kernel(tf.zeros((1, 2, 2, 3))),
        "float64": layer._has_kernel(tf.zeros((1, 2, 2, 3), "float64")),
        "vectors": layer._has_kernel(tf.zeros((2, 3))),
    }
    assert used == {"float32": True, "float64": False, "vectors": False}
    for options in ({"axis": 1}, {"synchronized": True}, {"renorm": True}):
        layer = layers.BatchNormalization(**options)
        layer.build((None, 2, 2, 3))
        assert not layer._has_kernel(tf.zeros((1, 2, 2, 3)))


@pytest.mark.parametrize("create", [layers.BatchNormalization, Formula])
def test_one_value_per_channel_has_no_unbiased_variance(create):
    layer = create()
    layer(np.ones((1, 1, 1, 3), np.float32), training=True)
    assert np.isnan(layer.moving_variance).all()
    assert np.isfinite(layer.moving_mean).all()


# One of each family; images and weights are the probe's.
MODELS = [
    "lenet5",
    "block_conv_pool",
    "cnn_padded_pool",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("alexnet", "googlenet", "resnet18", "vgg11_bn")
    ),
]


def outputs_under(name, policy):
    """Returns a model's outputs; the policy is that of all its layers."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        size = probe.image_size(recipes.find(name))
        narrow = {"hidden_units": 16} if name.startswith(("alexnet", "vgg")) else {}
        model = create_model(name, image_size=size, num_classes=5, **narrow)
    finally:
        keras.config.set_dtype_policy(before)
    shapes = {x.layout.name: x.layout.torch_shape for x in weights.named_weights(model)}
    weights.load_state_dict(model, probe.weights(shapes), "the probe")
    for layer in model._flatten_layers():
        assert layer.dtype_policy.name == policy, layer.path
    images = probe.images((4, *model.get_build_config()["input_shape"][1:]))
    outputs = model(images, training=False)
    assert outputs.dtype == model.compute_dtype
    with keras_as(model, "float64", "cpu"):
        exact = model(images, training=False)
    return np.asarray(outputs, float), exact.numpy()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_another_policy(name, policy):
    """The layers' roundings are independent: together they are a few units."""
    outputs, exact = outputs_under(name, policy)
    error = np.linalg.norm(outputs - exact) / np.linalg.norm(exact)
    if policy == "float64":
        assert error == 0
    else:
        assert UNITS[policy] / 8 < error < 8 * UNITS[policy]


SYNCHRONIZED = """
import numpy as np
import tensorflow as tf
from keras_impl.layers import BatchNormalization

(cpu,) = tf.config.list_physical_devices("CPU")
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, halves)
images = np.random.default_rng(0).standard_normal((4, 3, 3, 2)).astype(np.float32)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layer = BatchNormalization(momentum=0.0, synchronized=True)
    layer.build((None, 3, 3, 2))
batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
(batch,) = strategy.experimental_distribute_dataset(batches)
tf.function(lambda x: strategy.run(lambda y: layer(y, training=True), (x,)))(batch)
expected = images.reshape(-1, 2).var(0, ddof=1)
for variance in strategy.experimental_local_results(layer.moving_variance.value):
    np.testing.assert_allclose(variance, expected, rtol=1e-5)
"""


@pytest.mark.slow
def test_the_variance_of_all_replicas_together_is_unbiased():
    subprocess.run([sys.executable, "-c", SYNCHRONIZED], check=True)
