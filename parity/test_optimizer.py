"""Rung 7: 100 steps in lockstep; each optimizer makes the same steps on both sides.

A third witness is each paper's algorithm, written down in NumPy.
"""

import inspect
from pathlib import Path

import numpy as np
import pytest

import parity
import parity.training
from parity.frameworks import keras, tf, torch
from keras_impl import data as keras_data
from keras_impl import optim as keras_optim
from parity.conftest import make_twins
from parity.precision import keras_as
from parity.spec import datasets
from parity.spec.errors import UsageError
from parity.spec.recipes import OPTIMIZERS
from parity.spec.tolerances import relative_error
from torch_impl import data as torch_data
from torch_impl import optim as torch_optim

RATES = {"sgd": 0.01, "momentum": 0.01, "adam": 1e-3}
MORE_RATES = {"nesterov": 0.003, "adamw": 1e-3, "rmsprop": 1e-3, "adagrad": 0.01}

# The magnitudes of four tensors and of their gradients.
SCALES = (1e-7, 1e-4, 1.0, 1e2)
STEPS = 50
DECAYS = {
    "none": {},
    "coupled": {"weight_decay": 0.03},
    "decoupled": {"weight_decay": 0.03, "decoupled": True},
}
CLIPS = {
    "none": {},
    "value": {"clip": ("value", 0.5)},
    "norm": {"clip": ("norm", 0.5)},
    "global_norm": {"clip": ("global_norm", 0.5)},
}


def batches(steps, batch_size=32, size=28, torch_shift=0):
    """Returns both sides' first batches of the digits; PyTorch's may be shifted."""
    sides = []
    for data, shift in ((keras_data, 0), (torch_data, torch_shift)):
        digits = data.load("digits", Path("unused"), size, size)
        count = steps * batch_size
        pipeline = data.Pipeline(
            digits.train_images, digits.train_labels, digits.mean, digits.std
        )
        indices = np.roll(np.arange(count) % len(pipeline), shift)
        sides.append(list(pipeline.batches(np.split(indices, steps))))
    return sides


def twins():
    return make_twins("lenet5", image_size=28)


@pytest.mark.parametrize(
    "optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "momentum", "adam"]
)
def test_a_hundred_steps_in_float64(optimizer, device):
    report = parity.lockstep(
        *twins(),
        *batches(100),
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
        device=device,
    )
    assert report.verdict == "equal", report
    assert len(report.steps) == 100
    assert max(step.errors["weights"] for step in report.steps) < 1e-9
    assert report.steps[-1].keras_loss < report.steps[0].keras_loss / 4


@pytest.mark.parametrize("optimizer", MORE_RATES)
def test_ten_steps_of_the_others_in_float64(optimizer):
    report = parity.lockstep(
        *twins(),
        *batches(10),
        optimizer=optimizer,
        learning_rate=MORE_RATES[optimizer],
    )
    assert report.verdict == "equal", report


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_weight_decay_and_clipping_in_lockstep(optimizer):
    plain, changed = (
        parity.lockstep(
            *twins(), *batches(5), optimizer=optimizer, learning_rate=0.01, **arguments
        )
        for arguments in ({}, {"weight_decay": 0.1, "clip_norm": 0.01})
    )
    assert plain.verdict == changed.verdict == "equal", changed
    assert plain.steps[0].keras_loss == changed.steps[0].keras_loss
    assert abs(plain.steps[-1].keras_loss / changed.steps[-1].keras_loss - 1) > 1e-3


def stock_adam(name, learning_rate, **_):
    return keras.optimizers.Adam(learning_rate, epsilon=1e-8)


def stock_momentum(name, learning_rate, **_):
    return keras.optimizers.SGD(learning_rate, momentum=0.9)


def adam_with_another_epsilon(name, learning_rate, parameters, **_):
    return torch.optim.Adam(parameters, learning_rate, eps=1e-7)


@pytest.mark.parametrize(
    ("side", "factory", "optimizer", "step"),
    [
        ("keras", stock_adam, "adam", 1),  # epsilon inside the corrected root
        ("keras", stock_momentum, "momentum", 2),  # momentum rounded to float32
        ("torch", adam_with_another_epsilon, "adam", 1),
    ],
)
def test_an_optimizer_that_departs_is_found(
    side, factory, optimizer, step, monkeypatch
):
    monkeypatch.setattr(parity.training, f"create_{side}_optimizer", factory)
    report = parity.lockstep(
        *twins(), *batches(3), optimizer=optimizer, learning_rate=RATES[optimizer]
    )
    assert report.verdict == "different"
    assert report.first_divergence.number == step
    assert report.first_divergence.culprit.startswith("weights of "), report


