"""`parity.copy_aligned`: whatever a model makes of a weight on its way to a step."""

import numpy as np
import pytest

import parity
from parity.frameworks import keras, torch

layers, ops, nn = keras.layers, keras.ops, torch.nn
SIZE, FEATURES = (5, 6, 8), 7


class Computed(nn.Module):
    """A function of images and of weights; of maps that it gives, the mean."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.randn(FEATURES))

    def forward(self, x):
        x = self.function(x, self.weight, self.bias)
        return x if x.dim() == 2 else x.mean((2, 3))


class ComputedInKeras(layers.Layer):
    """The same in Keras."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function, self.shape = function, shape

    def build(self, shape):
        self.weight = self.add_weight(shape=self.shape, initializer="random_normal")
        self.bias = self.add_weight(shape=(FEATURES,), initializer="random_normal")

    def call(self, x):
        return self.function(x, self.weight, self.bias)


F = nn.functional
# On vectors, and on maps whose mean is taken afterwards.
TORCH = {
    "linear": (lambda x, w, b: F.linear(x.mean((2, 3)), w, b), (7, 8)),
    "product": (lambda x, w, b: x.mean((2, 3)) @ w + b, (8, 7)),
    "addmm": (lambda x, w, b: torch.addmm(b, x.mean((2, 3)), w), (8, 7)),
}
TORCH_MAPS = {
    "einsum": (
        lambda x, w, b: torch.einsum("nchw,co->nohw", x, w) + b.view(-1, 1, 1),
        (8, 7),
    ),
    "einsum, weight first": (
        lambda x, w, b: (
            torch.einsum("oc,n...c->n...o", w, x.movedim(1, -1)) + b
        ).movedim(-1, 1),
        (7, 8),
    ),
    "convolution": (F.conv2d, (7, 8, 1, 1)),
    "reshaped": (lambda x, w, b: F.conv2d(x, w.view(7, 8, 1, 1), b), (7, 8)),
}
KERAS = {
    "product": (lambda x, w, b: ops.matmul(ops.mean(x, (1, 2)), w) + b, (8, 7)),
    "transposed": (
        lambda x, w, b: ops.matmul(ops.mean(x, (1, 2)), ops.transpose(w)) + b,
        (7, 8),
    ),
}
KERAS_MAPS = {"einsum": (lambda x, w, b: ops.einsum("nhwc,co->nhwo", x, w) + b, (8, 7))}
PAIRS = [(a, b) for a in ("dense", *KERAS) for b in TORCH]
PAIRS += [(a, b) for a in ("EinsumDense", *KERAS_MAPS) for b in TORCH_MAPS]


def keras_model(name: str) -> keras.Model:
    inputs = keras.Input(SIZE)
    if name == "dense":
        x = layers.Dense(FEATURES)(layers.GlobalAveragePooling2D()(inputs))
    elif name == "EinsumDense":
        x = layers.EinsumDense("...c,co->...o", FEATURES, bias_axes="o")(inputs)
    else:
        function, shape = (KERAS | KERAS_MAPS)[name]
        x = ComputedInKeras(function, *shape)(inputs)
    x = x if len(x.shape) == 2 else layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, x)


def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, *SIZE))


def torch_outputs(module: nn.Module) -> np.ndarray:
    given = torch.from_numpy(images().transpose(0, 3, 1, 2).copy()).float()
    with torch.no_grad():
        return module(given).numpy()


@pytest.mark.parametrize("direction", ["to torch", "to keras"])
@pytest.mark.parametrize(("keras_name", "torch_name"), PAIRS)
def test_a_weight_goes_where_it_belongs(keras_name, torch_name, direction):
    torch.manual_seed(0)
    function, shape = (TORCH | TORCH_MAPS)[torch_name]
    model, twin = keras_model(keras_name), Computed(function, *shape)
    parity.copy_aligned(*((model, twin) if "torch" in direction else (twin, model)))
    ours = model(images().astype("float32")).numpy()
    np.testing.assert_allclose(torch_outputs(twin), ours, atol=1e-5)
    assert parity.diagnose(model, twin, images(), weights="as_is").verdict == "equal"


def test_gradients_are_compared_in_one_layout():
    function, shape = TORCH["product"]
    model, twin = keras_model("dense"), Computed(function, *shape)
    optimizers = keras.optimizers.SGD(0.1), torch.optim.SGD(twin.parameters(), 0.1)
    diagnosis = parity.diagnose(
        model,
        twin,
        images(),
        level="training",
        keras_optimizer=optimizers[0],
        torch_optimizer=optimizers[1],
    )
    assert diagnosis.verdict == "equal", diagnosis


class Negative(nn.Module):
    """Subtracts what Keras adds: no weight of Keras's is its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 8))
        self.bias = nn.Parameter(torch.randn(7))

    def forward(self, x):
        return x.mean((2, 3)) @ self.weight.t() - self.bias


def test_a_weight_that_another_is_computed_of_is_not_copied():
    model, twin = keras_model("dense"), Negative()
    before = twin.bias.detach().clone()
    with pytest.raises(parity.WeightMismatch, match="bias .* has no partner"):
        parity.copy_aligned(model, twin)
    assert torch.equal(twin.bias, before)


class Normalised(nn.Module):
    """Holds the mean and the scale of its images, but does not save them."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]), persistent=False)
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        return self.linear((x - self.mean.view(1, 3, 1, 1)).mean((2, 3)))


