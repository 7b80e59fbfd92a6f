"""The optimizers and schedules of the papers; Keras defines most of them otherwise.

Keras keeps the learning rate in a variable of `keras.config.floatx()`: steps in float64
want that to be float64 before the optimizer is made. It rounds its constants to
float32 wherever it casts a Python number; a NumPy one keeps its digits.
"""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from parity.spec import schedules
from parity.spec.recipes import check_clip, optimizer_settings

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf


class CoupledDecay:
    """Adds l2 * variable to each gradient, after the clipping; for Keras's optimizers.

    Keras's `weight_decay` takes it from the variable instead, times the learning rate.
    """

    def __init__(self, *args, l2: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.l2 = l2

    def decayed(self, gradient, variable):
        """Returns the gradient of the loss and of l2 / 2 * sum of squares."""
        gradient = ops.cast(gradient, variable.dtype)
        if not self.l2 or not self._use_weight_decay(variable):
            return gradient
        return gradient + ops.convert_to_tensor(self.l2, variable.dtype) * variable

    def get_config(self):
        """Returns the arguments of the class."""
        return {**super().get_config(), "l2": self.l2}


@keras.saving.register_keras_serializable("cnn_parity")
class SGD(CoupledDecay, keras.optimizers.SGD):
    """SGD whose velocity does not hold the learning rate.

    Keras multiplies by the rate before it adds to the velocity: after the rate has
    changed, the velocity goes on at the old one.
    Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, equations 1 to 4, where the rate is constant.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Makes one step on one variable."""
        step = self.decayed(gradient, variable)
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            momentum = ops.convert_to_tensor(self.momentum, variable.dtype)
            moved = momentum * velocity + step
            self.assign(velocity, moved)
            step = step + momentum * moved if self.nesterov else moved
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)


@keras.saving.register_keras_serializable("cnn_parity")
class Adam(CoupledDecay, keras.optimizers.Adam):
    """Adam with epsilon outside the bias-corrected root, as in the paper.

    Keras adds epsilon before the correction, which makes it larger in early steps,
    and rounds 1 - beta^t to float32, which costs five digits at the first step.
    TensorFlow's own kernel makes the step in one pass over the memory; it adds its
    epsilon before the correction too, so that it is given a corrected one.
    Source: Kingma & Ba, "Adam", ICLR 2015, arXiv:1412.6980, algorithm 1 and section 2.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Makes one step on one variable."""
        if self.amsgrad:
            raise NotImplementedError("this Adam has no amsgrad")
        step = self._kernel_step if BACKEND == "tensorflow" else self._paper_step
        step(self.decayed(gradient, variable), variable, learning_rate)

    def _kernel_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        step = ops.cast(self.iterations + 1, "float64")
        # The kernel works in the variable's type: what it makes of beta counts, and
        # 1 - beta^t would lose digits there.
        betas = [ops.convert_to_tensor(x, dtype) for x in (self.beta_1, self.beta_2)]
        corrections = [1 - ops.power(ops.cast(x, "float64"), step) for x in betas]
        root = ops.sqrt(corrections[1])
        step_size = ops.cast(learning_rate, "float64") * root / corrections[0]
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=ops.zeros((), dtype),
            beta2_power=ops.zeros((), dtype),
            lr=ops.cast(step_size, dtype),
            beta1=betas[0],
            beta2=betas[1],
            epsilon=ops.cast(self.epsilon * root, dtype),
            grad=gradient,
        )

    def _paper_step(self, gradient, variable, learning_rate):
        dtype = keras.backend.standardize_dtype(variable.value.dtype)
        step = ops.cast(self.iterations + 1, dtype)
        betas = [float(np.array(x, dtype)) for x in (self.beta_1, self.beta_2)]
        # 1 - beta^t; the difference would lose digits, and JAX has no float64.
        corrections = [-ops.expm1(step * math.log(beta)) for beta in betas]
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (1 - betas[0]) * (gradient - mean))
        self.assign_add(square, (1 - betas[1]) * (ops.square(gradient) - square))
        size = ops.sqrt(square / corrections[1]) + self.epsilon
        rate = ops.cast(learning_rate, dtype) / corrections[0]
        self.assign_sub(variable, rate * mean / size)


