"""The optimizers that Keras lacks or defines differently from the papers."""

import keras
from keras import ops

from parity.spec.recipes import OPTIMIZERS


class Adam(keras.optimizers.Adam):
    """Adam with epsilon outside the bias-corrected root, as in the paper.

    Keras adds epsilon before the correction, which makes it larger in early steps,
    and rounds 1 - beta^t to float32, which costs five digits at the first step.
    Source: Kingma & Ba, "Adam", ICLR 2015, arXiv:1412.6980, algorithm 1.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Makes one step on one variable."""
        if self.amsgrad:
            raise NotImplementedError("this Adam has no amsgrad")
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, "float64")
        index = self._get_variable_index(variable)
        mean, variance = self._momentums[index], self._velocities[index]
        self.assign(mean, self.beta_1 * mean + (1 - self.beta_1) * gradient)
        self.assign(
            variance,
            self.beta_2 * variance + (1 - self.beta_2) * ops.square(gradient),
        )
        beta_1, beta_2 = (
            ops.convert_to_tensor(beta, "float64")
            for beta in (self.beta_1, self.beta_2)
        )
        step_size = ops.cast(learning_rate, "float64") / (1 - ops.power(beta_1, step))
        correction = ops.cast(ops.sqrt(1 - ops.power(beta_2, step)), dtype)
        denominator = ops.sqrt(variance) / correction + self.epsilon
        self.assign_sub(variable, ops.cast(step_size, dtype) * mean / denominator)


class SGD(keras.optimizers.SGD):
    """SGD whose momentum is a number of the variable's type.

    Keras rounds the constant to float32, also for float64 variables.
    Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, equations 1 and 2.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Makes one step on one variable."""
        if self.nesterov:
            raise NotImplementedError("this SGD has no Nesterov momentum")
        step = ops.cast(learning_rate, variable.dtype) * gradient
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            momentum = ops.convert_to_tensor(self.momentum, variable.dtype)
            step = step - momentum * velocity
            self.assign(velocity, -step)
        self.assign_sub(variable, step)


def create_optimizer(name: str, learning_rate: float) -> keras.optimizers.Optimizer:
    """Returns an optimizer by its name in a recipe."""
    constants = OPTIMIZERS[name]
    if name == "adam":
        return Adam(learning_rate, **constants)
    return SGD(learning_rate, **constants)


def set_learning_rate(
    optimizer: keras.optimizers.Optimizer, learning_rate: float
) -> None:
    """Makes the next steps with a learning rate."""
    optimizer.learning_rate = learning_rate