def test_a_buffer_that_is_not_saved_needs_no_partner():
    inputs = keras.Input((4, 4, 3))
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[1.0, 1.0, 1.0])(inputs)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    copied = parity.copy_aligned(model, Normalised())
    assert [name for _, name in copied] == ["linear.weight", "linear.bias"]


class Affine(nn.Module):
    """A product and a sum with weights, in the forward function of the model."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, FEATURES, 1, bias=False)
        self.scale = nn.Parameter(torch.randn(FEATURES, 1, 1))
        self.shift = nn.Parameter(torch.randn(FEATURES, 1, 1))

    def forward(self, x):
        return (self.shift + self.scale * self.conv(x)).mean((2, 3))


@pytest.mark.parametrize("direction", ["to torch", "to keras"])
def test_a_product_and_a_sum_with_weights_are_copied(direction):
    inputs = keras.Input(SIZE)
    x = layers.Conv2D(FEATURES, 1, use_bias=False)(inputs)
    x = ComputedInKeras(lambda x, w, b: x * w + b, FEATURES)(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    twin = Affine()
    assert parity.diagnose(model, twin, images()).verdict == "equal"
    parity.copy_aligned(*((model, twin) if "torch" in direction else (twin, model)))
    ours = model(images().astype("float32")).numpy()
    np.testing.assert_allclose(torch_outputs(twin), ours, atol=1e-5)


class Reversed(nn.Module):
    """The negative of the difference the other way round."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Conv2d(8, FEATURES, 3), nn.Conv2d(8, FEATURES, 3)

    def forward(self, x):
        u, v = self.u(x), self.v(x)
        return -(v - u)


def test_a_difference_the_other_way_round():
    inputs = keras.Input(SIZE)
    first, second = (layers.Conv2D(FEATURES, 3, name=name) for name in "pq")
    difference = layers.Subtract()([first(inputs), second(inputs)])
    model, twin = keras.Model(inputs, difference), Reversed()
    copied = parity.copy_aligned(model, twin)
    assert ("p.kernel", "u.weight") in copied
    ours = model(images().astype("float32")).numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(torch_outputs(twin), ours, atol=1e-5)


class Tied(nn.Module):
    """A product with a weight, and one with the same weight turned."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return torch.relu(x.mean((2, 3)) @ self.weight) @ self.weight.t()


def two_dense() -> keras.Model:
    inputs = keras.Input(SIZE)
    x = layers.GlobalAveragePooling2D()(inputs)
    x = layers.Dense(8, "relu", use_bias=False, name="first")(x)
    return keras.Model(inputs, layers.Dense(8, use_bias=False, name="second")(x))


def test_each_use_of_a_weight_has_its_own_places():
    model, twin = two_dense(), Tied()
    parity.copy_aligned(twin, model)
    ours = model(images().astype("float32")).numpy()
    np.testing.assert_allclose(torch_outputs(twin), ours, atol=1e-5)
    model.get_layer("second").kernel.assign(np.ones((8, 8)))
    before = twin.weight.detach().clone()
    with pytest.raises(
        parity.WeightMismatch, match="one weight in PyTorch and several"
    ):
        parity.copy_aligned(model, twin)
    assert torch.equal(twin.weight, before)


class Halved(nn.Module):
    """Uses half of its weight, and then the weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return torch.relu(x.mean((2, 3)) @ (self.weight * 0.5)) @ self.weight


def test_a_use_of_what_was_computed_of_a_weight_is_not_copied():
    with pytest.raises(parity.WeightMismatch, match="first.kernel .* has no partner"):
        parity.copy_aligned(Halved(), two_dense())


def test_a_kernel_of_as_many_numbers_does_not_fit():
    inputs = keras.Input(SIZE)
    model = keras.Model(inputs, layers.Conv2D(4, (1, 3))(inputs))
    twin = nn.Sequential(nn.Conv2d(8, 4, (3, 1)))
    before = twin[0].weight.detach().clone()
    with pytest.raises(parity.WeightMismatch, match="does not fit"):
        parity.copy_aligned(model, twin)
    assert torch.equal(twin[0].weight, before)


COMPUTED = {
    "negative": (lambda x, w, b: x - w, lambda x, w, b: x + w.view(-1, 1, 1)),
    "inverse": (lambda x, w, b: x * w, lambda x, w, b: x / w.view(-1, 1, 1)),
    "exponential": (
        lambda x, w, b: x * w,
        lambda x, w, b: x * w.exp().view(-1, 1, 1),
    ),
    "rectified": (
        lambda x, w, b: x * w,
        lambda x, w, b: x * F.relu(w).view(-1, 1, 1),
    ),
    "half": (lambda x, w, b: x * w, lambda x, w, b: x * (0.5 * w).view(-1, 1, 1)),
}
ALIKE = {
    "negative": (lambda x, w, b: x - w, lambda x, w, b: x - w.view(-1, 1, 1)),
    "inverse": (lambda x, w, b: x / w, lambda x, w, b: x / w.view(-1, 1, 1)),
    "exponential": (
        lambda x, w, b: x * ops.exp(w),
        lambda x, w, b: x * w.exp().view(-1, 1, 1),
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_of_a_weight_is_compared_too(name):
    assert verdict_of(*COMPUTED[name]) == "different"


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_computed_of_a_weight_in_one_way_is_equal(name):
    assert verdict_of(*ALIKE[name]) == "equal"


def verdict_of(keras_function, torch_function) -> str:
    inputs = keras.Input(SIZE)
    x = ComputedInKeras(keras_function, 8)(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    return parity.diagnose(model, Computed(torch_function, 8), images()).verdict
