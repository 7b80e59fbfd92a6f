"""Activations and dropout."""

from parity.rows.record import Input, Row, array, given, maps

MAPS = {"images": maps(2, 6, 5, 3, scale=3.0)}
BORDERS = {"features": given([-3.0, 0.0, 3.0, 6.0, 9.0])}

ROWS: tuple[Row, ...] = (
    Row(
        "activations.relu",
        "ReLU; layers.ReLU and nn.ReLU",
        "activations",
        "same",
        keras="keras.activations.relu(images)",
        torch="F.relu(images)",
        operations=("relu",),
        inputs=MAPS,
    ),
    Row(
        "activations.relu_inplace",
        "ReLU beside a shortcut that has the same input",
        "activations",
        "other meaning",
        keras="images + keras.activations.relu(images)",
        torch="images + nn.ReLU()(images)",
        naive_torch="""\
outputs = nn.ReLU(inplace=True)(images)
images + outputs""",
        symptom="the shortcut has lost its negative values, and a hook's capture too",
        fix="inplace=False wherever something else reads the input",
        operations=("relu",),
        inputs=MAPS,
    ),
    Row(
        "activations.relu_gradient",
        "the gradient of ReLU at 0",
        "activations",
        "same",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.activations.relu(features)
tape.gradient(outputs, features)""",
        torch="""\
outputs = F.relu(features.requires_grad_())
torch.autograd.grad(outputs.sum(), features)""",
        operations=("relu",),
        inputs=BORDERS,
        note="It is 0 on both sides.",
    ),
    Row(
        "activations.relu_by_maximum",
        "the gradient at 0 of a ReLU that is written as a maximum in Keras",
        "activations",
        "other meaning",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.activations.relu(features)
tape.gradient(outputs, features)""",
        torch="""\
outputs = F.relu(features.requires_grad_())
torch.autograd.grad(outputs.sum(), features)""",
        naive_keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.ops.maximum(features, 0.0)
tape.gradient(outputs, features)""",
        symptom="a gradient of 1 at 0, where padding and earlier ReLUs put many values",
        fix="relu, whose gradient at 0 is 0",
        operations=("relu",),
        inputs=BORDERS,
    ),
    Row(
        "activations.relu_by_maximum_torch",
        "the gradient at 0 of a ReLU that is written as a maximum in PyTorch",
        "activations",
        "other meaning",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.activations.relu(features)
tape.gradient(outputs, features)""",
        torch="""\
outputs = F.relu(features.requires_grad_())
torch.autograd.grad(outputs.sum(), features)""",
        naive_torch="""\
outputs = torch.maximum(features.requires_grad_(), torch.zeros(()))
torch.autograd.grad(outputs.sum(), features)""",
        symptom="a gradient of a half at 0: PyTorch shares it between equals",
        fix="relu, whose gradient at 0 is 0",
        operations=("relu",),
        inputs=BORDERS,
    ),
    Row(
        "activations.relu6",
        "ReLU up to 6; layers.ReLU(max_value=6) and nn.ReLU6",
        "activations",
        "other name",
        keras="layers.ReLU(max_value=6)(images)",
        torch="F.relu6(images)",
        operations=("relu6",),
        inputs=MAPS,
    ),
    Row(
        "activations.relu6_by_clip",
        "the gradient at 0 and 6 of a ReLU6 that is written as a clip in Keras",
        "activations",
        "other meaning",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.activations.relu6(features)
tape.gradient(outputs, features)""",
        torch="""\
outputs = F.relu6(features.requires_grad_())
torch.autograd.grad(outputs.sum(), features)""",
        naive_keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.ops.clip(features, 0.0, 6.0)
tape.gradient(outputs, features)""",
        symptom="a gradient of 1 at both borders",
        fix="relu6, whose gradient there is 0",
        operations=("relu6",),
        inputs=BORDERS,
    ),
    Row(
        "activations.leaky_relu_layer",
        "the slope of the leaky ReLU layer",
        "activations",
        "other default",
        keras="layers.LeakyReLU()(images)",
        torch="nn.LeakyReLU(0.3)(images)",
        naive_torch="nn.LeakyReLU()(images)",
        symptom="the negative side thirty times smaller",
        fix="give the slope: 0.3 in the Keras layer, 0.01 in PyTorch",
        operations=("leaky_relu",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "activations.leaky_relu_function",
        "the slope of the leaky ReLU function, which isn't that of Keras's layer",
        "activations",
        "other default",
        keras="keras.activations.leaky_relu(images)",
        torch="F.leaky_relu(images, 0.2)",
        naive_torch="F.leaky_relu(images)",
        symptom="the negative side twenty times smaller",
        fix="give the slope: 0.2 in keras.activations, keras.ops and tf.nn, 0.01 in F",
        operations=("leaky_relu",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "activations.leaky_relu_float64",
        "leaky ReLU in float64",
        "activations",
        "other meaning",
        keras="keras.ops.maximum(images, 0.3 * images)",
        torch="F.leaky_relu(images, 0.3)",
        naive_keras="layers.LeakyReLU(negative_slope=0.3)(images)",
        symptom="more than rounding: TensorFlow keeps the slope in float32",
        fix="the larger of x and slope * x",
        operations=("leaky_relu",),
        inputs=MAPS,
        trap_dtypes=("float64",),
    ),
    Row(
        "activations.prelu",
        "ReLU with a learned slope per channel",
        "activations",
        "other default",
        keras="""\
quarter = keras.initializers.Constant(0.25)
layers.PReLU(quarter, shared_axes=[1, 2])(images)""",
        torch="nn.PReLU(3)(images)",
        naive_keras="layers.PReLU()(images)",
        symptom="a slope per pixel, and all of them 0 at first",
        fix="shared_axes=[1, 2], and 0.25 as the initial value",
        operations=("prelu",),
        inputs=MAPS,
    ),
    Row(
        "activations.prelu_parameters",
        "the slopes that the layer learns",
        "activations",
        "other default",
        keras="""\
prelu = layers.PReLU(keras.initializers.Constant(0.25), shared_axes=[1, 2, 3])
prelu.build((None, 6, 5, 3))
keras.ops.ravel(prelu.alpha)""",
        torch="nn.PReLU().weight",
        naive_keras="""\
prelu = layers.PReLU(keras.initializers.Constant(0.25))
prelu.build((None, 6, 5, 3))
keras.ops.ravel(prelu.alpha)""",
        symptom="a model that is tied to one size of image",
        fix="shared_axes=[1, 2, 3] for PyTorch's default, one slope for all",
        operations=("prelu",),
        shows="shape",
    ),
    Row(
        "activations.prelu_gradient",
        "the gradient at 0 of a ReLU with a learned slope",
        "activations",
        "other meaning",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = tf.where(features > 0, features, 0.25 * features)
tape.gradient(outputs, features)""",
        torch="""\
outputs = nn.PReLU()(features.requires_grad_())
torch.autograd.grad(outputs.sum(), features)""",
        naive_keras="""\
prelu = layers.PReLU(keras.initializers.Constant(0.25))
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = prelu(features[None])
tape.gradient(outputs, features)""",
        symptom="a gradient of 0 at 0, where PyTorch's is the slope",
        fix="choose between x and slope * x; Keras's layer subtracts two ReLUs",
        operations=("prelu",),
        inputs=BORDERS,
    ),
    Row(
        "activations.elu",
        "ELU; layers.ELU and nn.ELU",
        "activations",
        "same",
        keras="keras.activations.elu(images)",
        torch="F.elu(images)",
        operations=("elu",),
        inputs=MAPS,
    ),
    Row(
        "activations.selu",
        "SELU; Activation('selu') and nn.SELU",
        "activations",
        "same",
        keras="keras.activations.selu(images)",
        torch="F.selu(images)",
        operations=("selu",),
        inputs=MAPS,
    ),
    Row(
        "activations.selu_gradient",
        "the gradient of SELU at 0",
        "activations",
        "other meaning",
        keras="""\
alpha, scale = 1.6732632423543772, 1.0507009873554805
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = scale * keras.activations.elu(features, alpha)
tape.gradient(outputs, features)""",
        torch="""\
outputs = F.selu(features.requires_grad_())
torch.autograd.grad(outputs.sum(), features)""",
        naive_keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.activations.selu(features)
tape.gradient(outputs, features)""",
        symptom="a gradient of scale at 0, where PyTorch's is alpha * scale",
        fix="ELU with that alpha, times the scale",
        operations=("selu",),
        inputs=BORDERS,
    ),
    Row(
        "activations.celu",
        "CELU; Activation('celu') and nn.CELU",
        "activations",
        "same",
        keras="keras.activations.celu(images, alpha=1.5)",
        torch="F.celu(images, 1.5)",
        operations=("celu",),
        inputs=MAPS,
    ),
    Row(
        "activations.celu_gradient",
        "the gradient of CELU at 0",
        "activations",
        "other meaning",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    below = 1.5 * tf.math.expm1(tf.minimum(features, 0) / 1.5)
    outputs = tf.where(features > 0, features, below)
tape.gradient(outputs, features)""",
        torch="""\
outputs = F.celu(features.requires_grad_(), 1.5)
torch.autograd.grad(outputs.sum(), features)""",
        naive_keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.activations.celu(features, 1.5)
tape.gradient(outputs, features)""",
        symptom="a gradient of 2 at 0: on TensorFlow it adds a maximum and a minimum",
        fix="choose between the two sides; with alpha=1, elu is the same function",
        operations=("celu",),
        inputs=BORDERS,
    ),
    Row(
        "activations.gelu_function",
        "GELU as a function of keras.ops",
        "activations",
        "other default",
        keras="keras.ops.gelu(images)",
        torch="F.gelu(images, approximate='tanh')",
        naive_torch="F.gelu(images)",
        symptom="a small error in every layer that no test of shapes sees",
        fix="approximate='tanh', or approximate=False in Keras",
        operations=("gelu",),
        inputs=MAPS,
        dtypes=("float32",),
    ),
    Row(
        "activations.gelu",
        "GELU by name, Activation('gelu') and nn.GELU",
        "activations",
        "same",
        keras="layers.Activation('gelu')(images)",
        torch="nn.GELU()(images)",
        operations=("gelu",),
        inputs=MAPS,
        dtypes=("float32",),
        note="Exact on both sides: keras.ops.gelu, which isn't, has the other default.",
    ),
    Row(
        "activations.gelu_float64",
        "GELU in float64",
        "activations",
        "other meaning",
        keras="0.5 * images * tf.math.erfc(images * -(0.5**0.5))",
        torch="F.gelu(images)",
        naive_keras="keras.activations.gelu(images)",
        symptom="more than rounding: TensorFlow keeps the root of a half in float32",
        fix="the definition, written out",
        operations=("gelu",),
        inputs=MAPS,
        trap_dtypes=("float64",),
    ),
    Row(
        "activations.silu",
        "SiLU or swish; Activation('silu') and nn.SiLU",
        "activations",
        "same",
        keras="keras.activations.silu(images)",
        torch="F.silu(images)",
        operations=("silu",),
        inputs=MAPS,
    ),
    Row(
        "activations.mish",
        "Mish; Activation('mish') and nn.Mish",
        "activations",
        "same",
        keras="keras.activations.mish(images)",
        torch="F.mish(images)",
        operations=("mish",),
        inputs=MAPS,
    ),
    Row(
        "activations.hard_sigmoid",
        "hard sigmoid; Activation('hard_sigmoid') and nn.Hardsigmoid",
        "activations",
        "other name",
        keras="keras.activations.hard_sigmoid(images)",
        torch="F.hardsigmoid(images)",
        naive_torch="torch.clamp(0.2 * images + 0.5, 0, 1)",
        symptom="another slope: the formula is that of Keras 2",
        fix="hardsigmoid: Keras 3 has relu6(x + 3) / 6 as PyTorch has",
        operations=("hard_sigmoid",),
        inputs=MAPS,
    ),
    Row(
        "activations.hard_swish",
        "hard swish; Activation('hard_swish') or 'hard_silu' and nn.Hardswish",
        "activations",
        "other name",
        keras="keras.activations.hard_silu(images)",
        torch="F.hardswish(images)",
        operations=("hard_swish",),
        inputs=MAPS,
    ),
    Row(
        "activations.hard_tanh",
        "hard hyperbolic tangent; Activation('hard_tanh') and nn.Hardtanh",
        "activations",
        "other name",
        keras="keras.activations.hard_tanh(images)",
        torch="F.hardtanh(images)",
        inputs=MAPS,
    ),
    Row(
        "activations.sigmoid",
        "logistic sigmoid; Activation('sigmoid') and nn.Sigmoid",
        "activations",
        "same",
        keras="keras.activations.sigmoid(images)",
        torch="torch.sigmoid(images)",
        operations=("sigmoid",),
        inputs=MAPS,
    ),
    Row(
        "activations.log_sigmoid",
        "its logarithm; Activation('log_sigmoid') and nn.LogSigmoid",
        "activations",
        "other name",
        keras="keras.activations.log_sigmoid(images)",
        torch="F.logsigmoid(images)",
        operations=("sigmoid",),
        inputs=MAPS,
    ),
    Row(
        "activations.tanh",
        "hyperbolic tangent; Activation('tanh') and nn.Tanh",
        "activations",
        "same",
        keras="keras.activations.tanh(images)",
        torch="torch.tanh(images)",
        operations=("tanh",),
        inputs=MAPS,
    ),
    Row(
        "activations.softsign",
        "softsign; Activation('softsign') and nn.Softsign",
        "activations",
        "same",
        keras="keras.activations.softsign(images)",
        torch="F.softsign(images)",
        operations=("softsign",),
        inputs=MAPS,
    ),
    Row(
        "activations.softplus",
        "softplus; Activation('softplus') and nn.Softplus",
        "activations",
        "same",
        keras="keras.activations.softplus(images)",
        torch="F.softplus(images)",
        operations=("softplus",),
        inputs=MAPS,
    ),
    Row(
        "activations.softplus_threshold",
        "the gradient of softplus above 20",
        "activations",
        "other default",
        keras="""\
with tf.GradientTape() as tape:
    tape.watch(features)
    outputs = keras.activations.softplus(features)
tape.gradient(outputs, features)""",
        torch="""\
outputs = F.softplus(features.requires_grad_(), threshold=1000)
torch.autograd.grad(outputs.sum(), features)""",
        naive_torch="""\
outputs = F.softplus(features.requires_grad_())
torch.autograd.grad(outputs.sum(), features)""",
        symptom="a step at 20 that only float64 can see",
        fix="a high threshold, above which PyTorch gives x itself; TensorFlow has none",
        operations=("softplus",),
        inputs={"features": array(40, values="uniform", shift=20.0)},
        trap_dtypes=("float64",),
    ),
    Row(
        "activations.shrink",
        "soft, hard and tanh shrinkage",
        "activations",
        "other name",
        keras="""\
soft = keras.activations.soft_shrink(images)
hard = keras.activations.hard_shrink(images)
soft, hard, keras.activations.tanh_shrink(images)""",
        torch="F.softshrink(images), F.hardshrink(images), F.tanhshrink(images)",
        inputs=MAPS,
    ),
    Row(
        "activations.threshold",
        "x above a threshold, a value elsewhere",
        "activations",
        "same",
        keras="keras.activations.threshold(images, 0.5, -1.0)",
        torch="F.threshold(images, 0.5, -1.0)",
        inputs=MAPS,
    ),
    Row(
        "activations.glu",
        "one half of the channels, weighted by the sigmoid of the other",
        "activations",
        "other layout",
        keras="keras.activations.glu(images)",
        torch="F.glu(images, dim=1)",
        naive_torch="F.glu(images)",
        symptom="half as wide an image in place of half the channels",
        fix="dim=1: the last axis is the default on both sides",
        inputs={"images": maps(2, 6, 8, 4)},
        shows="shape",
    ),
    Row(
        "activations.identity",
        "a layer that does nothing",
        "activations",
        "other name",
        keras="layers.Identity()(images)",
        torch="nn.Identity()(images)",
        inputs=MAPS,
        note="keras.activations.linear is the same as a function.",
    ),
    Row(
        "activations.softmax",
        "softmax over the channels of each pixel",
        "activations",
        "other layout",
        keras="keras.activations.softmax(images)",
        torch="F.softmax(images, dim=1)",
        naive_torch="F.softmax(images, dim=-1)",
        symptom="the columns of an image sum to 1, not the classes of a pixel",
        fix="dim=1",
        operations=("softmax",),
        inputs=MAPS,
    ),
    Row(
        "activations.softmax_implicit",
        "softmax of sequences, without an axis",
        "activations",
        "other default",
        keras="layers.Softmax()(sequences)",
        torch="nn.Softmax(dim=-1)(sequences)",
        naive_torch="nn.Softmax()(sequences)",
        symptom="sums to 1 over the batch: of three axes PyTorch guesses the first",
        fix="always give dim",
        operations=("softmax",),
        inputs={"sequences": array(4, 5, 6)},
    ),
    Row(
        "activations.log_softmax",
        "logarithm of softmax over the channels of each pixel",
        "activations",
        "other layout",
        keras="keras.activations.log_softmax(images)",
        torch="F.log_softmax(images, dim=1)",
        naive_torch="F.log_softmax(images, dim=-1)",
        symptom="a loss over the columns of an image",
        fix="dim=1",
        operations=("log_softmax",),
        inputs=MAPS,
    ),
    Row(
        "activations.dropout_mask",
        "dropout of the same values on both sides",
        "activations",
        "other meaning",
        keras="images * keras.ops.cast(draws >= 0.3, dtype) / 0.7",
        torch="images * (draws >= 0.3) / 0.7",
        naive_torch="""\
torch.manual_seed(0)
F.dropout(images, 0.3)""",
        symptom="other masks, whatever the seeds",
        fix="compare in inference, or give both sides one mask",
        operations=("dropout",),
        inputs={**MAPS, "draws": Input((2, 6, 5, 3), "maps", "uniform")},
    ),
    Row(
        "activations.dropout_scale",
        "what dropout multiplies the values by that it keeps",
        "activations",
        "same",
        keras="np.unique(layers.Dropout(0.3, seed=0)(ones, training=True))",
        torch="F.dropout(ones, 0.3).unique()",
        operations=("dropout",),
        inputs={"ones": given([[1.0] * 50] * 2)},
        note="The rate is the share that is dropped, and kept values are scaled up.",
    ),
    Row(
        "activations.dropout_mode",
        "a new dropout layer is called",
        "activations",
        "other default",
        keras="layers.Dropout(0.5)(images)",
        torch="nn.Dropout(0.5).eval()(images)",
        naive_torch="""\
torch.manual_seed(0)
nn.Dropout(0.5)(images)""",
        symptom="predictions that vary from call to call",
        fix="model.eval() first; Keras drops nothing unless training=True",
        operations=("dropout",),
        inputs=MAPS,
    ),
    Row(
        "activations.dropout_function",
        "dropout as a function, inside a model's forward",
        "activations",
        "other default",
        keras="layers.Dropout(0.5)(images, training=False)",
        torch="F.dropout(images, 0.5, training=False)",
        naive_torch="""\
torch.manual_seed(0)
F.dropout(images, 0.5)""",
        symptom="drops in evaluation too: eval() doesn't reach a function",
        fix="training=self.training",
        operations=("dropout",),
        inputs=MAPS,
        note="tf.nn.dropout is a function of that kind as well.",
    ),
    Row(
        "activations.spatial_dropout",
        "dropout of whole channels: which of them are of one value",
        "activations",
        "other name",
        keras="""\
drop = layers.SpatialDropout2D(0.5, seed=0)
outputs = drop(keras.ops.ones((8, 6, 5, 16)), training=True)
keras.ops.amax(outputs, (1, 2)) == keras.ops.amin(outputs, (1, 2))""",
        torch="""\
torch.manual_seed(0)
outputs = F.dropout2d(torch.ones(8, 16, 6, 5), 0.5)
outputs.amax((2, 3)) == outputs.amin((2, 3))""",
        naive_torch="""\
torch.manual_seed(0)
outputs = F.dropout(torch.ones(8, 16, 6, 5), 0.5)
outputs.amax((2, 3)) == outputs.amin((2, 3))""",
        symptom="single pixels are dropped, whose neighbours still tell their value",
        fix="nn.Dropout2d",
    ),
)
