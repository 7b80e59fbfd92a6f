"""Models that people bring: branches, blocks, reused layers, functional models."""

import numpy as np
import pytest

import parity
from parity.frameworks import keras, torch
from keras_impl import weights as keras_weights
from parity.spec.errors import UsageError

layers, ops = keras.layers, keras.ops


def torch_net(forward, **modules):
    """Returns a module of some submodules and a forward function."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            for name, module in modules.items():
                setattr(self, name, module)

        def forward(self, images):
            return forward(self, images)

    return Net()


def keras_net(call, shape=(4, 3, 2), **children):
    """Returns a subclassed model of some layers and a call function."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            for name, child in children.items():
                setattr(self, name, child)

        def call(self, images):
            return call(self, images)

    model = Net()
    model(keras.Input(shape))
    return model


def assert_copy_is_equal(keras_model, torch_model, rules=None):
    rows = parity.copy_weights(torch_model, keras_model)
    if rules:
        assert {row.name: row.rule for row in rows if row.name in rules} == rules
    report = parity.assert_parity(keras_model, torch_model)
    parity.copy_weights(keras_model, torch_model)
    gradients = parity.compare_gradients(keras_model, torch_model)
    assert gradients.verdict == "equal", gradients
    return report


def test_two_heads_on_one_flattened_map():
    def call(m, x):
        x = m.flat(x)
        return m.a(x) * m.b(x)

    children = {"flat": layers.Flatten(), "a": layers.Dense(3), "b": layers.Dense(3)}
    modules = {
        "flat": torch.nn.Flatten(),
        "a": torch.nn.Linear(24, 3),
        "b": torch.nn.Linear(24, 3),
    }
    rule = "(HWC)O -> O(CHW)"
    assert_copy_is_equal(
        keras_net(call, **children),
        torch_net(call, **modules),
        {"a.weight": rule, "b.weight": rule},
    )


def test_squeeze_and_excite_before_a_flattening_that_is_no_layer():
    def call(m, x):
        x = m.conv(x)
        gate = ops.sigmoid(m.gate(ops.mean(x, (1, 2))))
        x = x * ops.reshape(gate, (-1, 1, 1, 5))
        return m.head(ops.reshape(x, (-1, 60)))

    def forward(m, x):
        x = m.conv(x)
        gate = torch.sigmoid(m.gate(x.mean((2, 3))))
        return m.head((x * gate[:, :, None, None]).flatten(1))

    assert_copy_is_equal(
        keras_net(
            call, conv=layers.Conv2D(5, 1), gate=layers.Dense(5), head=layers.Dense(3)
        ),
        torch_net(
            forward,
            conv=torch.nn.Conv2d(2, 5, 1),
            gate=torch.nn.Linear(5, 5),
            head=torch.nn.Linear(60, 3),
        ),
        {"gate.weight": "IO -> OI", "head.weight": "(HWC)O -> O(CHW)"},
    )


def test_a_normalisation_of_a_flattened_map_is_refused():
    model = keras.Sequential(
        [
            keras.Input((4, 3, 2)),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )
    with pytest.raises(parity.WeightMismatch, match="on a flattened map"):
        keras_weights.state_dict(model)


class Block(layers.Layer):
    """A residual block whose layers hang in a list."""

    def __init__(self):
        super().__init__()
        self.convs = [layers.Conv2D(4, 3, padding="same") for _ in range(2)]

    def call(self, x):
        y = x
        for conv in self.convs:
            y = ops.relu(conv(y))
        return x + y


class TorchBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        convs = [torch.nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)]
        self.convs = torch.nn.ModuleList(convs)

    def forward(self, x):
        y = x
        for conv in self.convs:
            y = conv(y).relu_()
        return x + y


def block_twins():
    def call(m, x):
        return m.head(ops.mean(m.block(m.stem(x)), (1, 2)))

    def forward(m, x):
        return m.head(m.block(m.stem(x)).mean((2, 3)))

    return (
        keras_net(call, stem=layers.Conv2D(4, 1), block=Block(), head=layers.Dense(3)),
        torch_net(
            forward,
            stem=torch.nn.Conv2d(2, 4, 1),
            block=TorchBlock(),
            head=torch.nn.Linear(4, 3),
        ),
    )


