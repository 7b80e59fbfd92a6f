"""`parity.diagnose` on models that are odd but legal: right, or refused in one line."""

import random

import numpy as np
import pytest
import torch.nn.functional as F

import parity
from parity.frameworks import keras, tf, torch
from parity.spec.errors import UsageError

layers, ops, nn = keras.layers, keras.ops, torch.nn
FUNCTION = type(tf.function(lambda: None))
FUNCTION_CALL = FUNCTION.__call__
IMAGES = np.random.default_rng(0).standard_normal((2, 9, 8, 3))


def after_conv(*steps):
    """Returns a Keras model of a convolution and more."""
    return keras.Sequential([keras.Input((9, 8, 3)), layers.Conv2D(4, 3), *steps])


class Written(nn.Module):
    """A convolution `c`, another one `d` and a function of them."""

    def __init__(self, function):
        super().__init__()
        self.c, self.d = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.c, self.pool = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()

    def call(self, x):
        return self.pool(ops.relu(self.c(x)))


def pooled_twin():
    return Written(lambda m, x: F.relu(m.c(x)).mean((2, 3)))


POOLED = nn.AdaptiveAvgPool2d(1), nn.Flatten()


def refused(*arguments, **named) -> str:
    """Returns the line in which a diagnosis is refused."""
    with pytest.raises(UsageError) as error:
        parity.diagnose(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def causes(diagnosis) -> list[str]:
    return [finding.cause for finding in diagnosis.findings]


# --- models that cannot be recorded


def test_weights_without_values_are_named():
    assert "parameter 'weight' of the PyTorch model is on the meta device" in refused(
        after_conv(), nn.Conv2d(3, 4, 3, device="meta")
    )
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    twin[1].running_mean = torch.zeros(4, device="meta")
    model = after_conv(layers.BatchNormalization())
    assert "buffer '1.running_mean' of the PyTorch model" in refused(model, twin)
    assert "'weight' of the PyTorch model has no shape yet" in refused(
        after_conv(), nn.LazyConv2d(4, 3)
    )


def test_a_part_of_which_only_the_graph_is_left_is_named():
    with pytest.warns((DeprecationWarning, FutureWarning)):
        scripted = torch.jit.script(nn.ReLU())
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), scripted)
    assert "1 of the PyTorch model is scripted" in refused(after_conv(), twin)
    exported = torch.export.export(nn.Conv2d(3, 4, 3), (torch.randn(1, 3, 9, 8),))
    assert "model is exported" in refused(after_conv(), exported.module())


def test_a_saved_graph_of_keras_is_named(tmp_path):
    after_conv().export(tmp_path, verbose=False)
    saved = layers.TFSMLayer(tmp_path, call_endpoint="serve")
    model = keras.Sequential([keras.Input((9, 8, 3)), saved])
    assert "0 of the Keras model is a TFSMLayer" in refused(model, nn.Conv2d(3, 4, 3))
    loaded = tf.saved_model.load(tmp_path)

    class Loaded(layers.Layer):
        def call(self, x):
            return loaded.serve(tf.cast(x, "float32"))

        def compute_output_shape(self, shape):
            return (None, 7, 6, 4)

    model = keras.Sequential([keras.Input((9, 8, 3)), Loaded()])
    assert "0 of the Keras model runs a saved graph" in refused(
        model, nn.Conv2d(3, 4, 3)
    )


# --- what is compiled


class Decorated(Subclassed):
    call = tf.function(Subclassed.call)


class Sine(layers.Layer):
    def call(self, x):
        return tf.sin(x)


class Jitted(Sine):
    call = tf.function(Sine.call, jit_compile=True)


class Signed(Sine):
    call = tf.function(
        Sine.call, input_signature=[tf.TensorSpec([None] * 4, tf.float32)]
    )


class Vectorized(Sine):
    def call(self, x):
        return tf.vectorized_map(tf.sin, x)


@pytest.mark.parametrize("kind", [Jitted, Signed, Vectorized])
def test_a_layer_inside_a_tf_function_is_heard(kind):
    diagnosis = parity.diagnose(
        after_conv(kind()), Written(lambda m, x: torch.sin(m.c(x)))
    )
    assert diagnosis.verdict == "equal", diagnosis
    assert FUNCTION.__call__ is FUNCTION_CALL


