"""Which library calls an operation stands for, and what they are told by default.

Importing this loads no framework; the signatures are read from the installed ones.
"""

import ast
import enum
import inspect
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_Parameter = inspect.Parameter
_REST = _Parameter.VAR_KEYWORD

F = "torch.nn.functional"
SCHEDULES, SCHEDULERS = "keras.optimizers.schedules", "torch.optim.lr_scheduler"
V2 = "torchvision.transforms.v2"

# By the operation's name in `*_impl.ops`, `*_impl.optim` or `*_impl.initializers`:
# the calls of Keras or TensorFlow and those of PyTorch or torchvision.
CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conv2d": (
        ("keras.layers.Conv2D", "keras.ops.conv", "tf.nn.conv2d"),
        ("torch.nn.Conv2d", f"{F}.conv2d"),
    ),
    "conv2d_1x1": (
        ("keras.layers.Conv2D", "keras.ops.conv", "tf.nn.conv2d"),
        ("torch.nn.Conv2d", f"{F}.conv2d"),
    ),
    "conv2d_as_dense": (
        ("keras.layers.Dense", "tf.image.extract_patches"),
        ("torch.nn.Linear", f"{F}.unfold"),
    ),
    "conv2d_transpose": (
        (
            "keras.layers.Conv2DTranspose",
            "keras.ops.conv_transpose",
            "tf.nn.conv2d_transpose",
        ),
        ("torch.nn.ConvTranspose2d", f"{F}.conv_transpose2d"),
    ),
    "convolve2d": (("tf.nn.conv2d",), (f"{F}.conv2d",)),
    "depthwise_conv2d": (
        ("keras.layers.DepthwiseConv2D", "tf.nn.depthwise_conv2d"),
        ("torch.nn.Conv2d", f"{F}.conv2d"),
    ),
    "output_size": (("keras.layers.Conv2D",), ("torch.nn.Conv2d",)),
    "separable_conv2d": (
        ("keras.layers.SeparableConv2D", "tf.nn.separable_conv2d"),
        ("torch.nn.Conv2d", f"{F}.conv2d"),
    ),
    "unfold": (
        ("keras.ops.image.extract_patches", "tf.image.extract_patches"),
        ("torch.nn.Unfold", f"{F}.unfold"),
    ),
    "max_pool2d": (
        ("keras.layers.MaxPooling2D", "keras.ops.max_pool", "tf.nn.max_pool2d"),
        ("torch.nn.MaxPool2d", f"{F}.max_pool2d"),
    ),
    "avg_pool2d": (
        ("keras.layers.AveragePooling2D", "keras.ops.average_pool", "tf.nn.avg_pool2d"),
        ("torch.nn.AvgPool2d", f"{F}.avg_pool2d"),
    ),
    "adaptive_avg_pool2d": (
        ("keras.layers.AdaptiveAveragePooling2D",),
        ("torch.nn.AdaptiveAvgPool2d", f"{F}.adaptive_avg_pool2d"),
    ),
    "adaptive_max_pool2d": (
        ("keras.layers.AdaptiveMaxPooling2D",),
        ("torch.nn.AdaptiveMaxPool2d", f"{F}.adaptive_max_pool2d"),
    ),
    "global_avg_pool2d": (
        ("keras.layers.GlobalAveragePooling2D", "tf.reduce_mean"),
        ("torch.nn.AdaptiveAvgPool2d", "torch.mean"),
    ),
    "global_max_pool2d": (
        ("keras.layers.GlobalMaxPooling2D", "tf.reduce_max"),
        ("torch.nn.AdaptiveMaxPool2d", "torch.amax"),
    ),
    "batch_norm": (
        (
            "keras.layers.BatchNormalization",
            "keras.ops.batch_normalization",
            "tf.nn.batch_normalization",
        ),
        ("torch.nn.BatchNorm2d", f"{F}.batch_norm"),
    ),
    "batch_norm_training": (
        ("keras.layers.BatchNormalization", "tf.nn.moments"),
        ("torch.nn.BatchNorm2d", f"{F}.batch_norm"),
    ),
    "layer_norm": (
        ("keras.layers.LayerNormalization", "keras.ops.layer_normalization"),
        ("torch.nn.LayerNorm", f"{F}.layer_norm"),
    ),
    "group_norm": (
        ("keras.layers.GroupNormalization",),
        ("torch.nn.GroupNorm", f"{F}.group_norm"),
    ),
    "local_response_norm": (
        ("tf.nn.local_response_normalization",),
        ("torch.nn.LocalResponseNorm", f"{F}.local_response_norm"),
    ),
    "relu": (
        ("keras.layers.ReLU", "keras.activations.relu", "tf.nn.relu"),
        ("torch.nn.ReLU", f"{F}.relu"),
    ),
    "relu6": (
        ("keras.activations.relu6", "tf.nn.relu6"),
        ("torch.nn.ReLU6", f"{F}.relu6"),
    ),
    "leaky_relu": (
        (
            "keras.layers.LeakyReLU",
            "keras.activations.leaky_relu",
            "keras.ops.leaky_relu",
            "tf.nn.leaky_relu",
        ),
        ("torch.nn.LeakyReLU", f"{F}.leaky_relu"),
    ),
    "prelu": (("keras.layers.PReLU",), ("torch.nn.PReLU", f"{F}.prelu")),
    "elu": (
        ("keras.layers.ELU", "keras.activations.elu", "tf.nn.elu"),
        ("torch.nn.ELU", f"{F}.elu"),
    ),
    "selu": (
        ("keras.activations.selu", "tf.nn.selu"),
        ("torch.nn.SELU", f"{F}.selu"),
    ),
    "celu": (
        ("keras.activations.celu", "keras.ops.celu"),
        ("torch.nn.CELU", f"{F}.celu"),
    ),
    "gelu": (
        ("keras.activations.gelu", "keras.ops.gelu", "tf.nn.gelu"),
        ("torch.nn.GELU", f"{F}.gelu"),
    ),
    "silu": (
        ("keras.activations.silu", "tf.nn.silu"),
        ("torch.nn.SiLU", f"{F}.silu"),
    ),
    "mish": (
        ("keras.activations.mish",),
        ("torch.nn.Mish", f"{F}.mish"),
    ),
    "hard_sigmoid": (
        ("keras.activations.hard_sigmoid", "keras.ops.hard_sigmoid"),
        ("torch.nn.Hardsigmoid", f"{F}.hardsigmoid"),
    ),
    "hard_swish": (
        ("keras.activations.hard_swish", "keras.ops.hard_swish"),
        ("torch.nn.Hardswish", f"{F}.hardswish"),
    ),
    "sigmoid": (
        ("keras.activations.sigmoid", "tf.nn.sigmoid"),
        ("torch.nn.Sigmoid", "torch.sigmoid"),
    ),
    "tanh": (("keras.activations.tanh", "tf.nn.tanh"), ("torch.nn.Tanh", "torch.tanh")),
    "softplus": (
        ("keras.activations.softplus", "tf.nn.softplus"),
        ("torch.nn.Softplus", f"{F}.softplus"),
    ),
    "softsign": (
        ("keras.activations.softsign", "tf.nn.softsign"),
        ("torch.nn.Softsign", f"{F}.softsign"),
    ),
    "softmax": (
        ("keras.layers.Softmax", "keras.activations.softmax", "tf.nn.softmax"),
        ("torch.nn.Softmax", f"{F}.softmax"),
    ),
    "log_softmax": (
        ("keras.activations.log_softmax", "tf.nn.log_softmax"),
        ("torch.nn.LogSoftmax", f"{F}.log_softmax"),
    ),
    "dropout": (
        ("keras.layers.Dropout", "tf.nn.dropout"),
        ("torch.nn.Dropout", f"{F}.dropout"),
    ),
    "flatten": (("keras.layers.Flatten",), ("torch.nn.Flatten", "torch.flatten")),
    "dense": (
        ("keras.layers.Dense", "tf.matmul"),
        ("torch.nn.Linear", f"{F}.linear"),
    ),
    "resize": (
        (
            "keras.layers.Resizing",
            "keras.layers.UpSampling2D",
            "keras.ops.image.resize",
            "tf.image.resize",
        ),
        ("torch.nn.Upsample", f"{F}.interpolate", f"{V2}.functional.resize"),
    ),
    "pad": (
        ("keras.layers.ZeroPadding2D", "keras.ops.pad", "tf.pad"),
        ("torch.nn.ZeroPad2d", f"{F}.pad"),
    ),
    "pixel_shuffle": (
        ("tf.nn.depth_to_space",),
        ("torch.nn.PixelShuffle", f"{F}.pixel_shuffle"),
    ),
    "pixel_unshuffle": (
        ("tf.nn.space_to_depth",),
        ("torch.nn.PixelUnshuffle", f"{F}.pixel_unshuffle"),
    ),
    "crop": (
        (
            "keras.layers.Cropping2D",
            "keras.ops.image.crop_images",
            "tf.image.crop_to_bounding_box",
        ),
        (f"{V2}.functional.crop",),
    ),
    "center_crop": (
        ("keras.layers.CenterCrop", "tf.image.central_crop"),
        (f"{V2}.CenterCrop", f"{V2}.functional.center_crop"),
    ),
    "one_hot": (("keras.ops.one_hot", "tf.one_hot"), (f"{F}.one_hot",)),
    "top_k": (("keras.ops.top_k", "tf.math.top_k"), ("torch.topk",)),
    "cross_entropy": (
        (
            "keras.losses.CategoricalCrossentropy",
            "keras.losses.SparseCategoricalCrossentropy",
            "tf.nn.softmax_cross_entropy_with_logits",
        ),
        ("torch.nn.CrossEntropyLoss", "torch.nn.NLLLoss", f"{F}.cross_entropy"),
    ),
    "binary_cross_entropy": (
        (
            "keras.losses.BinaryCrossentropy",
            "tf.nn.sigmoid_cross_entropy_with_logits",
        ),
        (
            "torch.nn.BCEWithLogitsLoss",
            "torch.nn.BCELoss",
            f"{F}.binary_cross_entropy_with_logits",
        ),
    ),
    "mean_squared_error": (
        ("keras.losses.MeanSquaredError",),
        ("torch.nn.MSELoss", f"{F}.mse_loss"),
    ),
    "huber": (
        ("keras.losses.Huber",),
        ("torch.nn.HuberLoss", "torch.nn.SmoothL1Loss", f"{F}.huber_loss"),
    ),
    "kl_divergence": (
        ("keras.losses.KLDivergence",),
        ("torch.nn.KLDivLoss", f"{F}.kl_div"),
    ),
    "accuracy": (
        (
            "keras.metrics.Accuracy",
            "keras.metrics.CategoricalAccuracy",
            "keras.metrics.SparseCategoricalAccuracy",
        ),
        ("torch.argmax",),
    ),
    "top_k_accuracy": (
        (
            "keras.metrics.TopKCategoricalAccuracy",
            "keras.metrics.SparseTopKCategoricalAccuracy",
            "tf.math.in_top_k",
        ),
        ("torch.topk",),
    ),
    "sgd": (("keras.optimizers.SGD",), ("torch.optim.SGD",)),
    "momentum": (("keras.optimizers.SGD",), ("torch.optim.SGD",)),
    "nesterov": (("keras.optimizers.SGD",), ("torch.optim.SGD",)),
    "adam": (("keras.optimizers.Adam",), ("torch.optim.Adam",)),
    "adamw": (("keras.optimizers.AdamW",), ("torch.optim.AdamW",)),
    "rmsprop": (("keras.optimizers.RMSprop",), ("torch.optim.RMSprop",)),
    "adagrad": (("keras.optimizers.Adagrad",), ("torch.optim.Adagrad",)),
    "clip_by_value": (("tf.clip_by_value",), ("torch.nn.utils.clip_grad_value_",)),
    "clip_by_norm": (("tf.clip_by_norm",), ("torch.nn.utils.clip_grad_norm_",)),
    "clip_by_global_norm": (
        ("tf.clip_by_global_norm",),
        ("torch.nn.utils.clip_grad_norm_",),
    ),
    "step_decay": (
        (f"{SCHEDULES}.PiecewiseConstantDecay", f"{SCHEDULES}.ExponentialDecay"),
        (f"{SCHEDULERS}.StepLR", f"{SCHEDULERS}.MultiStepLR"),
    ),
    "exponential_decay": (
        (f"{SCHEDULES}.ExponentialDecay",),
        (f"{SCHEDULERS}.ExponentialLR",),
    ),
    "cosine_decay": (
        (f"{SCHEDULES}.CosineDecay",),
        (f"{SCHEDULERS}.CosineAnnealingLR",),
    ),
    "warm_up": ((f"{SCHEDULES}.CosineDecay",), (f"{SCHEDULERS}.LinearLR",)),
    "plateau": (
        ("keras.callbacks.ReduceLROnPlateau",),
        (f"{SCHEDULERS}.ReduceLROnPlateau",),
    ),
    "glorot_uniform": (
        ("keras.initializers.GlorotUniform",),
        ("torch.nn.init.xavier_uniform_",),
    ),
    "glorot_normal": (
        ("keras.initializers.GlorotNormal",),
        ("torch.nn.init.xavier_normal_", "torch.nn.init.trunc_normal_"),
    ),
    "he_uniform": (
        ("keras.initializers.HeUniform",),
        ("torch.nn.init.kaiming_uniform_",),
    ),
    "he_normal": (
        ("keras.initializers.HeNormal",),
        ("torch.nn.init.kaiming_normal_", "torch.nn.init.trunc_normal_"),
    ),
    "lecun_uniform": (
        ("keras.initializers.LecunUniform",),
        ("torch.nn.init.kaiming_uniform_",),
    ),
    "lecun_normal": (
        ("keras.initializers.LecunNormal",),
        ("torch.nn.init.kaiming_normal_", "torch.nn.init.trunc_normal_"),
    ),
}