def test_a_block_of_ones_own():
    keras_model, torch_model = block_twins()
    report = assert_copy_is_equal(keras_model, torch_model)
    names = [layer.keras_name for layer in report.layers]
    assert names == ["stem", "block.convs.0", "block.convs.1", "head"]


def test_what_an_operation_in_place_overwrites_is_compared_before():
    keras_model, torch_model = block_twins()
    parity.copy_weights(torch_model, keras_model)
    convolve = torch_model.block.convs[0].forward
    # Negative values only: the ReLU in place would hide the difference.
    torch_model.block.convs[0].forward = lambda x: torch.where(
        convolve(x) < 0, 2 * convolve(x), convolve(x)
    )
    report = parity.compare(keras_model, torch_model)
    assert report.first_divergence.torch_name == "block.convs.0"


def test_a_functional_model_with_a_sum_and_a_concatenation():
    images = keras.Input((4, 3, 2))
    a = layers.Conv2D(4, 1, name="a")(images)
    b = layers.Conv2D(4, 1, name="b")(images)
    x = layers.Concatenate(name="cat")([layers.Add(name="add")([a, b]), a])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    keras_model = keras.Model(images, layers.Dense(3, name="head")(x))

    class Add(torch.nn.Module):
        def forward(self, tensors):
            return tensors[0] + tensors[1]

    class Cat(torch.nn.Module):
        def forward(self, tensors):
            return torch.cat(tensors, 1)

    class Pool(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    def forward(m, x):
        a, b = m.a(x), m.b(x)
        return m.head(m.pool(m.cat([m.add([a, b]), a])))

    torch_model = torch_net(
        forward,
        a=torch.nn.Conv2d(2, 4, 1),
        b=torch.nn.Conv2d(2, 4, 1),
        add=Add(),
        cat=Cat(),
        pool=Pool(),
        head=torch.nn.Linear(8, 3),
    )
    assert_copy_is_equal(keras_model, torch_model)
    torch_model.add.forward = lambda tensors: tensors[0] - tensors[1]
    report = parity.compare(keras_model, torch_model)
    assert report.first_divergence.torch_name == "add"


def test_a_layer_that_is_used_twice():
    def call(m, x):
        x = m.conv(x)
        return ops.mean(m.conv(ops.tanh(x)), (1, 2))

    def forward(m, x):
        x = m.conv(x)
        return m.conv(torch.tanh(x) * m.factor).mean((2, 3))

    keras_model = keras_net(call, conv=layers.Conv2D(2, 1))
    torch_model = torch_net(forward, conv=torch.nn.Conv2d(2, 2, 1))
    torch_model.factor = 1.0
    report = assert_copy_is_equal(keras_model, torch_model)
    assert [layer.keras_name for layer in report.layers] == ["conv", "conv"]
    torch_model.factor = 1.5  # the second call alone is wrong
    report = parity.compare(keras_model, torch_model)
    first, second = report.layers
    assert (first.verdict, first.where) == ("different", "after")
    assert second.verdict == "different"


def test_a_dense_layer_whose_activation_is_a_layer():
    def call(m, x):
        return m.head(m.flat(x))

    keras_model = keras_net(
        call, flat=layers.Flatten(), head=layers.Dense(3, activation=layers.ReLU())
    )
    head = torch.nn.Sequential(torch.nn.Linear(24, 3), torch.nn.ReLU())
    torch_model = torch_net(call, flat=torch.nn.Flatten(), head=head[0])
    torch_model.head.forward = lambda x, f=head[0].forward: f(x).relu()
    parity.copy_weights(torch_model, keras_model)
    rows = {x.keras_name: x for x in parity.compare(keras_model, torch_model).layers}
    assert rows["head"].verdict == "equal"


def test_several_outputs():
    def call(m, x):
        x = m.conv(x)
        return {"map": x, "mean": ops.mean(x, (1, 2))}

    def forward(m, x):
        x = m.conv(x)
        return {"mean": x.mean((2, 3)), "map": x}

    keras_model = keras_net(call, conv=layers.Conv2D(4, 1))
    torch_model = torch_net(forward, conv=torch.nn.Conv2d(2, 4, 1))
    parity.copy_weights(torch_model, keras_model)
    assert parity.compare(keras_model, torch_model).verdict == "equal"


def test_models_without_layers():
    keras_model = keras_net(lambda m, x: ops.tanh(x))
    torch_model = torch_net(lambda m, x: torch.tanh(x))
    assert parity.compare(keras_model, torch_model).verdict == "equal"
    torch_model = torch_net(lambda m, x: torch.sin(x))
    report = parity.compare(keras_model, torch_model)
    assert report.first_divergence.torch_name == "model"


def test_a_keyword_argument_and_open_image_sizes():
    images = keras.Input((None, None, 2))
    x = layers.Conv2D(4, 3, name="conv")(images)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    keras_model = keras.Model(images, x)

    class Pool(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    torch_model = torch_net(
        lambda m, x: m.pool(x=m.conv(input=x)),
        conv=torch.nn.Conv2d(2, 4, 3),
        pool=Pool(),
    )
    assert_copy_is_equal(keras_model, torch_model)


def test_frozen_on_both_sides():
    keras_model, torch_model = block_twins()
    parity.copy_weights(torch_model, keras_model)
    keras_model.stem.trainable = False
    torch_model.stem.requires_grad_(False)
    report = parity.compare_gradients(keras_model, torch_model)
    assert report.verdict == "equal", report
    assert "stem.weight" not in [layer.torch_name for layer in report.layers]


def test_built_by_calling_it_on_an_array():
    def call(m, x):
        return m.head(m.flat(x))

    model = keras_net(call, flat=layers.Flatten(), head=layers.Dense(3))
    other = type(model)()
    other(np.zeros((1, 4, 3, 2), np.float32))
    torch_model = torch_net(call, flat=torch.nn.Flatten(), head=torch.nn.Linear(24, 3))
    parity.copy_weights(torch_model, other)
    images = np.random.default_rng(0).random((5, 4, 3, 2))
    assert parity.compare(other, torch_model, images).verdict == "equal"


def test_several_inputs_are_refused():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, layers.Add()(inputs))
    with pytest.raises(UsageError, match="has several inputs"):
        parity.compare(model, torch.nn.Linear(4, 4))


def test_half_precision_weights_are_copied_whole():
    keras.config.set_dtype_policy("bfloat16")
    try:
        model, torch_model = block_twins()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.head.kernel.dtype == "bfloat16"
    parity.copy_weights(model, torch_model)
    kernel = keras.ops.cast(model.head.kernel, "float32").numpy()
    assert np.array_equal(torch_model.head.weight.detach().numpy(), kernel.T)


def test_a_rough_output_in_float32_is_found():
    keras_model, torch_model = block_twins()
    parity.copy_weights(torch_model, keras_model)
    forward = torch_model.forward
    torch_model.forward = lambda x: (
        forward(x).bfloat16().float() if x.dtype == torch.float32 else forward(x)
    )
    report = parity.compare(keras_model, torch_model, dtype="float32")
    assert report.verdict == "different"
    assert report.error > 1e-4
    assert report.first_divergence.torch_name == "head"
    assert report.first_divergence.where == "after"


def test_a_rough_output_on_both_sides_is_found():
    """Two sides that are bit-equal in float32 may both be far from the answer."""
    keras_model = keras_net(lambda m, x: ops.cast(ops.cast(x, "bfloat16"), x.dtype))
    torch_model = torch_net(lambda m, x: x.bfloat16().to(x.dtype))
    rough_call, rough_forward = keras_model.call, torch_model.forward
    exact = "float64"
    object.__setattr__(
        keras_model, "call", lambda x: x if x.dtype == exact else rough_call(x)
    )
    torch_model.forward = lambda x: x if x.dtype == torch.float64 else rough_forward(x)
    assert parity.compare(keras_model, torch_model).verdict == "equal"
    report = parity.compare(keras_model, torch_model, dtype="float32")
    assert report.error == 0.0
    assert report.verdict == "different"


def test_float64_images_in_float32():
    keras_model, torch_model = block_twins()
    parity.copy_weights(torch_model, keras_model)
    images = np.random.default_rng(0).random((2, 4, 3, 2))
    report = parity.compare(keras_model, torch_model, images, dtype="float32")
    assert report.verdict in ("equal", "rounding")
    assert report.layers[0].torch_error < 3e-7


def test_tf32_settings_are_put_back():
    keras_model, torch_model = block_twins()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        parity.compare(keras_model, torch_model)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
