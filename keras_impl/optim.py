"""The optimizers that Keras lacks or defines differently from the papers."""

import keras
import tensorflow as tf
from keras import ops

from parity.spec.recipes import OPTIMIZERS


class Adam(keras.optimizers.Adam):
    """Adam with epsilon outside the bias-corrected root, as in the paper.

    Keras adds epsilon before the correction, which makes it larger in early steps,
    and rounds 1 - beta^t to float32, which costs five digits at the first step.
    TensorFlow's own kernel makes the step in one pass over the memory; it adds its
    epsilon before the correction too, so that it is given a corrected one.
    Source: Kingma & Ba, "Adam", ICLR 2015, arXiv:1412.6980, algorithm 1 and section 2.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Makes one step on one variable, TensorFlow's."""
        if self.amsgrad:
            raise NotImplementedError("this Adam has no amsgrad")
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
            grad=ops.cast(gradient, dtype),
        )


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
