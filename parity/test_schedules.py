"""Both sides' learning rates are the specification's, at every step."""

import math
from types import SimpleNamespace

import pytest

from parity.frameworks import keras, torch
from keras_impl import optim as keras_optim
from parity.precision import keras_as
from parity.spec import recipes, runs, schedules
from parity.spec.errors import UsageError
from torch_impl import optim as torch_optim

INITIAL = 0.3
STEPS = 60

# By name: the arguments on both sides, and the specification's factor.
SCHEDULES = {
    "step_decay": (
        {"step_size": 7, "gamma": 0.3},
        schedules.step_decay(7, 0.3),
    ),
    "exponential_decay": (
        {"decay_steps": 3, "gamma": 0.9},
        schedules.exponential_decay(3, 0.9),
    ),
    "cosine_decay": (
        {"decay_steps": 50, "final": 0.1},
        schedules.cosine_decay(50, 0.1),
    ),
    "warm_up": (
        {"steps": 5, "after": schedules.cosine_decay(45)},
        schedules.warm_up(5, schedules.cosine_decay(45)),
    ),
}

# Falls, rests for longer than `patience`, falls too little to count, falls, rests.
LOSSES = [3.0, 2.0, *[2.1] * 5, *(1.9999 - 1e-5 * i for i in range(4)), 1.0, *[1.0] * 9]


@pytest.fixture(autouse=True)
def float64():
    """Keras's default type while a test runs: that of its learning rates."""
    with keras_as(keras.Sequential(), "float64", "cpu"):
        yield


def keras_optimizer():
    return keras_optim.sgd(INITIAL)


def torch_optimizer():
    return torch_optim.sgd([torch.nn.Parameter(torch.ones(1))], INITIAL)


def keras_rate(optimizer):
    return float(optimizer.learning_rate)


def torch_rate(optimizer):
    return optimizer.param_groups[0]["lr"]


def keras_rates(create, arguments=((),) * (STEPS - 1)):
    """Returns the rate before and after each call of a scheduler's `step`."""
    optimizer = keras_optimizer()
    scheduler = create(optimizer)
    rates = [keras_rate(optimizer)]
    for given in arguments:
        scheduler.step(*given)
        rates.append(keras_rate(optimizer))
    return rates


def torch_rates(create, arguments=((),) * (STEPS - 1)):
    optimizer = torch_optimizer()
    scheduler = create(optimizer)
    rates = [torch_rate(optimizer)]
    for given in arguments:
        optimizer.step()  # PyTorch warns where its scheduler goes first
        scheduler.step(*given)
        rates.append(torch_rate(optimizer))
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_of_every_step(name):
    arguments, factor = SCHEDULES[name]
    expected = [INITIAL * factor(step) for step in range(STEPS)]
    ours = keras_rates(lambda x: getattr(keras_optim, name)(x, **arguments))
    theirs = torch_rates(lambda x: getattr(torch_optim, name)(x, **arguments))
    assert ours == theirs == expected


def test_the_formulas():
    """At boundaries, by hand."""
    stair = schedules.step_decay(7, 0.3)
    assert [stair(x) for x in (0, 6, 7, 13, 14)] == [1, 1, 0.3, 0.3, 0.3**2]
    slope = schedules.exponential_decay(3, 0.5)
    assert [slope(x) for x in (0, 3, 6)] == [1, 0.5, 0.25]
    assert slope(1) == pytest.approx(0.5 ** (1 / 3), rel=1e-15)
    wave = schedules.cosine_decay(50, 0.1)
    assert [wave(x) for x in (0, 50, 51, 1000)] == [1, 0.1, 0.1, 0.1]
    assert wave(25) == pytest.approx(0.55, rel=1e-15)
    assert wave(49) > 0.1
    line = schedules.warm_up(5, schedules.constant(), 0.5)
    assert [line(x) for x in range(7)] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1, 1])
    from_zero = schedules.warm_up(4, wave, 0.0)
    assert [from_zero(x) for x in (0, 1, 4, 54)] == [0, 0.25, 1, 0.1]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("side", [keras_optim, torch_optim])
def test_a_schedule_that_is_one_step_early_is_found(name, side):
    _, factor = SCHEDULES[name]
    expected = [INITIAL * factor(step) for step in range(STEPS)]
    rates = keras_rates if side is keras_optim else torch_rates
    early = rates(lambda x: side.LambdaLR(x, lambda step: factor(step + 1)))
    assert early != expected