def test_a_shifted_batch_is_found():
    report = parity.lockstep(*twins(), *batches(2, torch_shift=1))
    assert report.first_divergence.number == 1
    assert report.first_divergence.culprit == "batch of images"


def test_a_wrong_gradient_is_found():
    keras_model, torch_model = twins()
    torch_model.fc1.bias.register_hook(lambda gradient: gradient * 1.00001)
    report = parity.lockstep(keras_model, torch_model, *batches(2))
    assert report.first_divergence.number == 1
    assert report.first_divergence.culprit == "gradients of fc1.bias"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "rmsprob"}, "unknown optimizer 'rmsprob'; did you mean rmsprop"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"device": "cuda"}, "unknown device 'cuda'"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        parity.lockstep(*twins(), *batches(1), **arguments)
    with pytest.raises(UsageError, match="there is no batch"):
        parity.lockstep(*twins(), [], [])


def test_the_models_are_left_as_they_were():
    keras_model, torch_model = twins()
    before = [variable.numpy() for variable in keras_model.variables]
    state = {k: v.clone() for k, v in torch_model.state_dict().items()}
    parity.lockstep(keras_model, torch_model, *batches(2))
    for variable, value in zip(keras_model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value)
    for name, value in torch_model.state_dict().items():
        assert torch.equal(value, state[name])


def test_batches_come_in_the_same_order_every_time():
    first, again, next_epoch = (
        np.concatenate(
            list(datasets.epoch_batches(100, 32, drop_last=False, seed=1, epoch=epoch))
        )
        for epoch in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_epoch)
    assert sorted(first) == sorted(next_epoch) == list(range(100))


@pytest.fixture
def float64():
    """Keras's default type while a test runs: that of its learning rates."""
    with keras_as(keras.Sequential(), "float64", "cpu"):
        yield