@pytest.mark.parametrize("level", ["forward", "backward"])
def test_a_fault_inside_a_tf_function_is_found(level):
    model = Decorated()
    model(IMAGES)
    twin = pooled_twin()
    assert parity.diagnose(model, twin, level=level).verdict == "equal"
    twin.c.stride = (2, 2)
    diagnosis = parity.diagnose(model, twin, level=level)
    assert causes(diagnosis) == ["conv.stride"]
    assert FUNCTION.__call__ is FUNCTION_CALL


def test_a_tf_function_that_fails_leaves_the_setting():
    class Failing(Sine):
        @tf.function
        def call(self, x):
            if x.dtype == tf.float64:
                raise RuntimeError("half-way")
            return x

    assert "half-way" in refused(after_conv(Failing()), nn.Conv2d(3, 4, 3))
    assert FUNCTION.__call__ is FUNCTION_CALL


@pytest.mark.parametrize("level", ["forward", "backward"])
def test_a_grouped_convolution_that_keras_compiles(level):
    class Grouped(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(1, 1, 2, 6), name="kernel")

        def call(self, x):
            return ops.conv(x, self.kernel)

    pool = layers.GlobalAveragePooling2D()
    for layer in (Grouped(), layers.Conv2D(6, 1, groups=2, use_bias=False)):
        twin = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1, groups=2, bias=False), *POOLED
        )
        diagnosis = parity.diagnose(after_conv(layer, pool), twin, level=level)
        assert diagnosis.verdict == "equal", diagnosis


def test_a_compiled_module_is_heard():
    twin = torch.compile(Written(lambda m, x: F.relu(m.c(x))))
    assert parity.diagnose(after_conv(layers.ReLU()), twin).verdict == "equal"


# --- models that are not built


def test_an_unbuilt_model_is_built_on_the_images():
    steps = [layers.Conv2D(4, 3), layers.ReLU(), layers.GlobalAveragePooling2D()]
    for model in (Subclassed(), keras.Sequential(steps)):
        assert parity.diagnose(model, pooled_twin(), IMAGES).verdict == "equal"
        assert model.built


def test_a_model_that_was_built_in_part_is_built_and_keeps_its_weights():
    class Late(Subclassed):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            self.scale.assign(self.scale * 2)
            return super().call(x)

    model = Late()
    model.build((None, 9, 8, 3))
    assert parity.diagnose(model, pooled_twin(), level="backward").verdict == "equal"
    assert model.scale.numpy() == 1
    assert model.c.kernel.dtype == "float32"


def test_a_model_that_cannot_be_built_is_refused():
    twin = nn.Conv2d(3, 4, 3)
    assert "it is not built: give images, or call it" in refused(Subclassed(), twin)

    class Failing(keras.Model):
        def call(self, x):
            raise RuntimeError("half\nway")

    assert "RuntimeError" in refused(Failing(), twin, IMAGES)
    assert "is not built and cannot be called on images (1, 8, 3)" in refused(
        Subclassed(), twin, IMAGES[0]
    )

    class Several(keras.Model):
        def __init__(self):
            super().__init__()
            self.built = True

        def call(self, x):
            return x

    assert "the shape of its input is not known" in refused(Several(), twin)


# --- what is left behind


def contents(value: object) -> object:
    """Returns what an attribute is and holds."""
    if isinstance(value, list | set | tuple):
        return [id(value), *map(contents, value)]
    if isinstance(value, dict):
        return [id(value), *(map(contents, [*value, *value.values()]))]
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return value if isinstance(value, int | str | float) else id(value)


def left(*owners: object) -> list:
    """Returns all attributes of layers and modules."""
    return [{k: contents(v) for k, v in vars(owner).items()} for owner in owners]


class Leaving(layers.Layer):
    def __init__(self, fails=False):
        super().__init__()
        self.fails, self.calls, self.seen, self.by_name = fails, 0, [], {"a": []}
        self.inner = layers.Conv2D(4, 1)
        self.raw = tf.Variable(0.0)

    def call(self, x):
        self.last, self.calls = x, self.calls + 1
        self.seen.append(self.calls)
        self.by_name["a"].append(1)
        self.by_name[self.calls] = x
        self.raw.assign_add(1.0)
        self.inner.trainable = False
        self.inner.extra = 1
        y = self.inner(x)
        self.add_loss(ops.mean(y))
        if self.fails and x.dtype == "float64":
            self.inner.kernel.assign(self.inner.kernel * 0)
            raise RuntimeError("half-way")
        return y