def test_the_frameworks_own_depart():
    """Keras's compute in float32, PyTorch's cosine climbs again."""
    decay = keras.optimizers.schedules.CosineDecay(INITIAL, 50, alpha=0.1)
    factor = schedules.cosine_decay(50, 0.1)
    errors = [abs(float(decay(x)) / (INITIAL * factor(x)) - 1) for x in range(STEPS)]
    assert 1e-9 < max(errors) < 1e-6
    theirs = torch_rates(
        lambda x: torch.optim.lr_scheduler.CosineAnnealingLR(x, 50, 0.1 * INITIAL)
    )
    expected = [INITIAL * factor(step) for step in range(STEPS)]
    assert theirs[:51] == pytest.approx(expected[:51], rel=1e-12)
    assert theirs[-1] > 1.2 * expected[-1]


def test_the_plateau():
    arguments = {"gamma": 0.3, "patience": 3, "threshold": 1e-3}
    given = [(loss,) for loss in LOSSES]
    expected = [
        schedules.plateau(INITIAL, LOSSES[:count], **arguments)
        for count in range(len(LOSSES) + 1)
    ]
    ours = keras_rates(lambda x: keras_optim.plateau(x, **arguments), given)
    theirs = torch_rates(lambda x: torch_optim.plateau(x, **arguments), given)
    assert ours == theirs == expected
    # Losses 3 to 6 are the first four in a row that are not below.
    assert expected[5] == INITIAL
    assert expected[6] == INITIAL * 0.3
    assert sorted(set(expected), reverse=True) == [
        INITIAL,
        INITIAL * 0.3,
        INITIAL * 0.3 * 0.3,
        INITIAL * 0.3 * 0.3 * 0.3,
        INITIAL * 0.3 * 0.3 * 0.3 * 0.3,
    ]


def test_a_loss_that_is_not_a_number_is_no_progress():
    arguments = {"gamma": 0.5, "patience": 1}
    given = [(float("nan"),)] * 4
    losses = [math.nan] * 4
    assert schedules.plateau(1.0, losses, **arguments) == 0.25
    ours = keras_rates(lambda x: keras_optim.plateau(x, **arguments), given)
    theirs = torch_rates(lambda x: torch_optim.plateau(x, **arguments), given)
    assert ours == theirs


@pytest.mark.parametrize("patience", [2, 4])
def test_a_patience_that_is_off_by_one_is_found(patience):
    given = [(loss,) for loss in LOSSES]
    right, wrong = (
        torch_rates(
            lambda x, count=count: torch_optim.plateau(x, patience=count), given
        )
        for count in (3, patience)
    )
    assert right != wrong


def test_keras_own_plateau_waits_for_one_loss_less():
    optimizer = keras_optimizer()
    callback = keras.callbacks.ReduceLROnPlateau("loss", 0.3, 3, min_delta=0.0)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    rates = []
    for epoch, loss in enumerate(LOSSES[:6]):
        callback.on_epoch_end(epoch, {"loss": loss})
        rates.append(keras_rate(optimizer))
    assert rates[3] == INITIAL
    assert rates[4] == pytest.approx(INITIAL * 0.3)


def test_in_float32_the_rate_is_rounded():
    arguments, factor = SCHEDULES["cosine_decay"]
    with keras_as(keras.Sequential(), "float32", "cpu"):
        rates = keras_rates(lambda x: keras_optim.cosine_decay(x, **arguments))
    expected = [INITIAL * factor(step) for step in range(STEPS)]
    assert rates != expected
    assert rates == pytest.approx(expected, rel=2**-23)


@pytest.mark.parametrize("scheduler", recipes.SCHEDULERS)
def test_the_recipes_schedulers_by_epoch(scheduler):
    options = runs.options("lenet5", scheduler=scheduler, epochs=50, learning_rate=0.1)
    losses = [1.0] * 49
    rates = [options.epoch_learning_rate(x, losses[:x]) for x in range(50)]
    assert all(rate > 0 for rate in rates)
    first = 0.01 if scheduler == "warmup_cosine" else 0.1
    assert rates[0] == pytest.approx(first)
    assert max(rates) == 0.1
    falls = {
        "constant": 0.1,
        "step": 0.1 * 0.6**9,
        "exponential": 0.1 * 0.95**49,
        "cosine": 0.05 * (1 + math.cos(math.pi * 49 / 50)),
        "warmup_cosine": 0.05 * (1 + math.cos(math.pi * 44 / 45)),
        "plateau": 0.1 * 0.5**12,
    }
    assert rates[-1] == pytest.approx(falls[scheduler])


def test_a_warm_up_as_long_as_the_training():
    for epochs in (1, 4, 5):
        options = runs.options("lenet5", scheduler="warmup_cosine", epochs=epochs)
        rates = [options.epoch_learning_rate(x) for x in range(epochs)]
        assert rates == sorted(rates)
        assert rates[0] > 0


def test_a_plateau_needs_losses():
    options = runs.options("lenet5", scheduler="plateau", learning_rate=0.1)
    assert options.epoch_learning_rate(0) == 0.1
    with pytest.raises(UsageError, match="scheduler plateau follows the losses"):
        options.epoch_learning_rate(1)