# Parameters with another name for the same thing, and values for the same one.
PARTNERS = {
    "strides": "stride",
    "dilation_rate": "dilation",
    "dilations": "dilation",
    "pool_size": "kernel_size",
    "use_bias": "bias",
    "epsilon": "eps",
    "rate": "p",
    "interpolation": "mode",
    "method": "mode",
    "constant_values": "value",
    "learning_rate": "lr",
    "rho": "alpha",
    "min_delta": "threshold",
    "keepdims": "keepdim",
    "alpha_initializer": "init",
    "ignore_class": "ignore_index",
}
VALUES = {
    "valid": 0,
    "zeros": 0,
    "none": False,
    "auto": "min",
    "tanh": True,
    "sum_over_batch_size": "mean",
}
ALPHA_IS_THE_SLOPE = "tf.nn.leaky_relu"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a call.

    Attributes:
        text: as a signature has it, "padding='valid'".
        defaults: what it sets, by the name and in the form that both sides share.
        differs: whether the other side's calls have another default for it.
    """

    text: str
    defaults: tuple[tuple[str, object], ...] = ()
    differs: bool = False


@dataclass(frozen=True)
class Call:
    """A call of a library.

    Attributes:
        name: dotted, as people write it.
        parameters: in order.
        line: what stands in their place where the library tells of none.
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    line: str = ""

    def __str__(self) -> str:
        """Returns the call with its parameters and their defaults."""
        listed = ", ".join(parameter.text for parameter in self.parameters)
        return self.line or f"{self.name}({listed})"


