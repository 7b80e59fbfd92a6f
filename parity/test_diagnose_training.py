"""The loss, the optimizer's step and the running statistics: faults that are named."""

import copy

import numpy as np
import pytest

from parity.frameworks import keras, tf, torch
from keras_impl import layers as keras_layers
from keras_impl import optim as keras_optim
from parity.diagnosis.training.criterion import Labels
from parity.diagnosis.training.evaluation import evaluate_keras
from parity.diagnosis.training.losses import explain_loss, penalty
from parity.diagnosis.training.optimizers import explain_optimizer
from parity.diagnosis.training.running_statistics import explain_bn_statistics
from parity.diagnosis.training.stepping import Pair
from parity.diagnosis.training.trainings import (
    diagnose_training,
    explain_frozen,
    torch_penalty,
)
from torch_impl import optim as torch_optim

F = torch.nn.functional
K = keras.optimizers
T = torch.optim

RNG = np.random.default_rng(7)
LOGITS = RNG.normal(size=(8, 5)) * 2
LABELS = np.array([0, 1, 1, 2, 4, 4, 3, 0])
ONE_HOT = np.eye(5)[LABELS]
WEIGHTS = np.array([0.3, 2.5, 1.0, 0.7, 4.0])
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)

GRADIENTS = [[RNG.normal(size=(3, 4)), 3 * RNG.normal(size=3)] for _ in range(4)]
SMALL = [[1e-4 * g for g in step] for step in GRADIENTS]


def weighted_in_keras(labels, outputs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return loss(labels, outputs, sample_weight=tf.gather(tf.constant(WEIGHTS), labels))


def weighted_by_count(outputs, labels):
    losses = F.cross_entropy(outputs, labels, reduction="none")
    return (losses * torch.tensor(WEIGHTS)[labels]).mean()


def cross_entropy(**options):
    return keras.losses.CategoricalCrossentropy(**{"from_logits": True} | options)


def sparse(**options):
    return keras.losses.SparseCategoricalCrossentropy(**{"from_logits": True} | options)


def causes(findings) -> list[str]:
    return [finding.cause for finding in findings]


def check(findings, cause: str, **values):
    """Checks that one cause is named, proved, and its values are recovered."""
    assert causes(findings) == [cause]
    (finding,) = findings
    assert finding.error_after <= 1e-8 < finding.error_before
    assert finding.fix
    for side, value in values.items():
        found = finding.values[side]
        assert found == (pytest.approx(value) if type(value) is float else value)


LOSS_FAULTS = {
    "mean or sum": (
        "loss.reduction",
        sparse(),
        torch.nn.CrossEntropyLoss(reduction="sum"),
        {"keras": "mean", "torch": "sum"},
    ),
    "a loss divided by hand": (
        "loss.reduction",
        sparse(),
        lambda outputs, labels: F.cross_entropy(outputs, labels) / 3.5,
        {"torch": "mean, times 0.285714"},
    ),
    "squares summed over the outputs": (
        "loss.reduction",
        keras.losses.MeanSquaredError(),
        lambda outputs, labels: (outputs - F.one_hot(labels, 5)).square().sum(1).mean(),
        {"torch": "mean of sums"},
    ),
    "logits read as probabilities": (
        "loss.from_logits",
        sparse(from_logits=False),
        F.cross_entropy,
        {"torch": "logits"},
    ),
    "no logarithm": (
        "loss.from_logits",
        sparse(),
        lambda outputs, labels: F.nll_loss(outputs.softmax(1), labels),
        {"torch": "logits, without the logarithm"},
    ),
    "two softmaxes": (
        "loss.from_logits",
        sparse(),
        lambda outputs, labels: F.cross_entropy(outputs.softmax(1), labels),
        {"torch": "logits, with a softmax too many"},
    ),
    "smoothing": (
        "loss.label_smoothing",
        cross_entropy(label_smoothing=0.1),
        torch.nn.CrossEntropyLoss(),
        {"keras": 0.1, "torch": 0.0},
    ),
    "smoothing in a function": (
        "loss.label_smoothing",
        sparse(),
        lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=0.2),
        {"keras": 0.0, "torch": 0.2},
    ),
    "no class weights": (
        "loss.class_weights",
        sparse(),
        torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS)),
        {"keras": None},
    ),
    "class weights divided by the count": (
        "loss.class_weights",
        weighted_in_keras,
        torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS)),
        {"keras": "(0.3, 2.5, 1, 0.7, 4), divided by the count"},
    ),
    "another loss": (
        "loss.kind",
        cross_entropy(),
        lambda outputs, labels: F.mse_loss(outputs, F.one_hot(labels, 5).double()),
        {"keras": "cross-entropy of logits", "torch": "squared error"},
    ),
}


