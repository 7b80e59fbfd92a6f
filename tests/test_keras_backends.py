"""Keras's other backends build, run and train the same models as TensorFlow.

A process has one backend: this file is also the program that each of them runs.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import keras_impl
from keras_impl import optim, weights
from parity import probe
from parity.spec import recipes

pytestmark = pytest.mark.slow

BACKENDS = ("jax", "torch")
BACKEND = keras.backend.backend()
UNIT = 2.0**-24

# One of each family.
MODELS = {
    "alexnet": {"hidden_units": 16},
    "block_conv_pool": {},
    "cnn_padded_pool": {},
    "googlenet": {},
    "lenet5": {},
    "resnet18": {},
    "vgg11_bn": {"hidden_units": 16},
}
TRAINED = {"lenet5": "adam", "resnet18": "momentum"}
# One tensor's gradients are so small that Adam's epsilon counts.
SCALES = (1e-7, 1.0)
OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.03},
    "decoupled": {"weight_decay": 0.03, "decoupled": True},
    "norm": {"clip": ("norm", 0.5)},
    "global_norm": {"clip": ("global_norm", 0.5)},
}
CASES = [(name, "plain") for name in recipes.OPTIMIZERS]
CASES += [("adam", options) for options in OPTIONS if options != "plain"]
RATE = 0.25


def make_model(name, **arguments):
    """Returns a model with the probe's weights, at the smallest unequal H and W."""
    size = probe.image_size(recipes.find(name))
    model = keras_impl.create_model(name, image_size=size, num_classes=5, **arguments)
    layouts = [weight.layout for weight in weights.named_weights(model)]
    shapes = {x.name: x.torch_shape for x in sorted(layouts, key=lambda x: x.name)}
    weights.load_state_dict(model, probe.weights(shapes), "the probe")
    return model


def problem():
    """Returns the weights to start from and five steps' gradients."""
    random = np.random.default_rng(0)
    start = [scale * random.standard_normal((3, 5)) for scale in SCALES]
    steps = [[scale * random.standard_normal((3, 5)) for scale in SCALES]] * 2
    steps += [[-2 * array for array in arrays] for arrays in steps]
    return start, [*steps, steps[0]]


def model_answers(name, arguments):
    """Returns outputs, and the weights after a forward pass as in training."""
    model = make_model(name, **arguments)
    images = ops.convert_to_tensor(probe.images((4, *model_size(model))))
    yield "outputs", model(images, training=False)
    model(images, training=True)
    for key, array in weights.state_dict(model).items():
        yield f"weights/{key}", array


def model_size(model):
    """Returns (H, W, C)."""
    return model.get_build_config()["input_shape"][1:]