def problem(scales=SCALES):
    """Returns the weights to start from, and each step's learning rate and gradients.

    The rate goes down and up again.
    """
    random = np.random.default_rng(0)
    weights = [scale * random.standard_normal((3, 5)) for scale in scales]
    rates = [(0.1, 0.01, 0.001, 0.03, 0.02)[number // 10] for number in range(STEPS)]
    gradients = [
        [scale * random.standard_normal((3, 5)) for scale in scales] for _ in rates
    ]
    return weights, rates, gradients


def keras_steps(optimizer, weights, rates, gradients):
    """Yields the weights after each step."""
    variables = [keras.Variable(array, dtype="float64") for array in weights]
    for rate, arrays in zip(rates, gradients, strict=True):
        keras_optim.set_learning_rate(optimizer, rate)
        optimizer.apply([tf.constant(array) for array in arrays], variables)
        yield [variable.numpy() for variable in variables]


def torch_steps(create, weights, rates, gradients):
    """Yields the weights after each step."""
    parameters = [torch.nn.Parameter(torch.tensor(array)) for array in weights]
    optimizer = create(parameters)
    for rate, arrays in zip(rates, gradients, strict=True):
        torch_optim.set_learning_rate(optimizer, rate)
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.grad = torch.tensor(array)
        optimizer.step()
        yield [parameter.detach().numpy().copy() for parameter in parameters]


def paper_steps(name, weights, rates, gradients, **options):
    """Yields the weights after each step, by the paper."""
    weights = [array.copy() for array in weights]
    states = [{} for _ in weights]
    decay = options.get("weight_decay", 0.01 if name == "adamw" else 0.0)
    decoupled = options.get("decoupled", name == "adamw")
    for number, (rate, arrays) in enumerate(
        zip(rates, gradients, strict=True), start=1
    ):
        arrays = clipped(arrays, *options.get("clip", (None, None)))
        for index, gradient in enumerate(arrays):
            if decoupled:
                weights[index] = weights[index] - rate * decay * weights[index]
            else:
                gradient = gradient + decay * weights[index]
            step = PAPERS[name](gradient, states[index], number)
            weights[index] = weights[index] - rate * step
        yield list(weights)


def clipped(gradients, kind, limit):
    if kind == "value":
        return [np.minimum(np.maximum(g, -limit), limit) for g in gradients]
    if kind == "norm":
        norms = [np.sqrt(np.sum(g**2)) for g in gradients]
    elif kind == "global_norm":
        norms = [np.sqrt(sum(np.sum(g**2) for g in gradients))] * len(gradients)
    else:
        return gradients
    return [
        g * limit / norm if norm > limit else g
        for g, norm in zip(gradients, norms, strict=True)
    ]


def paper_sgd(gradient, state, number):
    return gradient


def paper_momentum(gradient, state, number):
    state["v"] = 0.9 * state.get("v", 0.0) + gradient
    return state["v"]


def paper_nesterov(gradient, state, number):
    return gradient + 0.9 * paper_momentum(gradient, state, number)


def paper_adam(gradient, state, number):
    state["m"] = 0.9 * state.get("m", 0.0) + (1 - 0.9) * gradient
    state["v"] = 0.999 * state.get("v", 0.0) + (1 - 0.999) * gradient**2
    mean, square = state["m"] / (1 - 0.9**number), state["v"] / (1 - 0.999**number)
    return mean / (np.sqrt(square) + 1e-8)


def paper_rmsprop(gradient, state, number):
    state["v"] = 0.9 * state.get("v", 0.0) + (1 - 0.9) * gradient**2
    return gradient / (np.sqrt(state["v"]) + 1e-8)


def paper_adagrad(gradient, state, number):
    state["s"] = state.get("s", 0.0) + gradient**2
    return gradient / (np.sqrt(state["s"]) + 1e-10)


PAPERS = {
    "sgd": paper_sgd,
    "momentum": paper_momentum,
    "nesterov": paper_nesterov,
    "adam": paper_adam,
    "adamw": paper_adam,
    "rmsprop": paper_rmsprop,
    "adagrad": paper_adagrad,
}


def worst(ours, theirs):
    """Returns the largest relative error of a tensor after a step."""
    return max(
        relative_error(x, y)
        for pair in zip(ours, theirs, strict=True)
        for x, y in zip(*pair, strict=True)
    )


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_step_is_the_papers(name, decay, clip, float64):
    options = DECAYS[decay] | CLIPS[clip]
    if name == "adamw":
        if decay == "coupled":
            pytest.skip("AdamW's decay is decoupled")
        options.pop("decoupled", None)
    ours = keras_steps(getattr(keras_optim, name)(**options), *problem())
    theirs = torch_steps(
        lambda parameters: getattr(torch_optim, name)(parameters, **options), *problem()
    )
    ours, theirs = list(ours), list(theirs)
    paper = list(paper_steps(name, *problem(), **options))
    assert len(paper) == STEPS
    assert worst(ours, paper) < 1e-12
    assert worst(theirs, paper) < 1e-12
    assert worst(ours, theirs) < 1e-12


def torch_clipped_by_its_own(parameters):
    optimizer = torch.optim.SGD(parameters, 0.01)
    optimizer.register_step_pre_hook(
        lambda *_: torch.nn.utils.clip_grad_norm_(parameters, 0.5) and None
    )
    return optimizer


STOCK = keras.optimizers
GLOBAL = {"clip": ("global_norm", 0.5)}
COUPLED = {"weight_decay": 0.03}
DECOUPLED = {"weight_decay": 0.03, "decoupled": True}


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        # epsilon inside the corrected root, or inside the root
        ("adam", {}, lambda: STOCK.Adam(1.0, np.float64(0.9), np.float64(0.999), 1e-8)),
        ("rmsprop", {}, lambda: STOCK.RMSprop(1.0, epsilon=1e-8)),
        ("adagrad", {}, lambda: STOCK.Adagrad(1.0, 0.0, 1e-10)),
        # the learning rate in the velocity, and the momentum rounded to float32
        ("momentum", {}, lambda: STOCK.SGD(1.0, np.float64(0.9))),
        ("nesterov", {}, lambda: STOCK.SGD(1.0, np.float64(0.9), nesterov=True)),
        # a sum of squares that starts from 0.1
        ("adagrad", {}, lambda: keras_optim.Adagrad(1.0, 0.1, 1e-10)),
        # the other decay
        ("momentum", COUPLED, lambda: keras_optim.momentum(**DECOUPLED)),
        ("momentum", DECOUPLED, lambda: keras_optim.momentum(**COUPLED)),
        ("adamw", {}, lambda: keras_optim.adam(weight_decay=0.01)),
        ("adagrad", DECOUPLED, lambda: keras_optim.adagrad(**COUPLED)),
        # a decay rounded to float32
        ("sgd", DECOUPLED, lambda: STOCK.SGD(1.0, weight_decay=0.03)),
        # the other clipping
        ("sgd", GLOBAL, lambda: keras_optim.sgd(clip=("norm", 0.5))),
        ("sgd", {"clip": ("norm", 0.5)}, lambda: keras_optim.sgd(**GLOBAL)),
        ("sgd", {"clip": ("norm", 0.5)}, lambda: keras_optim.sgd(clip=("value", 0.5))),
    ],
)
def test_steps_that_are_not_the_papers_are_found(name, options, wrong, float64):
    steps = keras_steps(wrong(), *problem())
    assert worst(steps, paper_steps(name, *problem(), **options)) > 1e-11