@pytest.mark.parametrize("fails", [False, True])
def test_what_call_sets_is_put_back(fails):
    layer = Leaving(fails)
    model = after_conv(layer, layers.GlobalAveragePooling2D())
    model(IMAGES)
    layer.inner.trainable = True
    owners = [x for y in model._flatten_layers() for x in (y, y._tracker)]
    before = left(*owners, *model.variables)
    kernel, raw = layer.inner.kernel.numpy(), layer.raw.numpy()
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), *POOLED)
    if fails:
        assert "half-way" in refused(model, twin)
    else:
        assert parity.diagnose(model, twin).verdict == "equal"
    assert left(*owners, *model.variables) == before
    assert np.array_equal(layer.inner.kernel, kernel)
    assert layer.raw.numpy() == raw


class LeavingModule(nn.Module):
    def __init__(self, fails=False):
        super().__init__()
        self.c, self.fails = nn.Conv2d(3, 4, 3), fails
        self.seen, self.by_name, self.counts = [], {"a": []}, np.zeros(2)
        self.plain = torch.zeros(2)

    def forward(self, x):
        self.seen.append(x)
        self.by_name["a"].append(1)
        self.counts += 1
        self.plain += 1
        self.c.weight.requires_grad_(False)
        self.c.weight.tag = 1
        self.c.register_forward_hook(lambda *_: None)
        if self.fails:
            raise RuntimeError("half-way")
        return self.c(x)


@pytest.mark.parametrize("fails", [False, True])
def test_what_forward_changes_is_put_back(fails):
    twin = LeavingModule(fails)
    owners = [*twin.modules(), *twin.parameters()]
    before = left(*owners)
    if fails:
        assert "half-way" in refused(after_conv(), twin)
    else:
        assert parity.diagnose(after_conv(), twin).verdict == "equal"
    assert left(*owners) == before
    assert twin.plain.tolist() == [0, 0]
    assert twin.c.weight.requires_grad


def drawn() -> list:
    """Returns what every generator of random numbers draws next."""
    return [
        random.random(),
        np.random.rand(),  # noqa: NPY002
        torch.rand(()).item(),
        tf.random.uniform(()),
        tf.random.get_global_generator().uniform(()),
        keras.random.uniform(()),
    ]


class Noisy(layers.Layer):
    def call(self, x):
        drawn()
        return x


def test_random_states_are_left_as_they_were():
    def noisy(module, x):
        drawn()
        return module.c(x) + 1e-3 * torch.randn_like(module.c(x))

    def seed():
        keras.utils.set_random_seed(0)
        torch.manual_seed(0)
        tf.random.set_global_generator(tf.random.Generator.from_seed(0))

    model, twin = after_conv(Noisy()), Written(noisy)
    seed()
    expected = drawn()
    seed()
    assert parity.diagnose(model, twin).verdict == "different"
    assert drawn() == expected


def test_the_images_are_left_as_they_were():
    def shifting(module, x):
        x -= 0.5
        return module.c(x).mean((2, 3))

    model = keras.Sequential(
        [
            keras.Input((9, 8, 3)),
            layers.Rescaling(1.0, -0.5),
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
        ]
    )
    pair = IMAGES.copy(), np.moveaxis(IMAGES, -1, 1).copy()
    for level in ("forward", "backward"):
        diagnosis = parity.diagnose(model, Written(shifting), pair, level=level)
        assert diagnosis.verdict == "equal", diagnosis
    assert np.array_equal(pair[0], IMAGES)
    assert np.array_equal(pair[1], np.moveaxis(IMAGES, -1, 1))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_judged_where_the_caller_has_none(mode):
    model = after_conv(layers.ReLU(), layers.GlobalAveragePooling2D())
    twin = Written(lambda m, x: F.relu(m.c(x)).mean((2, 3)))
    with mode():
        assert parity.diagnose(model, twin, level="backward").verdict == "equal"
        assert not torch.is_grad_enabled()


# --- changes in place


def in_place(change):
    """Returns a module that changes the convolution's output in place."""

    def function(module, x):
        x = module.c(x) * 1.0
        return module.d(change(x))

    return Written(function)


def through(view, change):
    def changed(x):
        change(view(x))
        return x

    return changed


def gated_slice(x):
    return ops.concatenate([x[..., :2] * 2, x[..., 2:]], -1)


def two_halves(x):
    return ops.concatenate([ops.relu(x[..., :2]), ops.tanh(x[..., 2:])], -1)


def halves(x):
    first, second = x.split(2, 1)
    first.relu_()
    second.tanh_()
    return x