def training_answers(name, optimizer):
    """Returns the losses of three steps by Keras's own training."""
    model = make_model(name)
    images = probe.images((4, *model_size(model)))
    model.compile(
        optimizer=optim.create_optimizer(optimizer, 1e-3, clip_norm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=BACKEND == "jax",
    )
    losses = [model.train_on_batch(images, probe.labels(4, 5)) for _ in range(3)]
    yield "losses", np.array(losses)
    yield "iterations", model.optimizer.iterations


def step_answers(name, options):
    """Returns the weights after five steps, with state and without."""
    start, steps = problem()
    variables = [keras.Variable(array, dtype="float32") for array in start]
    optimizer = getattr(optim, name)(RATE, **OPTIONS[options])
    optimizer.build(variables)
    if BACKEND != "tensorflow":
        values, state = (
            [ops.convert_to_tensor(ops.copy(x)) for x in part]
            for part in (variables, optimizer.variables)
        )
        apply = optimizer.stateless_apply
        if BACKEND == "jax":
            import jax

            apply = jax.jit(apply)
        for arrays in steps:
            values, state = apply(state, tensors(arrays), values)
        yield "stateless/0", values[0]
        yield "stateless/1", values[1]
        yield "stateless/iterations", state[0]
    for arrays in steps:
        optimizer.apply(tensors(arrays))
    yield "0", variables[0]
    yield "1", variables[1]
    yield "iterations", optimizer.iterations


def clipping_answers(kind):
    """Returns clipped gradients, small ones too and one that is infinite."""
    clip = getattr(optim, f"clip_by_{kind}")
    given = tensors(problem()[1][0])
    for limit in (0.5, 100.0):
        first, nothing, second = clip([given[0], None, given[1]], limit)
        assert nothing is None
        yield f"{limit}/0", first
        yield f"{limit}/1", second
    if kind == "global_norm":
        infinite = tensors([[np.inf, 1.0], [2.0]])
        yield "infinite", ops.concatenate(clip(infinite, 1.0))


def tensors(arrays):
    """Returns float32 tensors."""
    return [ops.convert_to_tensor(np.asarray(x, "float32")) for x in arrays]


def answers():
    """Returns all that is compared, by name."""
    parts = {f"models/{k}": model_answers(k, v) for k, v in MODELS.items()}
    parts |= {f"training/{k}": training_answers(k, v) for k, v in TRAINED.items()}
    parts |= {f"steps/{n}/{o}": step_answers(n, o) for n, o in CASES}
    kinds = ("value", "norm", "global_norm")
    parts |= {f"clipping/{kind}": clipping_answers(kind) for kind in kinds}
    return {
        f"{part}/{key}": ops.convert_to_numpy(value)
        for part, pairs in parts.items()
        for key, value in pairs
    }


@pytest.fixture(scope="module")
def expected():
    """TensorFlow's answers."""
    return answers()


@pytest.fixture(scope="module", params=BACKENDS)
def found(request, tmp_path_factory):
    """Another backend's answers, from a process of its own."""
    path = tmp_path_factory.mktemp("backends") / f"{request.param}.npz"
    environment = {"KERAS_BACKEND": request.param, "JAX_PLATFORMS": "cpu"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    done = subprocess.run(
        [sys.executable, __file__, path],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    with np.load(path) as file:
        return dict(file)


def error(array, other):
    """Returns the relative L2 error."""
    array, other = (np.asarray(x, float) for x in (array, other))
    return np.linalg.norm(array - other) / np.linalg.norm(other)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_gives_the_same(model, found, expected):
    keys = [key for key in expected if key.startswith(f"models/{model}/")]
    assert keys == [key for key in found if key.startswith(f"models/{model}/")]
    for key in keys:
        assert error(found[key], expected[key]) < 100 * UNIT, key


@pytest.mark.parametrize("model", TRAINED)
def test_keras_trains_it_alike(model, found, expected):
    losses, others = (x[f"training/{model}/losses"] for x in (found, expected))
    assert error(losses, others) < 100 * UNIT
    assert len(set(losses.tolist())) == 3
    assert found[f"training/{model}/iterations"] == 3


@pytest.mark.parametrize(("name", "options"), CASES)
def test_five_steps_are_the_papers(name, options, found, expected):
    from parity.test_optimizer import paper_steps  # loads both frameworks

    start, steps = problem()
    *_, paper = paper_steps(name, start, [RATE] * 5, steps, **OPTIONS[options])
    key = f"steps/{name}/{options}"
    for side in (found, expected):
        assert side[f"{key}/iterations"] == 5
        for kind in ("", "stateless/") if side is found else ("",):
            for index, answer in enumerate(paper):
                assert error(side[f"{key}/{kind}{index}"], answer) < 16 * UNIT
    assert found[f"{key}/stateless/iterations"] == 5


@pytest.mark.parametrize("kind", ["value", "norm", "global_norm"])
def test_gradients_are_clipped_alike(kind, found, expected):
    keys = [key for key in expected if key.startswith(f"clipping/{kind}/")]
    for key in keys:
        if key.endswith("infinite"):
            assert np.isnan(found[key]).all()
        else:
            assert error(found[key], expected[key]) < 8 * UNIT


if __name__ == "__main__":
    np.savez(sys.argv[1], **answers())