@keras.saving.register_keras_serializable("cnn_parity")
class RMSprop(CoupledDecay, keras.optimizers.RMSprop):
    """RMSprop with epsilon outside the root, where it is a bound of the divisor.

    Keras's inside the root is felt by far larger gradients: by those of sqrt(epsilon).
    """

    def update_step(self, gradient, variable, learning_rate):
        """Makes one step on one variable."""
        if self.momentum or self.centered:
            raise NotImplementedError("this RMSprop has no momentum and is not centred")
        gradient = self.decayed(gradient, variable)
        mean = self._velocities[self._get_variable_index(variable)]
        rho = ops.convert_to_tensor(self.rho, variable.dtype)
        self.assign(mean, rho * mean + (1 - rho) * ops.square(gradient))
        step = gradient / (ops.sqrt(mean) + self.epsilon)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)


@keras.saving.register_keras_serializable("cnn_parity")
class Adagrad(CoupledDecay, keras.optimizers.Adagrad):
    """Adagrad with epsilon outside the root; Keras's is inside.

    Keras's sum of squares starts from 0.1 unless told otherwise.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Makes one step on one variable."""
        gradient = self.decayed(gradient, variable)
        total = self._accumulators[self._get_variable_index(variable)]
        self.assign_add(total, ops.square(gradient))
        step = gradient / (ops.sqrt(total) + self.epsilon)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)


def sgd(learning_rate=0.01, **options) -> keras.optimizers.Optimizer:
    """Returns gradient descent: w -= rate * g.

    Args:
        learning_rate: of the first step.
        options: for all optimizers here: `weight_decay`; `decoupled`, whether the decay
            is w -= rate * weight_decay * w before the step or g += weight_decay * w;
            `clip`, a name in CLIPPINGS and a bound for the gradients, which is kept
            before the decay: ("global_norm", 1.0).
    """
    return SGD(learning_rate, **_options(**options))


def momentum(learning_rate=0.01, *, momentum=0.9, **options):
    """Returns heavy-ball momentum: v = momentum * v + g, w -= rate * v."""
    return SGD(learning_rate, momentum, **_options(**options))


def nesterov(learning_rate=0.01, *, momentum=0.9, **options):
    """Returns Nesterov's: v = momentum * v + g, w -= rate * (g + momentum * v)."""
    return SGD(learning_rate, momentum, nesterov=True, **_options(**options))


def adam(learning_rate=1e-3, *, beta_1=0.9, beta_2=0.999, epsilon=1e-8, **options):
    """Returns Adam: w -= rate * m / (sqrt(v) + epsilon), m and v bias-corrected."""
    return Adam(learning_rate, beta_1, beta_2, epsilon, **_options(**options))


def adamw(
    learning_rate=1e-3,
    *,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    weight_decay=0.01,
    clip=None,
):
    """Returns Adam with decoupled weight decay, times the learning rate.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019,
    arXiv:1711.05101, algorithm 2.
    """
    options = _options(weight_decay, decoupled=True, clip=clip)
    return Adam(learning_rate, beta_1, beta_2, epsilon, **options)


def rmsprop(learning_rate=1e-3, *, rho=0.9, epsilon=1e-8, **options):
    """Returns RMSprop: v = rho v + (1 - rho) g^2, w -= rate * g / (sqrt(v) + epsilon).

    Source: Tieleman & Hinton, "Neural networks for machine learning", 2012, lecture 6e,
    which has no epsilon.
    """
    return RMSprop(learning_rate, rho, epsilon=epsilon, **_options(**options))


def adagrad(learning_rate=0.01, *, epsilon=1e-10, **options):
    """Returns Adagrad: s += g^2, w -= rate * g / (sqrt(s) + epsilon); s starts from 0.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods", JMLR 12, 2011,
    figure 1, whose delta is epsilon.
    """
    return Adagrad(learning_rate, 0.0, epsilon, **_options(**options))


def _options(weight_decay=0.0, decoupled=False, clip=None) -> dict[str, object]:
    """Returns what Keras's classes call the options."""
    options = {"l2": weight_decay}
    if decoupled:
        options = {"weight_decay": np.float64(weight_decay) if weight_decay else None}
    if clip:
        check_clip(clip)
        kind, limit = clip
        names = {"value": "clipvalue", "norm": "clipnorm"}
        options[names.get(kind, "global_clipnorm")] = limit
    return options


def clip_by_value(gradients: list, limit: float) -> list:
    """Returns gradients whose numbers are within -limit and limit; None stays None."""
    check_clip(("value", limit))
    return [g if g is None else ops.clip(g, -limit, limit) for g in gradients]


def clip_by_norm(gradients: list, limit: float) -> list:
    """Returns gradients, each of which has a norm of no more than the limit."""
    check_clip(("norm", limit))
    if BACKEND == "tensorflow":
        return [g if g is None else tf.clip_by_norm(g, limit) for g in gradients]
    return [g if g is None else _scaled([g], limit)[0] for g in gradients]


