"""Faults of the optimizer."""

from collections.abc import Callable, Iterator
from itertools import cycle, islice

import torch.nn.functional as F

from parity.frameworks import keras, torch
from keras_impl import optim as keras_optim
from parity.faults.pairs import Case, Sides
from parity.faults.spec import Nodes, change, find, leaves
from parity.faults.training import ORDER, trained


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    names = cycle(ORDER)
    for cause, note, ours, theirs, also in (*_rates(), *_moments(), *_decays()):

        def arguments(sides, ours=ours, theirs=theirs):
            found = theirs(sides.torch.model)
            found = found if isinstance(found, dict) else {"torch_optimizer": found}
            return {"keras_optimizer": ours(), **found}

        for name in islice(names, 2):
            yield trained(cause, note, name, arguments, also=also)
    yield from _doubled()


def _torch(kind: str, *arguments: object, **settings: object) -> Callable:
    """Returns what makes an optimizer of torch.optim for a model."""
    make = getattr(torch.optim, kind)
    return lambda model: make(model.parameters(), *arguments, **settings)


def _keras(kind: str, *arguments: object, **settings: object) -> Callable:
    """Returns what makes an optimizer of Keras."""
    make = getattr(keras.optimizers, kind)
    return lambda: make(*arguments, **settings)


def _paper(name: str, *arguments: object, **settings: object) -> Callable:
    """Returns what makes this project's optimizer, which is PyTorch's, in Keras."""
    return lambda: getattr(keras_optim, name)(*arguments, **settings)


def _scheduled(make: Callable, schedule: Callable, **rest: object) -> Callable:
    """Returns what makes an optimizer and its schedule."""

    def arguments(model):
        optimizer = make(model)
        found = {"torch_optimizer": optimizer, "torch_scheduler": schedule(optimizer)}
        return found | rest

    return arguments


def _rates() -> list[tuple]:
    schedules = keras.optimizers.schedules
    decay = schedules.ExponentialDecay(0.0625, 2, 0.5, staircase=True)
    cosine = schedules.CosineDecay(0.0625, 8)
    step = torch.optim.lr_scheduler.StepLR
    sgd, adam = _torch("SGD", 0.0625), _torch("Adam", 1e-3)
    return [
        ("optimizer.kind", "sgd", _paper("adam", 1e-3), _torch("SGD", 1e-3), ()),
        ("optimizer.kind", "adam", _paper("rmsprop", 1e-3), adam, ()),
        ("optimizer.kind", "default", _keras("RMSprop", 1e-3), _torch("SGD", 1e-3), ()),
        (
            "optimizer.learning_rate",
            "sgd",
            _keras("SGD", 0.01),
            _torch("SGD", 1e-3),
            (),
        ),
        ("optimizer.learning_rate", "adam", _paper("adam", 3e-4), adam, ()),
        (
            "optimizer.schedule",
            "epochs",
            _keras("SGD", decay),
            _scheduled(
                sgd,
                lambda optimizer: step(optimizer, 2, 0.5),
                steps=4,
                steps_per_epoch=2,
            ),
            ("optimizer.learning_rate",),
        ),
        (
            "optimizer.schedule",
            "none",
            _keras("SGD", cosine),
            lambda model: {"torch_optimizer": sgd(model), "steps": 4},
            ("optimizer.learning_rate",),
        ),
        (
            "optimizer.schedule",
            "torch",
            _keras("SGD", 0.0625),
            _scheduled(
                sgd,
                lambda x: torch.optim.lr_scheduler.ExponentialLR(x, 0.5),
                steps=4,
            ),
            ("optimizer.learning_rate",),
        ),
    ]


def _moments() -> list[tuple]:
    adam = _torch("Adam", 1e-3)
    heavy = _torch("SGD", 0.01, momentum=0.9)
    ours = _paper("rmsprop", 1e-3, rho=0.9, epsilon=1e-8)
    tiny = {"rho": 0.9, "epsilon": 1e-30}
    return [
        ("optimizer.momentum", "none", _keras("SGD", 0.01), heavy, ()),
        ("optimizer.momentum", "less", _keras("SGD", 0.01, 0.5), heavy, ()),
        (
            "optimizer.nesterov",
            "keras",
            _keras("SGD", 0.01, 0.9, nesterov=True),
            heavy,
            (),
        ),
        (
            "optimizer.nesterov",
            "torch",
            _keras("SGD", 0.01, 0.9),
            _torch("SGD", 0.01, momentum=0.9, nesterov=True),
            (),
        ),
        ("optimizer.betas", "second", _paper("adam", 1e-3, beta_2=0.99), adam, ()),
        ("optimizer.betas", "first", _paper("adam", 1e-3, beta_1=0.5), adam, ()),
        ("optimizer.betas", "rho", ours, _torch("RMSprop", 1e-3, alpha=0.99), ()),
        ("optimizer.epsilon", "large", _paper("adam", 1e-3, epsilon=1e-3), adam, ()),
        ("optimizer.epsilon", "keras", _paper("adam", 1e-3, epsilon=1e-7), adam, ()),
        (
            "optimizer.epsilon",
            "rmsprop",
            _paper("rmsprop", 1e-3, epsilon=1e-5),
            _torch("RMSprop", 1e-3, alpha=0.9),
            (),
        ),
        (
            "optimizer.epsilon_place",
            "adam",
            _keras("Adam", 1e-3, epsilon=1e-4),
            _torch("Adam", 1e-3, eps=1e-4),
            (),
        ),
        (
            "optimizer.epsilon_place",
            "rmsprop",
            _keras("RMSprop", 1e-3, rho=0.9, epsilon=1e-6),
            _torch("RMSprop", 1e-3, alpha=0.9, eps=1e-6),
            (),
        ),
        (
            "optimizer.centered",
            "torch",
            _keras("RMSprop", 1e-3, **tiny),
            _torch("RMSprop", 1e-3, alpha=0.9, eps=1e-15, centered=True),
            (),
        ),
        (
            "optimizer.centered",
            "paper",
            ours,
            _torch("RMSprop", 1e-3, alpha=0.9, centered=True),
            (),
        ),
    ]