def whole(x):
    view = x.view(len(x), 4, -1)
    x.relu_()
    return view.view(x.shape)


def subscript(x):
    x[:, :2] *= 2
    return x


def filled(x):
    buffer = torch.zeros_like(x)
    part = buffer[:, :2]
    part.copy_(x[:, :2] * 2)
    buffer[:, 2:].copy_(x[:, 2:])
    return buffer


IN_PLACE = {
    "view": (ops.relu, through(lambda x: x.view(len(x), 4, -1), F.relu_)),
    "flatten": (ops.relu, through(lambda x: x.flatten(1), F.relu_)),
    "same shape": (ops.relu, through(lambda x: x.view(x.shape), F.relu_)),
    "permute": (ops.relu, through(lambda x: x.permute(0, 2, 3, 1), F.relu_)),
    "sum": (lambda x: x + 1, through(lambda x: x.flatten(1), lambda y: y.add_(1))),
    "the whole": (ops.relu, whole),
    "slice": (gated_slice, through(lambda x: x[:, :2], lambda y: y.mul_(2))),
    "subscript": (gated_slice, subscript),
    "halves": (two_halves, halves),
    "filled": (gated_slice, filled),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_change_through_another_view_is_followed(name):
    ours, theirs = IN_PLACE[name]
    model = after_conv(layers.Lambda(ours), layers.Conv2D(5, 1))
    diagnosis = parity.diagnose(model, in_place(theirs))
    assert diagnosis.verdict == "equal", diagnosis


@pytest.mark.parametrize("name", ["view", "same shape", "slice", "subscript"])
def test_gradients_after_a_change_through_another_view(name):
    ours, theirs = IN_PLACE[name]
    model = after_conv(
        layers.Lambda(ours), layers.Conv2D(5, 1), layers.GlobalAveragePooling2D()
    )
    twin = nn.Sequential(in_place(theirs), *POOLED)
    diagnosis = parity.diagnose(model, twin, level="backward")
    assert diagnosis.verdict == "equal", diagnosis


FAULTS = {
    "view": through(lambda x: x.view(len(x), 4, -1), lambda y: F.leaky_relu_(y, 0.1)),
    "slice": through(lambda x: x[:, :2], lambda y: y.mul_(3)),
    "halves": through(lambda x: x[:, 1:3], F.relu_),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_change_through_another_view_is_found(name):
    model = after_conv(layers.Lambda(IN_PLACE[name][0]), layers.Conv2D(5, 1))
    diagnosis = parity.diagnose(model, in_place(FAULTS[name]))
    assert diagnosis.verdict == "different"
    assert 1e-3 < diagnosis.error < 10
    assert "weights.not_copied" not in causes(diagnosis)


# --- types of numbers


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.c(x.float()),
        lambda m, x: m.c(x.to(torch.float32)),
        lambda m, x: m.c(x.type(dtype=torch.float32)),
    ],
)
def test_a_cast_to_float32_is_one_to_float64(function):
    assert parity.diagnose(after_conv(), Written(function)).verdict == "equal"


def test_a_tensor_that_is_a_plain_attribute_is_one_of_the_weights():
    twin = Written(lambda m, x: F.conv2d(x, m.kernel))
    twin.kernel = torch.randn(4, 3, 3, 3)
    kernel = twin.kernel.numpy().transpose(2, 3, 1, 0)
    model = after_conv()
    model.layers[0].kernel.assign(kernel)
    before = twin.kernel.clone()
    assert parity.diagnose(model, twin, weights="as_is").verdict == "equal"
    assert torch.equal(twin.kernel, before)
    assert twin.kernel.dtype == torch.float32