def calls(operation: str) -> tuple[list[Call], list[Call]]:
    """Returns an operation's calls of both sides, with the defaults of the installed.

    Args:
        operation: a name of CALLS.
    """
    import parity.frameworks  # noqa: F401, in the order that works

    ours, theirs = ([_call(name) for name in side] for side in CALLS[operation])
    return _mark(ours, theirs), _mark(theirs, ours)


def _call(name: str) -> Call:
    function = pkgutil.resolve_name(name.replace("tf.", "tensorflow.", 1))
    line = ((inspect.getdoc(function) or "").strip() or name).splitlines()[0]
    try:
        listed = list(inspect.signature(function).parameters.values())
    except ValueError:  # a builtin
        listed = None
    if not listed or {x.kind for x in listed} <= {_Parameter.VAR_POSITIONAL, _REST}:
        listed = _documented(line) or listed
    if listed is None:
        return Call(name, line=line)
    parameters = []
    for parameter in listed:
        starred = {_Parameter.VAR_POSITIONAL, _Parameter.KEYWORD_ONLY}
        if parameter.kind == _Parameter.KEYWORD_ONLY and not (
            starred & {x.kind for x in listed[: listed.index(parameter)]}
        ):
            parameters.append(Parameter("*"))
        if not parameter.name.startswith("_"):
            parameter = parameter.replace(annotation=_Parameter.empty)
            text = re.sub(r"<([\w.]+): .*>", r"\1", str(parameter))  # an enumeration's
            parameters.append(Parameter(text, _defaults(name, parameter)))
    return Call(name, tuple(parameters))