def _decays() -> list[tuple]:
    sgd = _torch("SGD", 0.0625, weight_decay=0.05)
    return [
        (
            "optimizer.zero_grad",
            "",
            _keras("SGD", 0.0625),
            accumulating_step,
            (),
        ),
        (
            "optimizer.zero_grad",
            "keras",
            _paper("sgd", 0.0625),
            accumulating_step,
            (),
        ),
        (
            "optimizer.weight_decay",
            "adamw",
            _paper("adamw", 1e-3, weight_decay=0.04),
            _torch("AdamW", 1e-3, weight_decay=0.1),
            (),
        ),
        (
            "optimizer.weight_decay",
            "none",
            _paper("sgd", 0.0625),
            sgd,
            (),
        ),
        (
            "optimizer.weight_decay_coupled",
            "momentum",
            _keras("SGD", 0.01, 0.9, weight_decay=0.05),
            _torch("SGD", 0.01, momentum=0.9, weight_decay=0.05),
            (),
        ),
        (
            "optimizer.weight_decay_coupled",
            "adam",
            _paper("adamw", 1e-3, weight_decay=0.1),
            _torch("Adam", 1e-3, weight_decay=0.1),
            (),
        ),
        (
            "optimizer.clipping",
            "keras",
            _keras("SGD", 0.0625, global_clipnorm=0.25),
            _torch("SGD", 0.0625),
            (),
        ),
        (
            "optimizer.clipping",
            "variables",
            _keras("SGD", 0.0625, clipnorm=0.25),
            lambda model: clipped_step(model, "norm", 0.25),
            (),
        ),
        (
            "optimizer.clipping",
            "value",
            _keras("SGD", 0.0625),
            lambda model: clipped_step(model, "value", 0.01),
            (),
        ),
    ]


def accumulating_step(model: torch.nn.Module) -> dict[str, object]:
    """Returns a loop of one's own that forgets the gradients of the last step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.0625)

    def step(images, labels):
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return {"torch_optimizer": optimizer, "torch_step": step}


def clipped_step(model: torch.nn.Module, kind: str, limit: float) -> dict[str, object]:
    """Returns a loop of one's own that clips the gradients."""
    optimizer = torch.optim.SGD(model.parameters(), 0.0625)

    def step(images, labels):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        if kind == "norm":
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        else:
            torch.nn.utils.clip_grad_value_(model.parameters(), limit)
        optimizer.step()

    return {"torch_optimizer": optimizer, "torch_step": step}


def _kernels(model: torch.nn.Module) -> tuple[list, list]:
    """Returns the parameters that Keras's kernel regularizers see, and the others."""
    parameters = list(model.parameters())
    kernels = [x for x in parameters if x.ndim > 1]
    return kernels, [x for x in parameters if x.ndim < 2]


def _doubled() -> Iterator[Case]:
    """The gradient of a * w^2 is 2 * a * w, that of a weight decay a * w."""

    def penalised(nodes: Nodes) -> Nodes:
        for path in list(leaves(nodes)):
            if find(nodes, path).kind in ("conv", "dense"):
                nodes = change(nodes, path, l2=0.02)
        return nodes

    def arguments(sides: Sides, decay: float = 0.02) -> dict:
        kernels, others = _kernels(sides.torch.model)
        groups = [{"params": kernels, "weight_decay": decay}, {"params": others}]
        return {
            "keras_optimizer": keras.optimizers.SGD(0.0625),
            "torch_optimizer": torch.optim.SGD(groups, 0.0625),
        }

    also = ("optimizer.weight_decay", "loss.regularizer")
    settings = {"also": also, "at": ("optimizer", "loss"), "keras_edit": penalised}
    for name in ("vgg", "alexnet", "residual"):
        yield trained(
            "optimizer.weight_decay_doubled", "l2", name, arguments, **settings
        )


def equal_cases() -> Iterator[Case]:
    """Yields pairs that learn alike, by optimizers of different makers."""
    table = [
        ("sgd", _keras("SGD", 0.0625), _torch("SGD", 0.0625)),
        ("momentum", _keras("SGD", 0.01, 0.9), _torch("SGD", 0.01, momentum=0.9)),
        ("adam", _paper("adam", 1e-3), _torch("Adam", 1e-3)),
        (
            "adamw",
            _paper("adamw", 1e-3, weight_decay=0.1),
            _torch("AdamW", 1e-3, weight_decay=0.1),
        ),
        (
            "rmsprop",
            _paper("rmsprop", 1e-3),
            _torch("RMSprop", 1e-3, alpha=0.9),
        ),
        (
            "clipped",
            _keras("SGD", 0.0625, clipvalue=0.01),
            lambda model: clipped_step(model, "value", 0.01),
        ),
    ]
    for index, (note, ours, theirs) in enumerate(table):

        def arguments(sides, ours=ours, theirs=theirs):
            found = theirs(sides.torch.model)
            found = found if isinstance(found, dict) else {"torch_optimizer": found}
            return {"keras_optimizer": ours(), **found}

        yield trained("equal", note, ORDER[index], arguments)