def clip_by_global_norm(gradients: list, limit: float) -> list:
    """Returns gradients times one number, whose norm together is within the limit.

    All become NaN if that norm is not finite.
    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural
    networks", ICML 2013, algorithm 1.
    """
    check_clip(("global_norm", limit))
    if BACKEND == "tensorflow":
        return tf.clip_by_global_norm(gradients, limit)[0]
    return _scaled(gradients, limit)


def _scaled(gradients: list, limit: float) -> list:
    """Returns gradients whose norm together is within the limit, or NaN."""
    squares = [ops.sum(ops.square(g)) for g in gradients if g is not None]
    norm = ops.sqrt(sum(squares, ops.zeros(())))
    scale = limit / ops.maximum(norm, limit)
    scale = ops.where(ops.isfinite(norm), scale, float("nan"))
    return [g if g is None else g * ops.cast(scale, g.dtype) for g in gradients]


class LambdaLR:
    """Sets an optimizer's learning rate to the initial one times factor(step).

    What PyTorch has under this name. Keras's schedules compute in float32 and count
    the optimizer's steps only.
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer, factor: Callable[[int], float]
    ):
        self.optimizer, self.factor = optimizer, factor
        self.initial, self.count = float(optimizer.learning_rate), 0
        set_learning_rate(optimizer, self.initial * factor(0))

    def step(self) -> None:
        """Goes on to the next step, an optimizer's or an epoch."""
        self.count += 1
        set_learning_rate(self.optimizer, self.initial * self.factor(self.count))


class ReduceLROnPlateau:
    """Multiplies an optimizer's learning rate when a loss has stopped falling.

    Keras's callback of this name waits for one loss less, and its threshold is not
    relative to the loss.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, **constants):
        self.optimizer, self.constants = optimizer, constants
        self.initial, self.losses = float(optimizer.learning_rate), []

    def step(self, loss: float) -> None:
        """Takes the loss of one more epoch."""
        self.losses.append(float(loss))
        rate = schedules.plateau(self.initial, self.losses, **self.constants)
        set_learning_rate(self.optimizer, rate)


def step_decay(optimizer, *, step_size, gamma=0.1):
    """Returns a scheduler: the rate times gamma after every `step_size` steps.

    `scheduler.step()` after each step; a step is an optimizer's or an epoch.
    """
    return LambdaLR(optimizer, schedules.step_decay(step_size, gamma))


def exponential_decay(optimizer, *, decay_steps, gamma):
    """Returns a scheduler: the rate times gamma ** (step / decay_steps)."""
    return LambdaLR(optimizer, schedules.exponential_decay(decay_steps, gamma))


def cosine_decay(optimizer, *, decay_steps, final=0.0):
    """Returns a scheduler: half a cosine down to the part `final` of the rate."""
    return LambdaLR(optimizer, schedules.cosine_decay(decay_steps, final))


def warm_up(optimizer, *, steps, after=None, start=0.1):
    """Returns a scheduler: a line from the part `start` of the rate up to it.

    Args:
        optimizer: whose rate is set.
        steps: of the line.
        after: one of `parity.spec.schedules`; None keeps the rate.
        start: the first part.
    """
    after = after or schedules.constant()
    return LambdaLR(optimizer, schedules.warm_up(steps, after, start))


def plateau(optimizer, *, gamma=0.1, patience=10, threshold=1e-4):
    """Returns a scheduler: the rate times gamma when a loss has stopped falling.

    `scheduler.step(loss)`, of the training and not of the test, after each epoch.
    """
    constants = {"gamma": gamma, "patience": patience, "threshold": threshold}
    return ReduceLROnPlateau(optimizer, **constants)


def create_optimizer(
    name: str,
    learning_rate: float,
    *,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
) -> keras.optimizers.Optimizer:
    """Returns an optimizer by its name in a recipe.

    Args:
        name: the optimizer.
        learning_rate: of the first step.
        weight_decay: decoupled in AdamW; None is the recipe's.
        clip_norm: what the norm of all gradients together is kept within.
    """
    settings = optimizer_settings(name, weight_decay, clip_norm)
    functions = (sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad)
    by_name = {function.__name__: function for function in functions}
    return by_name[name](learning_rate, **settings)


def set_learning_rate(
    optimizer: keras.optimizers.Optimizer, learning_rate: float
) -> None:
    """Makes the next steps with a learning rate."""
    optimizer.learning_rate = learning_rate