def test_images_of_whole_numbers():
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3), "uint8")
    model = keras.Sequential(
        [
            keras.Input((9, 8, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3),
        ]
    )
    twin = Written(lambda m, x: m.c(x.float() / 255))
    diagnosis = parity.diagnose(model, twin, images)  # Keras rounds 1 / 255
    assert diagnosis.verdict in ("equal", "rounding"), diagnosis
    twin.function = lambda m, x: m.c(x.float() / 256)
    assert causes(parity.diagnose(model, twin, images)) == ["input.scale"]


def test_a_factor_that_keras_rounds_is_rounding():
    scale = layers.Rescaling(1 / 127.5, -1)
    model = keras.Sequential([keras.Input((9, 8, 3)), scale, layers.Conv2D(4, 3)])
    twin = Written(lambda m, x: m.c(x / 127.5 - 1))
    assert parity.diagnose(model, twin).verdict == "rounding"
    twin.function = lambda m, x: m.c(x / 127.4 - 1)
    assert parity.diagnose(model, twin).verdict == "different"


def test_a_weight_that_is_nan_is_one_weight():
    model = after_conv()
    model.layers[0].bias.assign([np.nan, 1, 2, 3])
    assert parity.diagnose(model, nn.Conv2d(3, 4, 3)).verdict == "equal"


def test_complex_numbers_in_between():
    spectral_layer = layers.Lambda(lambda x: ops.irfft(ops.rfft(x)))
    model = after_conv(spectral_layer, layers.GlobalAveragePooling2D())

    def spectral(factor):
        def function(module, x):
            spectrum = torch.fft.rfft(module.c(x), dim=1) * factor
            return torch.fft.irfft(spectrum, n=4, dim=1).mean((2, 3))

        return Written(function)

    for level in ("forward", "backward"):
        diagnosis = parity.diagnose(model, spectral(1.0), level=level)
        assert diagnosis.verdict == "equal", diagnosis
    assert parity.diagnose(model, spectral(0.5 + 0.5j)).verdict == "different"


def test_single_numbers_in_between():
    class Printing(layers.Layer):
        def call(self, x):
            tf.print("mean", ops.mean(x))
            self.add_loss(ops.mean(x))
            return x / ops.cast(ops.max(ops.abs(x)), x.dtype)

    def printing(module, x):
        y = module.c(x)
        assert f"{y.mean()}"
        return y / y.abs().max()

    diagnosis = parity.diagnose(after_conv(Printing()), Written(printing))
    assert diagnosis.verdict == "equal", diagnosis
    diagnosis = parity.diagnose(
        after_conv(Printing()), Written(lambda m, x: m.c(x) / m.c(x).max())
    )
    assert diagnosis.verdict == "different"


def test_complex_weights():
    twin = Written(lambda m, x: (m.c(x) * m.factor).imag)
    twin.factor = nn.Parameter(torch.full((), 1j))
    assert parity.diagnose(after_conv(), twin).verdict == "equal"
    assert twin.factor.dtype == torch.complex64


# --- images and layers


def test_layers_in_private_attributes():
    class Private(keras.Model):
        def __init__(self):
            super().__init__()
            self._c, self._more = layers.Conv2D(4, 3), [layers.Conv2D(5, 1)]

        def call(self, x):
            for layer in (self._c, *self._more):
                x = layer(x)
            return x

    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1))
    diagnosis = parity.diagnose(Private(), twin, IMAGES)
    assert diagnosis.verdict == "equal", diagnosis
    names = [match.keras_name for match in diagnosis.alignment]
    assert names == ["_c", "_more.0"]


def test_a_dictionary_without_an_order_is_refused():
    twin = Written(lambda m, x: {1: m.c(x), "a": x})
    assert "keys cannot be sorted" in refused(after_conv(), twin)


def test_images_of_other_kinds():
    model, twin = after_conv(), nn.Conv2d(3, 4, 3)
    for images in (
        torch.tensor(IMAGES, requires_grad=True),
        torch.tensor(IMAGES, dtype=torch.bfloat16),
        list(IMAGES),
        (IMAGES, np.moveaxis(IMAGES, -1, 1)),
    ):
        assert parity.diagnose(model, twin, images).verdict == "equal"
    assert "real numbers" in refused(model, twin, IMAGES + 1j)


def test_layers_that_augment_are_off():
    augmenting = [layers.RandomFlip(), layers.RandomRotation(0.1)]
    for steps in (augmenting, [layers.Pipeline(augmenting)]):
        model = keras.Sequential([keras.Input((9, 8, 3)), *steps, layers.Conv2D(4, 3)])
        assert parity.diagnose(model, nn.Conv2d(3, 4, 3)).verdict == "equal"


@pytest.mark.parametrize("factor", [1, 2])
def test_the_gradient_of_a_function_of_its_own(factor):
    class Sin(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return torch.sin(x)

        @staticmethod
        def backward(context, gradient):
            return factor * gradient * torch.cos(*context.saved_tensors)

    model = after_conv(layers.Lambda(ops.sin), layers.GlobalAveragePooling2D())
    twin = Written(lambda m, x: Sin.apply(m.c(x)).mean((2, 3)))
    found = causes(parity.diagnose(model, twin, level="backward"))
    assert found == ([] if factor == 1 else ["gradient.scaled"])