def test_a_norm_with_something_added_is_found():
    small = problem(scales=(1e-3, 1.0))
    steps = torch_steps(torch_clipped_by_its_own, *small)
    assert worst(steps, paper_steps("sgd", *small, **GLOBAL)) > 1e-9


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_arguments_and_the_recipes_constants(name):
    ours, theirs = (
        {
            argument: parameter.default
            for argument, parameter in inspect.signature(
                getattr(side, name)
            ).parameters.items()
        }
        for side in (keras_optim, torch_optim)
    )
    assert list(theirs) == ["parameters", *ours]
    theirs.pop("parameters")
    assert ours == theirs
    assert OPTIMIZERS[name].items() <= ours.items()


@pytest.mark.parametrize("kind", ["value", "norm", "global_norm"])
def test_gradients_are_clipped_alike(kind):
    _, _, (gradients, *_) = problem()
    zero = np.zeros((2, 3))
    given = [*gradients, zero]
    ours = getattr(keras_optim, f"clip_by_{kind}")
    theirs = getattr(torch_optim, f"clip_by_{kind}")
    tensors = [torch.tensor(array) for array in given]
    for limit in (0.5, 1e3):
        expected = clipped(given, kind, limit)
        results = (
            [x.numpy() for x in ours([tf.constant(x) for x in given], limit)],
            [x.numpy() for x in theirs(tensors, limit)],
        )
        for result in results:
            for array, answer in zip(result, expected, strict=True):
                np.testing.assert_allclose(array, answer, rtol=1e-14)
    for tensor, array in zip(tensors, given, strict=True):
        assert np.array_equal(tensor.numpy(), array)
    assert ours([None, tf.constant(zero)], 1.0)[0] is None
    assert theirs([None, torch.tensor(zero)], 1.0)[0] is None


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (("norms", 1.0), "unknown clipping 'norms'; did you mean norm"),
        (("norm", 0.0), "cannot be clipped to 0.0: above zero would do"),
    ],
)
def test_a_clipping_that_is_refused(clip, message):
    with pytest.raises(UsageError, match=message):
        keras_optim.sgd(clip=clip)
    with pytest.raises(UsageError, match=message):
        torch_optim.sgd([torch.nn.Parameter(torch.ones(2))], clip=clip)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_configuration_makes_the_same_one(name, float64):
    options = {"weight_decay": 0.03, "clip": ("norm", 0.5)}
    optimizer = getattr(keras_optim, name)(0.1, **options)
    again = type(optimizer).from_config(optimizer.get_config())
    ours, theirs = (keras_steps(x, *problem()) for x in (optimizer, again))
    assert worst(ours, theirs) == 0


def test_what_has_no_gradient_stays():
    """As in PyTorch's own AdamW, decay is of what is trained."""
    frozen, trained = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch_optim.sgd([frozen, trained], **DECOUPLED, **GLOBAL)
    trained.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(frozen, torch.ones(2))
    assert not torch.equal(trained, torch.ones(2))
    assert torch.equal(trained.grad, clipped_ones())


def clipped_ones():
    return torch_optim.clip_by_global_norm([torch.ones(2)], 0.5)[0]


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_group_keeps_a_weight_decay_of_its_own(decoupled):
    one, other = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    groups = [{"params": [one]}, {"params": [other], "weight_decay": 0.0}]
    settings = {"weight_decay": 0.5, "decoupled": decoupled}
    optimizer = torch_optim.sgd(groups, 0.1, **settings)
    for parameter in (one, other):
        parameter.grad = torch.zeros(1)
    optimizer.step()
    variables = [keras.Variable(np.ones(1), name=name) for name in ("one", "other")]
    optimizer = keras_optim.sgd(0.1, **settings)
    optimizer.exclude_from_weight_decay(var_names=["other"])
    optimizer.apply([tf.zeros(1)] * 2, variables)
    for ours, theirs, expected in zip(
        variables, (one, other), (0.95, 1.0), strict=True
    ):
        assert ours.numpy()[0] == pytest.approx(expected)
        assert theirs.item() == pytest.approx(expected)


def test_gradients_that_are_not_finite_are_nan_together():
    gradients = [np.array([np.inf, 1.0]), np.array([2.0, 3.0])]
    ours = keras_optim.clip_by_global_norm([tf.constant(g) for g in gradients], 1.0)
    theirs = torch_optim.clip_by_global_norm([torch.tensor(g) for g in gradients], 1.0)
    for side in (ours, theirs):
        assert all(np.isnan(np.asarray(gradient)).all() for gradient in side)
    assert torch_optim.clip_by_global_norm([None], 1.0) == [None]