def _documented(line: str) -> list[inspect.Parameter] | None:
    """Returns the parameters of "conv2d(input, weight, bias=None) -> Tensor"."""
    match = re.fullmatch(r"\w+\((.*)\)( *->.*)?", line)
    try:
        arguments = ast.parse(f"lambda {match[1]}: 0").body[0].value.args
        missing = len(arguments.args) - len(arguments.defaults)
        defaults = [None] * missing + arguments.defaults
        kinds = [_Parameter.POSITIONAL_OR_KEYWORD] * len(defaults)
        kinds += [_Parameter.KEYWORD_ONLY] * len(arguments.kwonlyargs)
        defaults += arguments.kw_defaults
        names = [x.arg for x in arguments.args + arguments.kwonlyargs]
        return [
            _Parameter(name, kind, default=_value(default))
            for name, kind, default in zip(names, kinds, defaults, strict=True)
        ]
    except (TypeError, SyntaxError, ValueError):  # no match, or nothing of the kind
        return None


def _value(default: ast.expr | None) -> object:
    return _Parameter.empty if default is None else ast.literal_eval(default)


def _defaults(name: str, parameter: inspect.Parameter) -> tuple:
    key, value = parameter.name, parameter.default
    if value is _Parameter.empty or value is None:  # None leaves it to the function
        return ()
    if key == "betas":
        return tuple(zip(("beta_1", "beta_2"), value, strict=True))
    if name == ALPHA_IS_THE_SLOPE and key == "alpha":
        key = "negative_slope"
    value = value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, str):
        value = VALUES.get(value.lower(), value.lower())
    return ((PARTNERS.get(key, key), value),)


def _mark(side: Iterable[Call], other: Iterable[Call]) -> list[Call]:
    there: dict[str, list] = {}
    for call in other:
        for parameter in call.parameters:
            for key, value in parameter.defaults:
                there.setdefault(key, []).append(value)

    def marked(parameter: Parameter) -> Parameter:
        differs = any(
            key in there and value not in there[key]
            for key, value in parameter.defaults
        )
        return replace(parameter, differs=differs)

    return [replace(x, parameters=tuple(map(marked, x.parameters))) for x in side]
