"""The initialisers of the papers; Keras draws cut-off normals and miscounts some fans.

A normal distribution is not cut off unless `truncated`, which cuts it at two standard
deviations and widens it to the deviation asked for, as Keras's own always are.

The fans are what one output is made from and what one input goes into, strides aside.
An initialiser sees the kernel's shape only, and Keras reads each as (h, w, in, out), so
that these need to be said: a kernel (h, w, in / groups, out) of a convolution in
`groups`, where Keras's fan_out is `groups` times too large; (h, w, in, multiplier) of a
"depthwise" one, where its fan_in is `in` times too large; and (h, w, out, in) of a
"transposed" one, where it exchanges the two.
"""

import math

import keras

from parity.spec.errors import UsageError, unknown

KINDS = ("convolution", "depthwise", "transposed")

# The deviation of the normal distribution that is cut off at -2 and 2.
TRUNCATED_DEVIATION = 0.87962566103423978


@keras.saving.register_keras_serializable("cnn_parity")
class VarianceScaling(keras.initializers.VarianceScaling):
    """Draws from a distribution whose variance is `scale` / fan.

    Keras's own does not know what the kernel is of.

    Args:
        scale: the variance times the fan.
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "uniform", "truncated_normal" or "untruncated_normal".
        kind: what the kernel is of: "convolution" (dense layers too), "depthwise" or
            "transposed".
        groups: of the convolution.
        seed: Keras's.
    """

    def __init__(
        self, scale, mode, distribution, kind="convolution", groups=1, seed=None
    ):
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise unknown("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        if kind not in KINDS:
            raise unknown("kind of kernel", kind, KINDS)
        super().__init__(scale, mode, distribution, seed)
        self.kind, self.groups = kind, groups

    def __call__(self, shape, dtype=None):
        """Returns a kernel of a shape."""
        area = math.prod(shape[:-2])
        fan_in, fan_out = (area * count for count in self._channels(*shape[-2:]))
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        deviation = math.sqrt(self.scale / fans[self.mode])
        settings = {"dtype": dtype, "seed": self.seed}
        if self.distribution == "uniform":
            limit = math.sqrt(3 * self.scale / fans[self.mode])
            return keras.random.uniform(shape, -limit, limit, **settings)
        if self.distribution == "truncated_normal":
            deviation /= TRUNCATED_DEVIATION
            return keras.random.truncated_normal(shape, 0.0, deviation, **settings)
        return keras.random.normal(shape, 0.0, deviation, **settings)

    def _channels(self, first: int, last: int) -> tuple[int, int]:
        """Returns the inputs of an output and the outputs of an input, per pixel."""
        if self.kind == "transposed":
            return last, first
        if self.kind == "depthwise":
            return 1, last
        if last % self.groups:
            raise UsageError(f"{last} filters do not divide into {self.groups} groups")
        return first, last // self.groups

    def get_config(self):
        """Returns the arguments of the class."""
        config = super().get_config()
        return {
            **{name: config[name] for name in ("scale", "mode", "distribution")},
            "kind": self.kind,
            "groups": self.groups,
            "seed": config["seed"],
        }


def _normal(truncated: bool) -> str:
    return "truncated_normal" if truncated else "untruncated_normal"


def glorot_uniform(**kernel) -> keras.Initializer:
    """Returns Glorot & Bengio's initialiser: uniform within sqrt(6 / (in + out)).

    Keras's default for kernels; biases start from 0.
    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", AISTATS 2010, equation 16.

    Args:
        kernel: `kind` and `groups`, for all functions here.
    """
    return VarianceScaling(1.0, "fan_avg", "uniform", **kernel)


def glorot_normal(*, truncated: bool = False, **kernel) -> keras.Initializer:
    """Returns Glorot & Bengio's initialiser: normal, of variance 2 / (in + out)."""
    return VarianceScaling(1.0, "fan_avg", _normal(truncated), **kernel)


def he_uniform(mode: str = "fan_in", **kernel) -> keras.Initializer:
    """Returns He et al.'s initialiser: uniform within sqrt(6 / fan)."""
    return VarianceScaling(2.0, mode, "uniform", **kernel)


def he_normal(
    mode: str = "fan_in", *, truncated: bool = False, **kernel
) -> keras.Initializer:
    """Returns He et al.'s initialiser: normal, of variance 2 / fan.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015, arXiv:1502.01852,
    equations 10 and 14.
    """
    return VarianceScaling(2.0, mode, _normal(truncated), **kernel)


def lecun_uniform(**kernel) -> keras.Initializer:
    """Returns LeCun et al.'s initialiser: uniform within sqrt(3 / in)."""
    return VarianceScaling(1.0, "fan_in", "uniform", **kernel)


def lecun_normal(*, truncated: bool = False, **kernel) -> keras.Initializer:
    """Returns LeCun et al.'s initialiser: normal, of variance 1 / in.

    Source: LeCun et al., "Efficient BackProp", 1998, equation 16.
    """
    return VarianceScaling(1.0, "fan_in", _normal(truncated), **kernel)