@pytest.mark.parametrize("name", LOSS_FAULTS)
def test_a_fault_of_the_loss_is_named(name):
    cause, keras_loss, torch_loss, values = LOSS_FAULTS[name]
    found = explain_loss(keras_loss, torch_loss, LOGITS, LOGITS, LABELS)
    assert causes(found) == [cause]
    assert found[0].error_after <= 1e-8 < found[0].error_before
    for side, value in values.items():
        assert found[0].values[side] == (
            pytest.approx(value) if isinstance(value, float) else value
        )


EQUAL_LOSSES = {
    "one-hot or integers": (cross_entropy(), F.cross_entropy, LOGITS),
    "a function": (
        keras.losses.sparse_categorical_crossentropy,
        lambda outputs, labels: F.nll_loss(outputs.log(), labels),
        SOFTMAX,
    ),
    "smoothing": (
        cross_entropy(label_smoothing=0.1),
        torch.nn.CrossEntropyLoss(label_smoothing=0.1),
        LOGITS,
    ),
    "class weights": (weighted_in_keras, weighted_by_count, LOGITS),
    "by hand": (
        "categorical_crossentropy",
        lambda outputs, labels: -outputs.log()[range(8), labels].mean(),
        SOFTMAX,
    ),
    "binary": (
        keras.losses.BinaryCrossentropy(from_logits=True),
        torch.nn.BCEWithLogitsLoss(),
        LOGITS,
    ),
    "squares": (keras.losses.MeanSquaredError(), torch.nn.MSELoss(), LOGITS),
    "Huber": (
        keras.losses.Huber(delta=2.0),
        torch.nn.HuberLoss(delta=2.0),
        LOGITS,
    ),
    "float32 inside": (
        lambda labels, outputs: sparse()(labels, tf.cast(outputs, "float32")),
        F.cross_entropy,
        LOGITS,
    ),
}


@pytest.mark.parametrize("name", EQUAL_LOSSES)
def test_equal_losses_are_not_accused(name):
    keras_loss, torch_loss, outputs = EQUAL_LOSSES[name]
    assert explain_loss(keras_loss, torch_loss, outputs, outputs, LABELS) == []
    assert explain_loss(keras_loss, torch_loss, outputs, None, ONE_HOT) == []


def test_two_faults_of_a_loss_are_both_named():
    torch_loss = torch.nn.CrossEntropyLoss(reduction="sum")
    found = explain_loss(
        cross_entropy(label_smoothing=0.1), torch_loss, LOGITS, LOGITS, LABELS
    )
    assert sorted(causes(found)) == ["loss.label_smoothing", "loss.reduction"]


def test_a_softmax_in_the_model_or_in_the_loss():
    keras_loss = keras.losses.SparseCategoricalCrossentropy()
    assert explain_loss(keras_loss, F.cross_entropy, SOFTMAX, LOGITS, LABELS) == []
    found = explain_loss(keras_loss, F.cross_entropy, SOFTMAX, SOFTMAX, LABELS)
    check(found, "loss.from_logits", torch="logits")


def test_labels_of_every_pixel():
    maps = RNG.normal(size=(2, 4, 3, 5))
    labels = RNG.integers(0, 5, (2, 4, 3))
    assert explain_loss(sparse(), F.cross_entropy, maps, maps, labels) == []
    total = torch.nn.CrossEntropyLoss(reduction="sum")
    check(explain_loss(sparse(), total, maps, None, labels), "loss.reduction")


def test_a_loss_that_can_not_be_called():
    with pytest.raises(ValueError, match="the PyTorch loss CrossEntropyLoss"):
        explain_loss(
            keras.losses.MeanSquaredError(),
            torch.nn.CrossEntropyLoss(weight=torch.ones(3)),
            LOGITS,
            LOGITS,
            LABELS,
        )


def test_a_loss_stays_as_it_was():
    loss, weights = sparse(), torch.tensor(WEIGHTS).float()
    criterion = torch.nn.CrossEntropyLoss(weight=weights)
    explain_loss(loss, criterion, LOGITS, None, LABELS)
    assert loss.dtype == "float32" and criterion.weight.dtype == torch.float32
    assert keras.config.floatx() == "float32"


def penalized(factor: float):
    """Returns a Keras layer with a regularizer, and its weights in PyTorch."""
    layer = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(factor))
    model = keras.Sequential([keras.Input((4,)), layer])
    weight = torch.nn.Parameter(torch.tensor(np.array(layer.kernel.value).T))
    return model, layer, weight


def test_a_regularizer_is_in_one_loss_only():
    model, _, weight = penalized(0.01)
    added = penalty(model)

    def with_penalty(outputs, labels):
        return F.cross_entropy(outputs, labels) + 0.01 * weight.square().sum()

    def differ(loss, **options):
        return explain_loss(
            sparse(), loss, LOGITS, None, LABELS, keras_penalty=added, **options
        )

    assert differ(with_penalty) == []
    check(differ(F.cross_entropy), "loss.regularizer", torch=None)
    assert differ(F.cross_entropy, torch_decays=True) == []
    found = explain_loss(sparse(), with_penalty, LOGITS, None, LABELS)
    check(found, "loss.regularizer", keras=None)


def make_pairs(regularizer=None):
    """Returns a kernel and a bias on both sides."""
    kernel = keras.Variable(RNG.normal(size=(4, 3)), name="kernel")
    bias = keras.Variable(RNG.normal(size=3), name="bias")
    kernel.regularizer = regularizer
    weights = [
        torch.nn.Parameter(torch.zeros(3, 4)),
        torch.nn.Parameter(torch.zeros(3)),
    ]
    return [
        Pair(kernel, weights[0], np.transpose, "dense", "fc"),
        Pair(bias, weights[1], np.asarray, "dense", "fc"),
    ]


def parameters(pairs):
    return [pair.parameter for pair in pairs]


def rate_by_epoch(optimizer):
    return T.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)


# What is planted, the cause, and the values.
OPTIMIZER_FAULTS = {
    "kind": (
        K.SGD(0.01),
        lambda p: T.Adam(p, lr=0.01),
        "optimizer.kind",
        {"keras": "SGD at a rate of 0.01", "torch": "Adam at a rate of 0.01"},
    ),
    "rate": (
        K.SGD(0.01, momentum=0.9),
        lambda p: T.SGD(p, lr=0.001, momentum=0.9),
        "optimizer.learning_rate",
        {"keras": 0.01, "torch": 0.001},
    ),
    "momentum": (
        K.SGD(0.01, momentum=0.9),
        lambda p: T.SGD(p, lr=0.01, momentum=0.99),
        "optimizer.momentum",
        {"keras": 0.9, "torch": 0.99},
    ),
    "dampening": (
        K.SGD(0.01, momentum=0.9),
        lambda p: T.SGD(p, lr=0.01, momentum=0.9, dampening=0.1),
        "optimizer.momentum",
        {"torch": "0.9, dampening 0.1"},
    ),
    "nesterov": (
        K.SGD(0.01, momentum=0.9, nesterov=True),
        lambda p: T.SGD(p, lr=0.01, momentum=0.9),
        "optimizer.nesterov",
        {"keras": True, "torch": False},
    ),
    "betas": (
        keras_optim.adam(0.01),
        lambda p: T.Adam(p, lr=0.01, betas=(0.9, 0.99)),
        "optimizer.betas",
        {"keras": (0.9, 0.999), "torch": (0.9, 0.99)},
    ),
    "rho": (
        keras_optim.rmsprop(0.01, rho=0.9),
        lambda p: T.RMSprop(p, lr=0.01, alpha=0.99),
        "optimizer.betas",
        {"keras": 0.9, "torch": 0.99},
    ),
    "epsilon": (
        keras_optim.adam(0.01, epsilon=1e-7),
        lambda p: T.Adam(p, lr=0.01),
        "optimizer.epsilon",
        {"keras": 1e-7, "torch": 1e-8},
    ),
    "start of Adagrad": (
        K.Adagrad(0.01, epsilon=0.0),
        lambda p: T.Adagrad(p, lr=0.01, eps=0.0),
        "optimizer.epsilon",
        {"keras": "0.0, sum from 0.1"},
    ),
    "place of Adam's epsilon": (
        K.Adam(0.01, epsilon=1e-8),
        lambda p: T.Adam(p, lr=0.01),
        "optimizer.epsilon_place",
        {"keras": "before the bias correction"},
    ),
    "place of RMSprop's epsilon": (
        K.RMSprop(0.01, rho=0.99, epsilon=1e-8),
        lambda p: T.RMSprop(p, lr=0.01, alpha=0.99),
        "optimizer.epsilon_place",
        {"keras": "inside the root", "torch": "outside the root"},
    ),
    "centered": (
        keras_optim.rmsprop(0.01, rho=0.9),
        lambda p: T.RMSprop(p, lr=0.01, alpha=0.9, centered=True),
        "optimizer.centered",
        {"keras": False, "torch": True},
    ),
    "decay": (
        keras_optim.adamw(0.01, weight_decay=0.004),
        lambda p: T.AdamW(p, lr=0.01),
        "optimizer.weight_decay",
        {"keras": 0.004, "torch": 0.01},
    ),
    "decay on one side": (
        K.SGD(0.01, momentum=0.9),
        lambda p: T.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.003),
        "optimizer.weight_decay",
        {"keras": 0.0, "torch": 0.003},
    ),
    "decay of the bias": (
        keras_optim.adamw(0.01),
        lambda p: T.AdamW(
            [{"params": p[:1]}, {"params": p[1:], "weight_decay": 0.0}], lr=0.01
        ),
        "optimizer.weight_decay",
        {"keras": 0.01, "torch": "0.01 on 1, 0.0 on 1 tensors"},
    ),
    "coupled decay": (
        K.SGD(0.01, momentum=0.9, weight_decay=0.01),
        lambda p: T.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
        "optimizer.weight_decay_coupled",
        {"keras": "decoupled", "torch": "coupled"},
    ),
    "AdamW and Adam": (
        keras_optim.adamw(0.01),
        lambda p: T.Adam(p, lr=0.01, weight_decay=0.01),
        "optimizer.weight_decay_coupled",
        {"keras": "decoupled", "torch": "coupled"},
    ),
    "doubled decay": (
        keras_optim.momentum(0.01, weight_decay=0.02),
        lambda p: T.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
        "optimizer.weight_decay_doubled",
        {"keras": 0.02, "torch": 0.01},
    ),
    "clipping in Keras": (
        K.SGD(0.01, global_clipnorm=0.5),
        lambda p: T.SGD(p, lr=0.01),
        "optimizer.clipping",
        {"keras": "global norm 0.5", "torch": None},
    ),
    "clipping in a hook": (
        keras_optim.adam(0.01),
        lambda p: torch_optim.adam(p, 0.01, clip=("value", 0.3)),
        "optimizer.clipping",
        {"keras": None, "torch": "value 0.3"},
    ),
    "which norm": (
        K.SGD(0.01, clipnorm=1.0),
        lambda p: torch_optim.sgd(p, 0.01, clip=("global_norm", 1.0)),
        "optimizer.clipping",
        {"keras": "norm 1.0", "torch": "global norm 1.0"},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZER_FAULTS)
def test_a_fault_of_the_optimizer_is_named(name):
    keras_optimizer, make, cause, values = OPTIMIZER_FAULTS[name]
    pairs = make_pairs()
    found = explain_optimizer(
        keras_optimizer, make(parameters(pairs)), pairs, GRADIENTS
    )
    assert causes(found) == [cause]
    (finding,) = found
    assert finding.error_after <= 1e-8 < finding.error_before
    assert (finding.keras_name, finding.level) == ("optimizer", "training")
    for side, value in values.items():
        is_number = isinstance(value, float)
        assert finding.values[side] == (pytest.approx(value) if is_number else value)


EQUAL_OPTIMIZERS = {
    "SGD": (K.SGD(1 / 3), lambda p: T.SGD(p, lr=1 / 3)),
    "momentum": (
        K.SGD(0.1, momentum=0.9, nesterov=True),
        lambda p: T.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "SGD with decay": (
        K.SGD(0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch_optim.momentum(p, 0.1, weight_decay=0.01, decoupled=True),
    ),
    "AdamW": (
        keras_optim.adamw(0.001, weight_decay=0.02),
        lambda p: T.AdamW(p, lr=0.001, weight_decay=0.02),
    ),
    "Adam": (keras_optim.adam(0.001), lambda p: T.Adam(p, lr=0.001)),
    "Nadam": (
        K.Nadam(0.01, epsilon=1e-8),
        lambda p: T.NAdam(p, lr=0.01, momentum_decay=1.0),
    ),
    "RMSprop": (
        keras_optim.rmsprop(0.01, rho=0.9),
        lambda p: T.RMSprop(p, lr=0.01, alpha=0.9),
    ),
    "Adagrad": (keras_optim.adagrad(0.01), lambda p: T.Adagrad(p, lr=0.01)),
    "Adadelta": (
        K.Adadelta(0.1, epsilon=1e-7),
        lambda p: T.Adadelta(p, lr=0.1, rho=0.95, eps=1e-7),
    ),
    "clipping": (
        K.SGD(0.1, global_clipnorm=1.0),
        lambda p: torch_optim.sgd(p, 0.1, clip=("global_norm", 1.0)),
    ),
    "excluded from decay": (
        keras_optim.adamw(0.01),
        lambda p: T.AdamW(
            [{"params": p[:1]}, {"params": p[1:], "weight_decay": 0.0}], lr=0.01
        ),
    ),
}
EQUAL_OPTIMIZERS["excluded from decay"][0].exclude_from_weight_decay(var_names=["bias"])


@pytest.mark.parametrize("name", EQUAL_OPTIMIZERS)
def test_equal_optimizers_are_not_accused(name):
    keras_optimizer, make = EQUAL_OPTIMIZERS[name]
    pairs = make_pairs()
    optimizer = make(parameters(pairs))
    for gradients in (GRADIENTS, SMALL):
        assert explain_optimizer(keras_optimizer, optimizer, pairs, gradients) == []


@pytest.mark.parametrize("kind", ["norm", "global_norm", "value"])
def test_a_clipping_of_large_tensors_is_recovered(kind):
    kernel = keras.Variable(RNG.normal(size=(70, 80)), name="kernel")
    bias = keras.Variable(RNG.normal(size=80), name="bias")
    pairs = [
        Pair(kernel, torch.nn.Parameter(torch.zeros(80, 70)), np.transpose, "a", "b"),
        Pair(bias, torch.nn.Parameter(torch.zeros(80)), np.asarray, "a", "b"),
    ]
    gradients = [[RNG.normal(size=(80, 70)), RNG.normal(size=80)] for _ in range(2)]
    optimizer = torch_optim.momentum(parameters(pairs), 0.1, clip=(kind, 2.5))
    found = explain_optimizer(K.SGD(0.1, momentum=0.9), optimizer, pairs, gradients)
    check(found, "optimizer.clipping", torch=f"{kind.replace('_', ' ')} 2.5")


def test_a_shared_parameter_is_stepped_once():
    pairs = make_pairs()
    pairs.append(pairs[0])
    optimizer = T.SGD(parameters(pairs[:2]), lr=0.1)
    gradients = [[*step, step[0]] for step in GRADIENTS]
    assert explain_optimizer(K.SGD(0.1), optimizer, pairs, gradients) == []


def test_a_hook_of_clip_grad_norm_is_no_other_clipping():
    pairs = make_pairs()
    members = parameters(pairs)
    optimizer = T.SGD(members, lr=0.1)

    def clip(*_):
        torch.nn.utils.clip_grad_norm_(members, 1.0)

    optimizer.register_step_pre_hook(clip)
    found = explain_optimizer(
        K.SGD(0.1, global_clipnorm=1.0), optimizer, pairs, GRADIENTS
    )
    assert found == []


def test_several_faults_of_an_optimizer_are_all_named():
    pairs = make_pairs()
    optimizer = T.Adam(parameters(pairs), lr=0.01)
    found = explain_optimizer(K.Adam(0.001), optimizer, pairs, SMALL)
    assert sorted(causes(found)) == [
        "optimizer.epsilon",
        "optimizer.epsilon_place",
        "optimizer.learning_rate",
    ]


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_schedule_by_epoch_or_by_step(by_epoch):
    pairs = make_pairs()
    optimizer = T.SGD(parameters(pairs), lr=0.1)
    scheduler = rate_by_epoch(optimizer)
    decay = K.schedules.ExponentialDecay(0.1, 1, 0.5)
    found = explain_optimizer(
        K.SGD(decay),
        optimizer,
        pairs,
        GRADIENTS,
        torch_scheduler=scheduler,
        steps_per_epoch=5 if by_epoch else None,
    )
    if by_epoch:
        check(found, "optimizer.schedule")
        assert found[0].values["torch"] == "once in 5 steps"
    else:
        assert found == []


def test_a_schedule_that_parts_later():
    pairs = make_pairs()
    optimizer = T.SGD(parameters(pairs), lr=0.1)
    scheduler = T.lr_scheduler.StepLR(optimizer, 20)
    decay = K.schedules.PiecewiseConstantDecay([9], [0.1, 0.01])
    found = explain_optimizer(
        K.SGD(decay), optimizer, pairs, GRADIENTS, torch_scheduler=scheduler
    )
    check(found, "optimizer.schedule", keras="0.1 from step 1, 0.01 from step 11")


def test_a_cosine_is_looked_at_until_its_end():
    pairs = make_pairs()
    optimizer = T.SGD(parameters(pairs), lr=0.1)
    scheduler = T.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    decay = K.schedules.CosineDecay(0.1, 10)
    found = explain_optimizer(
        K.SGD(decay), optimizer, pairs, GRADIENTS, torch_scheduler=scheduler
    )
    assert found == []


@pytest.mark.parametrize(
    ("decay", "cause"),
    [
        (0.02, None),
        (0.01, "optimizer.weight_decay_doubled"),
        (0.005, "optimizer.weight_decay"),
        (0.0, "loss.regularizer"),
    ],
)
def test_a_regularizer_against_a_weight_decay(decay, cause):
    pairs = make_pairs(keras.regularizers.L2(0.01))
    groups = [
        {"params": [pairs[0].parameter], "weight_decay": decay},
        {"params": [pairs[1].parameter]},
    ]
    optimizer = T.SGD(groups, lr=0.1, momentum=0.9)
    found = explain_optimizer(K.SGD(0.1, momentum=0.9), optimizer, pairs, GRADIENTS)
    assert causes(found) == ([cause] if cause else [])
    if cause == "loss.regularizer":
        check(found, cause, keras="0.01 * sum(w**2)", torch=None)


def test_a_penalty_in_the_loss_of_pytorch():
    pairs = make_pairs(keras.regularizers.L2(0.01))
    weight = pairs[0].parameter

    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels) + 0.01 * weight.square().sum()

    factors = torch_penalty(pairs, loss, LABELS)
    assert factors == pytest.approx([0.02, 0.0])
    optimizer = T.SGD(parameters(pairs), lr=0.1)
    found = explain_optimizer(
        K.SGD(0.1), optimizer, pairs, GRADIENTS, torch_penalty=factors
    )
    assert found == []


class Halved(keras.optimizers.SGD):
    """An optimizer of one's own, which can't be read."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate / 2)


class OwnDecay(torch.optim.Optimizer):
    """Another, on the other side."""

    def __init__(self, members):
        super().__init__(members, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * 0.02)
                p.add_(p.grad, alpha=-group["lr"])


def test_optimizers_of_ones_own_are_searched():
    pairs = make_pairs()
    optimizer = T.SGD(parameters(pairs), lr=0.1)
    found = explain_optimizer(Halved(0.1), optimizer, pairs, GRADIENTS)
    check(found, "optimizer.learning_rate", keras=0.05, torch=0.1)
    found = explain_optimizer(K.SGD(0.1), OwnDecay(parameters(pairs)), pairs, GRADIENTS)
    check(found, "optimizer.weight_decay", keras=0.0, torch=0.02)


def test_optimizers_stay_as_they_were():
    pairs = make_pairs()
    members = parameters(pairs)
    optimizer = T.Adam(members, lr=0.1)
    scheduler = rate_by_epoch(optimizer)
    (members[0].sum() + members[1].sum()).backward()
    optimizer.step()
    scheduler.step()
    keras_optimizer = K.Adam(0.1)
    keras_optimizer.build([pair.variable for pair in pairs])
    slopes = [p.grad for p in members]
    values = [p.detach().clone() for p in members]
    state = copy.deepcopy(optimizer.state_dict())
    times = copy.deepcopy(scheduler.state_dict())
    slots = [np.array(v) for v in keras_optimizer.variables]
    for gradients in (GRADIENTS, [["no gradient", None]]):
        try:
            explain_optimizer(
                keras_optimizer, optimizer, pairs, gradients, torch_scheduler=scheduler
            )
        except Exception:
            assert gradients is not GRADIENTS
    assert str(optimizer.state_dict()) == str(state)
    assert scheduler.state_dict() == times
    assert all(p.grad is slope for p, slope in zip(members, slopes, strict=True))
    assert all(map(torch.equal, members, values))
    assert all(p.dtype == torch.float32 for p in members)
    new = [np.array(v) for v in keras_optimizer.variables]
    assert all(map(np.array_equal, new, slots))
    assert keras.config.floatx() == "float32"


def make_models():
    """Returns small twins, their pairs, images and labels."""
    keras_model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ]
    )
    torch_model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)
    )
    pairs = []
    for layer, name in zip(keras_model.layers, ("0", "2"), strict=True):
        module = torch_model.get_submodule(name)
        both = ((layer.kernel, module.weight), (layer.bias, module.bias))
        for variable, parameter in both:
            parameter.data = torch.tensor(np.array(variable.value).T.copy())
            pairs.append(Pair(variable, parameter, np.transpose, layer.name, name))
    images = RNG.normal(size=(8, 4)).astype("float32")
    return keras_model, torch_model, pairs, images, RNG.integers(0, 3, 8)


def diagnose(models, keras_optimizer, torch_optimizer=None, **options):
    keras_model, torch_model, pairs, images, labels = models
    return diagnose_training(
        pairs,
        keras_model,
        torch_model,
        images,
        labels,
        keras_loss=sparse(),
        torch_loss=F.cross_entropy,
        keras_optimizer=keras_optimizer,
        torch_optimizer=torch_optimizer,
        **options,
    )


def test_a_training_of_models():
    models = make_models()
    members = list(models[1].parameters())
    equal = T.SGD(members, lr=0.1, momentum=0.9)
    assert diagnose(models, K.SGD(0.1, momentum=0.9), equal) == []
    other = T.SGD(members, lr=0.1, momentum=0.5)
    found = diagnose(models, K.SGD(0.1, momentum=0.9), other)
    check(found, "optimizer.momentum", keras=0.9, torch=0.5)


@pytest.mark.parametrize("side", ["keras", "torch", "optimizer"])
def test_a_frozen_layer_is_named(side):
    models = make_models()
    keras_model, torch_model, pairs, *_ = models
    members = list(torch_model.parameters())
    if side == "keras":
        keras_model.get_layer("hidden").trainable = False
    elif side == "torch":
        torch_model[0].requires_grad_(False)
    else:
        members = list(torch_model[2].parameters())
    optimizer = T.SGD(members, lr=0.1)
    found = diagnose(models, K.SGD(0.1), optimizer)
    assert causes(found) == ["layer.frozen"]
    assert (found[0].keras_name, found[0].torch_name) == ("hidden", "0")
    frozen = {"keras": ("frozen", "trainable"), "torch": ("trainable", "frozen")}
    values = frozen.get(side, ("trainable", "not in the optimizer"))
    assert tuple(found[0].values.values()) == values
    assert explain_frozen(pairs[2:], optimizer) == []


class Loop:
    """A training loop of one's own."""

    def __init__(self, model, clip=None, forget=True, scheduler=False, decay=0.0):
        self.model, self.clip, self.forget, self.decay = model, clip, forget, decay
        self.optimizer = T.SGD(model.parameters(), lr=0.1)
        self.scheduler = rate_by_epoch(self.optimizer) if scheduler else None

    def step(self, images, labels):
        if self.forget:
            self.optimizer.zero_grad()
        F.cross_entropy(self.model(images), labels).backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if self.decay:
            with torch.no_grad():
                for p in self.model.parameters():
                    p.mul_(1 - 0.1 * self.decay)
        self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()


LOOPS = {
    "plain": ({}, K.SGD(0.1), None),
    "clipped": ({"clip": 0.05}, K.SGD(0.1), "optimizer.clipping"),
    "clipped on both sides": ({"clip": 0.05}, K.SGD(0.1, global_clipnorm=0.05), None),
    "clipped otherwise": (
        {"clip": 0.05},
        K.SGD(0.1, clipnorm=0.05),
        "optimizer.clipping",
    ),
    "no zero_grad": ({"forget": False}, K.SGD(0.1), "optimizer.zero_grad"),
    "schedule": ({"scheduler": True}, K.SGD(0.1), "optimizer.schedule"),
    "decay": ({"decay": 0.01}, K.SGD(0.1), "optimizer.weight_decay"),
    "decay on both sides": ({"decay": 0.01}, K.SGD(0.1, weight_decay=0.01), None),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("given", [False, True])
def test_a_loop_of_ones_own(name, given):
    options, keras_optimizer, cause = LOOPS[name]
    models = make_models()
    loop = Loop(models[1], **options)
    before = copy.deepcopy(models[1].state_dict())
    optimizer = loop.optimizer if given else None
    found = diagnose(models, keras_optimizer, optimizer, torch_step=loop.step)
    assert causes(found) == ([cause] if cause else [])
    if name == "clipped":
        check(found, cause, torch="global norm 0.05")
    after = models[1].state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(p.grad is None for p in models[1].parameters())
    assert not loop.optimizer.state
    assert loop.optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("rate", [0.1, 1e-4])
def test_a_loop_that_bears_float32_only(rate):
    models = make_models()
    optimizer = T.SGD(models[1].parameters(), lr=rate, momentum=0.9)
    weights = torch.ones(3)  # of another type than float64 outputs

    def step(images, labels):
        optimizer.zero_grad()
        F.cross_entropy(models[1](images), labels, weight=weights).backward()
        optimizer.step()

    assert diagnose(models, K.SGD(rate, 0.9), torch_step=step) == []
    found = diagnose(models, K.SGD(rate, 0.5), torch_step=step)
    assert causes(found) == ["optimizer.momentum"]


def test_a_loop_without_an_optimizer():
    models = make_models()

    def step(images, labels):
        F.cross_entropy(models[1](images), labels).backward()
        with torch.no_grad():
            for p in models[1].parameters():
                p.sub_(0.1 * p.grad)
                p.grad = None

    assert diagnose(models, K.SGD(0.1), torch_step=step) == []
    found = diagnose(models, K.SGD(0.3), torch_step=step)
    check(found, "optimizer.learning_rate", keras=0.3, torch=0.1)


def test_a_loop_that_fails():
    def step(images, labels):
        raise RuntimeError("out of paper")

    models = make_models()
    with pytest.raises(ValueError, match="can't be made: out of paper"):
        diagnose(models, K.SGD(0.1), torch_step=step)


class Biased(torch.nn.BatchNorm2d):
    """A BatchNorm whose running variance is the biased one, as Keras's."""

    def forward(self, images):
        if self.training:
            n = images.numel() / images.shape[1]
            old = self.running_var.clone()
            outputs = super().forward(images)
            part = (self.running_var - (1 - self.momentum) * old) * (n - 1) / n
            self.running_var.copy_((1 - self.momentum) * old + part)
            return outputs
        return super().forward(images)


def make_norms(kind, momentum=0.99, module=torch.nn.BatchNorm2d, torch_momentum=0.01):
    layer = kind(momentum=momentum, epsilon=1e-5)
    layer.build((None, 3, 5, 4))
    layer.moving_mean.assign(RNG.normal(size=4))
    return layer, module(4, momentum=torch_momentum)


MAPS = [RNG.normal(size=(2, 3, 5, 4)) * 2 + 1 for _ in range(3)]
OURS = keras_layers.BatchNormalization
THEIRS = keras.layers.BatchNormalization


def test_momentum_of_running_statistics():
    norms = make_norms(OURS, torch_momentum=0.1)
    found = explain_bn_statistics(MAPS, *norms, "bn", "norm")
    check(found, "bn.momentum", keras=0.99, torch=0.1)
    assert (found[0].keras_name, found[0].torch_name) == ("bn", "norm")


def test_running_variance_biased_or_not():
    found = explain_bn_statistics(MAPS, *make_norms(THEIRS))
    check(found, "bn.unbiased_variance", keras="biased", torch="unbiased")
    found = explain_bn_statistics(MAPS, *make_norms(OURS, module=Biased))
    check(found, "bn.unbiased_variance", keras="unbiased", torch="biased")


def test_both_faults_of_running_statistics():
    found = explain_bn_statistics(MAPS[0], *make_norms(THEIRS, torch_momentum=0.1))
    assert causes(found) == ["bn.momentum", "bn.unbiased_variance"]
    assert all(x.error_after < 1e-10 < x.error_before for x in found)


@pytest.mark.parametrize(
    "norms",
    [make_norms(OURS), make_norms(THEIRS, module=Biased)],
    ids=["ours", "biased"],
)
def test_equal_statistics_are_not_accused(norms):
    layer, module = norms
    module.eval()
    before = [np.array(v) for v in layer.variables], copy.deepcopy(module.state_dict())
    assert explain_bn_statistics(MAPS, *norms) == []
    assert all(map(np.array_equal, [np.array(v) for v in layer.variables], before[0]))
    after = module.state_dict()
    assert all(torch.equal(after[key], before[1][key]) for key in after)
    assert not module.training


def test_a_frozen_norm():
    layer, module = make_norms(OURS)
    layer.trainable = False
    found = explain_bn_statistics(MAPS, layer, module)
    check(found, "layer.frozen", keras="frozen", torch="trainable")


def test_statistics_that_are_not_kept():
    layer, _ = make_norms(OURS)
    module = torch.nn.BatchNorm2d(4, track_running_stats=False)
    found = explain_bn_statistics(MAPS, layer, module)
    assert causes(found) == ["bn.training_mode"]


def test_keras_losses_are_evaluated_in_float64():
    value = evaluate_keras(sparse(), LOGITS, Labels.of(LABELS, LOGITS))
    logs = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    assert value.total == pytest.approx(-logs[range(8), LABELS].mean(), rel=1e-14)
