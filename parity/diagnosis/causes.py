"""Every cause that a diagnosis can name, with what to change on either side.

`docs/causes.md` has a section for each. The fixes are templates: `{keras}` and
`{torch}` stand for the differing parameter as it is written on that side (`momentum`
is 0.99 in Keras and 0.01 in PyTorch), or for a word that says what that side does
("relu", "NHWC", "decoupled"). None reads as "nothing": the side has no such step.
Paddings are written ((top, bottom), (left, right)).
"""

from dataclasses import dataclass

from parity.spec.errors import unknown


@dataclass(frozen=True)
class Cause:
    """One way in which two ports differ; says what differs, not which side is wrong.

    Attributes:
        id: the stable name, `<subject>.<what differs>`.
        title: the same in a few words.
        level: where it is first seen: "forward", "backward" (the loss and the
            gradients) or "training" (the step of the optimizer, the statistics).
        torch_fix: what to change in PyTorch so that it does as Keras does.
        keras_fix: what to change in Keras so that it does as PyTorch does.
    """

    id: str
    title: str
    level: str
    torch_fix: str
    keras_fix: str


CAUSES: dict[str, Cause] = {
    # The images.
    "input.scale": Cause(
        "input.scale",
        "scale of the images",
        "forward",
        "feed images scaled as in Keras: {keras} (now {torch})",
        "feed images scaled as in PyTorch: {torch} (now {keras})",
    ),
    "input.mean_std": Cause(
        "input.mean_std",
        "mean and deviation of the images",
        "forward",
        "normalise with mean and std {keras} (now {torch})",
        "normalise with mean and std {torch} (now {keras})",
    ),
    "input.channel_order": Cause(
        "input.channel_order",
        "order of the colours",
        "forward",
        "feed {keras} images (now {torch}): images.flip(1)",
        "feed {torch} images (now {keras}): images[..., ::-1]",
    ),
    "input.layout": Cause(
        "input.layout",
        "layout of the images",
        "forward",
        "permute axes, do not reshape: images.permute(0, 3, 1, 2) (now {torch})",
        "permute axes, do not reshape: transpose(images, (0, 2, 3, 1)) (now {keras})",
    ),
    "input.resize": Cause(
        "input.resize",
        "resizing of the images",
        "forward",
        "resize the images as Keras does: {keras} (now {torch})",
        "resize the images as PyTorch does: {torch} (now {keras})",
    ),
    "input.different": Cause(
        "input.different",
        "other images",
        "forward",
        "feed the images that Keras is fed",
        "feed the images that PyTorch is fed",
    ),
    # Convolutions.
    "conv.padding": Cause(
        "conv.padding",
        "padding of a convolution",
        "forward",
        "pad by {keras} (now {torch}): F.pad(x, (left, right, top, bottom)), padding=0",
        "pad by {torch} (now {keras}): ZeroPadding2D, then padding='valid'",
    ),
    "conv.stride": Cause(
        "conv.stride",
        "stride of a convolution",
        "forward",
        "set stride={keras} (now {torch})",
        "set strides={torch} (now {keras})",
    ),
    "conv.stride_placement": Cause(
        "conv.stride_placement",
        "which convolution of a block has the stride",
        "forward",
        "give the stride to {keras} (now to {torch})",
        "give the stride to {torch} (now to {keras})",
    ),
    "conv.dilation": Cause(
        "conv.dilation",
        "dilation of a convolution",
        "forward",
        "set dilation={keras} (now {torch})",
        "set dilation_rate={torch} (now {keras})",
    ),
    "conv.groups": Cause(
        "conv.groups",
        "groups of a convolution",
        "forward",
        "set groups={keras} (now {torch})",
        "set groups={torch} (now {keras})",
    ),
    "conv.kernel_size": Cause(
        "conv.kernel_size",
        "size of the kernel",
        "forward",
        "set kernel_size={keras} (now {torch})",
        "set kernel_size={torch} (now {keras})",
    ),
    "conv.transposed_padding": Cause(
        "conv.transposed_padding",
        "cropping of a transposed convolution",
        "forward",
        "set padding=0 and crop the output by {keras} (now {torch})",
        "set padding='valid' and add Cropping2D({torch}) (now {keras})",
    ),
    # Weights.
    "weights.flipped": Cause(
        "weights.flipped",
        "kernel turned by 180 degrees",
        "forward",
        "turn the kernel back: weight.flip((2, 3))",
        "turn the kernel back: kernel[::-1, ::-1]",
    ),
    "weights.transposed": Cause(
        "weights.transposed",
        "two axes of a weight swapped",
        "forward",
        "swap the two axes of the weight: {keras} (now {torch})",
        "swap the two axes of the weight: {torch} (now {keras})",
    ),
    "weights.not_copied": Cause(
        "weights.not_copied",
        "weights still as initialised",
        "forward",
        "copy the layer's weights from Keras; load with strict=True",
        "copy the layer's weights from PyTorch with set_weights",
    ),
    "weights.wrong_layer": Cause(
        "weights.wrong_layer",
        "weights of another layer",
        "forward",
        "copy the weights of {keras} (now those of {torch})",
        "copy the weights of {torch} (now those of {keras})",
    ),
    "weights.scaled": Cause(
        "weights.scaled",
        "weights a constant multiple of the other side's",
        "forward",
        "scale the weights as in Keras: {keras} (now {torch})",
        "scale the weights as in PyTorch: {torch} (now {keras})",
    ),
    "weights.different": Cause(
        "weights.different",
        "other weights",
        "forward",
        "copy the weights from Keras again",
        "copy the weights from PyTorch again",
    ),
    "bias.missing": Cause(
        "bias.missing",
        "a bias on one side only",
        "forward",
        "set bias={keras} (now {torch})",
        "set use_bias={torch} (now {keras})",
    ),
    "bias.different": Cause(
        "bias.different",
        "other biases",
        "forward",
        "copy the bias from Keras again",
        "copy the bias from PyTorch again",
    ),
    # Order of the elements.
    "flatten.order": Cause(
        "flatten.order",
        "order in which features are flattened",
        "forward",
        "flatten in the order {keras} (now {torch}): x.permute(0, 2, 3, 1).flatten(1)",
        "flatten in the order {torch} (now {keras}): Permute((3, 1, 2)), then Flatten",
    ),
    "reshape.order": Cause(
        "reshape.order",
        "order in which elements are reshaped",
        "forward",
        "permute to {keras} before the reshape (now {torch})",
        "permute to {torch} before the reshape (now {keras})",
    ),
    # Pooling.
    "pool.kind": Cause(
        "pool.kind",
        "maximum or average",
        "forward",
        "pool by {keras} (now {torch})",
        "pool by {torch} (now {keras})",
    ),
    "pool.size": Cause(
        "pool.size",
        "size of the pooling window",
        "forward",
        "set kernel_size={keras} (now {torch})",
        "set pool_size={torch} (now {keras})",
    ),
    "pool.stride": Cause(
        "pool.stride",
        "stride of the pooling window",
        "forward",
        "set stride={keras} (now {torch})",
        "set strides={torch} (now {keras})",
    ),
    "pool.padding": Cause(
        "pool.padding",
        "padding of a pooling",
        "forward",
        "pad by {keras} (now {torch}), a maximum with F.pad(..., value=-inf)",
        "pad by {torch} (now {keras}), a maximum with ops.pad and -inf, then 'valid'",
    ),
    "pool.count_padding": Cause(
        "pool.count_padding",
        "whether an average counts the padding",
        "forward",
        "set count_include_pad={keras} (now {torch})",
        "count the padding: {torch} (now {keras}); ZeroPadding2D and 'valid' count it",
    ),
    "pool.border": Cause(
        "pool.border",
        "value of the border of a max pooling",
        "forward",
        "let the maximum see {keras} beyond the border (now {torch})",
        "let the maximum see {torch} beyond the border (now {keras})",
    ),
    "pool.ceil_mode": Cause(
        "pool.ceil_mode",
        "rounding of the pooled size",
        "forward",
        "set ceil_mode={keras} (now {torch})",
        "ceil_mode={torch} (now {keras}): True pads right and bottom, then 'valid'",
    ),
    # BatchNorm.
    "bn.epsilon": Cause(
        "bn.epsilon",
        "epsilon of a BatchNorm",
        "forward",
        "set eps={keras} (now {torch})",
        "set epsilon={torch} (now {keras})",
    ),
    "bn.statistics_swapped": Cause(
        "bn.statistics_swapped",
        "mean and variance, or scale and shift, swapped",
        "forward",
        "copy (gamma, beta, mean, variance) in this order; swapped: {torch}",
        "set_weights takes [gamma, beta, mean, variance]; swapped: {keras}",
    ),
    "bn.statistics_not_copied": Cause(
        "bn.statistics_not_copied",
        "running statistics still 0 and 1",
        "forward",
        "copy running_mean and running_var too: they are buffers",
        "copy moving_mean and moving_variance too: they are not trainable",
    ),
    "bn.training_mode": Cause(
        "bn.training_mode",
        "statistics of the batch in place of the running ones",
        "forward",
        "normalise with the statistics of {keras} (now {torch}): eval() or train()",
        "normalise with the statistics of {torch} (now {keras}): training=",
    ),
    "bn.affine": Cause(
        "bn.affine",
        "scale or shift of a BatchNorm on one side only",
        "forward",
        "have {keras} (now {torch}): affine=, or a frozen weight of 1 or bias of 0",
        "have {torch} (now {keras}): scale= and center=",
    ),
    "bn.missing": Cause(
        "bn.missing",
        "a BatchNorm on one side only",
        "forward",
        "normalise here by {keras} (now {torch})",
        "normalise here by {torch} (now {keras})",
    ),
    "bn.momentum": Cause(
        "bn.momentum",
        "momentum of the running statistics",
        "training",
        "set momentum=1 - {keras} (now {torch})",
        "set momentum=1 - {torch} (now {keras})",
    ),
    "bn.unbiased_variance": Cause(
        "bn.unbiased_variance",
        "running variance biased or unbiased",
        "training",
        "update running_var with the {keras} variance (now {torch})",
        "update moving_variance with the {torch} variance (now {keras})",
    ),
    # Other normalisations.
    "lrn.alpha": Cause(
        "lrn.alpha",
        "alpha of a local response normalisation",
        "forward",
        "set alpha={keras} * size, as PyTorch divides it by size (now {torch})",
        "set alpha={torch} / size, as tf.nn does not divide it (now {keras})",
    ),
    "lrn.beta": Cause(
        "lrn.beta",
        "beta of a local response normalisation",
        "forward",
        "set beta={keras} (now {torch})",
        "set beta={torch} (now {keras})",
    ),
    "lrn.size": Cause(
        "lrn.size",
        "width of a local response normalisation",
        "forward",
        "set size=2 * {keras} + 1 (now {torch})",
        "set depth_radius=({torch} - 1) // 2 (now {keras})",
    ),
    "lrn.k": Cause(
        "lrn.k",
        "constant of a local response normalisation",
        "forward",
        "set k={keras} (now {torch})",
        "set bias={torch} (now {keras})",
    ),
    "ln.epsilon": Cause(
        "ln.epsilon",
        "epsilon of a LayerNorm or GroupNorm",
        "forward",
        "set eps={keras} (now {torch})",
        "set epsilon={torch} (now {keras})",
    ),
    "ln.axes": Cause(
        "ln.axes",
        "axes of a LayerNorm",
        "forward",
        "normalise over {keras} (now {torch}): permute, normalized_shape=",
        "normalise over {torch} (now {keras}): axis=",
    ),
    # Activations.
    "activation.missing": Cause(
        "activation.missing",
        "an activation on one side only",
        "forward",
        "apply {keras} here (now {torch})",
        "apply {torch} here (now {keras})",
    ),
    "activation.kind": Cause(
        "activation.kind",
        "another activation",
        "forward",
        "apply {keras} (now {torch})",
        "apply {torch} (now {keras})",
    ),
    "activation.parameter": Cause(
        "activation.parameter",
        "parameter of an activation",
        "forward",
        "set the activation's parameter to {keras} (now {torch})",
        "set the activation's parameter to {torch} (now {keras})",
    ),
    "activation.twice": Cause(
        "activation.twice",
        "the same activation twice",
        "forward",
        "apply the activation {keras} (now {torch})",
        "apply the activation {torch} (now {keras})",
    ),
    "gelu.approximation": Cause(
        "gelu.approximation",
        "GELU by tanh or by erf",
        "forward",
        "compute GELU by {keras} (now {torch}): approximate='tanh' or 'none'",
        "compute GELU by {torch} (now {keras}): approximate=True is tanh",
    ),
    "leaky.slope": Cause(
        "leaky.slope",
        "slope of a leaky ReLU",
        "forward",
        "set negative_slope={keras} (now {torch})",
        "set negative_slope={torch} (now {keras})",
    ),
    "softmax.twice": Cause(
        "softmax.twice",
        "softmax over a softmax",
        "forward",
        "apply softmax {keras} (now {torch})",
        "apply softmax {torch} (now {keras})",
    ),
    "softmax.missing": Cause(
        "softmax.missing",
        "logits on one side, probabilities on the other",
        "forward",
        "return {keras} (now {torch})",
        "return {torch} (now {keras})",
    ),
    "softmax.axis": Cause(
        "softmax.axis",
        "axis of a softmax",
        "forward",
        "normalise over {keras} (now {torch}): dim=1 holds the channels of NCHW",
        "normalise over {torch} (now {keras}): axis=-1 holds the channels of NHWC",
    ),
    "dropout.active": Cause(
        "dropout.active",
        "dropout at work in inference",
        "forward",
        "have dropout {keras} (now {torch}): model.eval(), F.dropout(training=)",
        "have dropout {torch} (now {keras}): call the model with training=",
    ),
    "dropout.rate": Cause(
        "dropout.rate",
        "share of elements that dropout sets to 0",
        "training",
        "set p={keras} (now {torch})",
        "set rate={torch} (now {keras})",
    ),
    # Attention.
    "attention.heads": Cause(
        "attention.heads",
        "number of attention heads",
        "forward",
        "split the features into {keras} heads (now {torch})",
        "split the features into {torch} heads (now {keras})",
    ),
    "attention.scale": Cause(
        "attention.scale",
        "scale of the products of queries and keys",
        "forward",
        "multiply the products by {keras} (now {torch})",
        "multiply the products by {torch} (now {keras})",
    ),
    "attention.mask": Cause(
        "attention.mask",
        "causal mask",
        "forward",
        "set is_causal={keras} (now {torch})",
        "set use_causal_mask={torch} (now {keras})",
    ),
    # Branches.
    "merge.order": Cause(
        "merge.order",
        "order of the branches joined",
        "forward",
        "join the branches in the order {keras} (now {torch})",
        "join the branches in the order {torch} (now {keras})",
    ),
    "merge.kind": Cause(
        "merge.kind",
        "how branches are joined",
        "forward",
        "join the branches by {keras} (now {torch})",
        "join the branches by {torch} (now {keras})",
    ),
    "shortcut.missing": Cause(
        "shortcut.missing",
        "a shortcut on one side only",
        "forward",
        "add {keras} here (now {torch})",
        "add {torch} here (now {keras})",
    ),
    # Steps without weights.
    "pad.missing": Cause(
        "pad.missing",
        "a padding layer on one side only",
        "forward",
        "pad by {keras} here (now by {torch})",
        "pad by {torch} here (now by {keras})",
    ),
    "pad.amount": Cause(
        "pad.amount",
        "width of a padding layer",
        "forward",
        "pad by {keras} (now {torch}); F.pad takes (left, right, top, bottom)",
        "pad by {torch} (now {keras}); ZeroPadding2D takes ((t, b), (l, r))",
    ),
    "pad.value": Cause(
        "pad.value",
        "what a padding layer fills in",
        "forward",
        "pad with {keras} (now {torch})",
        "pad with {torch} (now {keras})",
    ),
    "scale.missing": Cause(
        "scale.missing",
        "a constant factor or offset on one side only",
        "forward",
        "apply {keras} here (now {torch})",
        "apply {torch} here (now {keras})",
    ),
    "resize.method": Cause(
        "resize.method",
        "method of a resizing layer",
        "forward",
        "set mode={keras} (now {torch})",
        "set interpolation={torch} (now {keras})",
    ),
    "resize.grid": Cause(
        "resize.grid",
        "where a resizing layer takes its samples",
        "forward",
        "sample at {keras} (now {torch}): align_corners=, or mode='nearest-exact'",
        "sample at {torch} (now {keras})",
    ),
    "resize.antialias": Cause(
        "resize.antialias",
        "smoothing before a reduction in size",
        "forward",
        "set antialias={keras} (now {torch})",
        "set antialias={torch} (now {keras})",
    ),
    # What no other entry names.
    "nan.first": Cause(
        "nan.first",
        "where NaN or infinity first appears",
        "forward",
        "look at this layer's inputs: Keras has {keras}, PyTorch has {torch}",
        "look at this layer's inputs: PyTorch has {torch}, Keras has {keras}",
    ),
    "layer.missing": Cause(
        "layer.missing",
        "a layer with weights on one side only",
        "forward",
        "have {keras} here (now {torch})",
        "have {torch} here (now {keras})",
    ),
    "operation.different": Cause(
        "operation.different",
        "another operation",
        "forward",
        "compute {keras} here (now {torch})",
        "compute {torch} here (now {keras})",
    ),
    # Gradients.
    "layer.frozen": Cause(
        "layer.frozen",
        "a layer that is trained on one side only",
        "backward",
        "have the layer {keras} (now {torch}): requires_grad_()",
        "have the layer {torch} (now {keras}): trainable=, then compile() again",
    ),
    "gradient.stopped": Cause(
        "gradient.stopped",
        "a gradient that ends on one side",
        "backward",
        "let the gradient be {keras} here (now {torch}): detach(), no_grad()",
        "let the gradient be {torch} here (now {keras}): ops.stop_gradient",
    ),
    "gradient.scaled": Cause(
        "gradient.scaled",
        "a gradient that is a constant multiple of the other's",
        "backward",
        "scale the gradient by {keras} here (now by {torch})",
        "scale the gradient by {torch} here (now by {keras})",
    ),
    # The loss.
    "loss.reduction": Cause(
        "loss.reduction",
        "how a loss is reduced",
        "backward",
        "reduce by {keras} (now {torch}): reduction=",
        "reduce by {torch} (now {keras}): reduction=",
    ),
    "loss.from_logits": Cause(
        "loss.from_logits",
        "loss of logits or of probabilities",
        "backward",
        "read the outputs as {keras} (now {torch}): cross_entropy or nll_loss of a log",
        "read the outputs as {torch} (now {keras}): from_logits=",
    ),
    "loss.label_smoothing": Cause(
        "loss.label_smoothing",
        "smoothing of the labels",
        "backward",
        "set label_smoothing={keras} (now {torch})",
        "set label_smoothing={torch} (now {keras})",
    ),
    "loss.class_weights": Cause(
        "loss.class_weights",
        "weights of the classes, or what divides them",
        "backward",
        "weight the classes by {keras} (now {torch})",
        "weight the classes by {torch} (now {keras})",
    ),
    "loss.regularizer": Cause(
        "loss.regularizer",
        "a penalty in the loss on one side only",
        "backward",
        "add {keras} to the loss (now {torch})",
        "add {torch} to the loss (now {keras})",
    ),
    "loss.kind": Cause(
        "loss.kind",
        "another loss",
        "backward",
        "use {keras} (now {torch})",
        "use {torch} (now {keras})",
    ),
    # The optimizer.
    "optimizer.kind": Cause(
        "optimizer.kind",
        "another optimizer",
        "training",
        "use {keras} (now {torch})",
        "use {torch} (now {keras})",
    ),
    "optimizer.learning_rate": Cause(
        "optimizer.learning_rate",
        "learning rate",
        "training",
        "set lr={keras} (now {torch})",
        "set learning_rate={torch} (now {keras})",
    ),
    "optimizer.schedule": Cause(
        "optimizer.schedule",
        "learning rate over the steps",
        "training",
        "let the rate go {keras} (now {torch}): scheduler.step() after each batch",
        "let the rate go {torch} (now {keras}): decay_steps counts batches",
    ),
    "optimizer.momentum": Cause(
        "optimizer.momentum",
        "momentum",
        "training",
        "set momentum={keras} (now {torch})",
        "set momentum={torch} (now {keras})",
    ),
    "optimizer.nesterov": Cause(
        "optimizer.nesterov",
        "Nesterov's momentum or the classical one",
        "training",
        "set nesterov={keras} (now {torch})",
        "set nesterov={torch} (now {keras})",
    ),
    "optimizer.betas": Cause(
        "optimizer.betas",
        "decay rates of the moments",
        "training",
        "set betas={keras}, or alpha in RMSprop (now {torch})",
        "set (beta_1, beta_2)={torch}, or rho in RMSprop (now {keras})",
    ),
    "optimizer.epsilon": Cause(
        "optimizer.epsilon",
        "size of the optimizer's epsilon",
        "training",
        "set eps={keras} (now {torch})",
        "set epsilon={torch} (now {keras})",
    ),
    "optimizer.epsilon_place": Cause(
        "optimizer.epsilon_place",
        "where epsilon is added",
        "training",
        "add epsilon {keras} (now {torch}); no argument does it, a subclass does",
        "add epsilon {torch} (now {keras}); no argument does it, a subclass does",
    ),
    "optimizer.weight_decay": Cause(
        "optimizer.weight_decay",
        "strength of the weight decay",
        "training",
        "set weight_decay={keras} (now {torch})",
        "set weight_decay={torch} (now {keras})",
    ),
    "optimizer.weight_decay_coupled": Cause(
        "optimizer.weight_decay_coupled",
        "decay of the weights or in the gradient",
        "training",
        "make the decay {keras} (now {torch}): decoupled is p.mul_(1 - lr * decay)",
        "make the decay {torch} (now {keras}): coupled is regularizers.L2(decay / 2)",
    ),
    "optimizer.weight_decay_doubled": Cause(
        "optimizer.weight_decay_doubled",
        "weight decay twice as strong",
        "training",
        "let the decay be {keras} (now {torch}), in the loss or in the optimizer alone",
        "let the decay be {torch} (now {keras}); L2(a) is a weight_decay of 2 * a",
    ),
    "optimizer.zero_grad": Cause(
        "optimizer.zero_grad",
        "gradients kept from step to step",
        "training",
        "call optimizer.zero_grad() in every step (now {torch}; in Keras {keras})",
        "add the gradients of {torch} steps up (now {keras})",
    ),
    "optimizer.clipping": Cause(
        "optimizer.clipping",
        "clipping of the gradients",
        "training",
        "clip by {keras} (now {torch})",
        "clip by {torch} (now {keras}): global_clipnorm, clipnorm or clipvalue",
    ),
    "optimizer.centered": Cause(
        "optimizer.centered",
        "RMSprop centred or not",
        "training",
        "set centered={keras} (now {torch})",
        "set centered={torch} (now {keras})",
    ),
    "unexplained": Cause(
        "unexplained",
        "no known cause",
        "forward",
        "compare this layer by hand: Keras has {keras}, PyTorch has {torch}",
        "compare this layer by hand: PyTorch has {torch}, Keras has {keras}",
    ),
}


def fixes(cause: str, keras: object = None, torch: object = None) -> tuple[str, str]:
    """Returns what to change in PyTorch, and in Keras, to mend a cause.

    Args:
        cause: an id of `CAUSES`.
        keras: the differing parameter in Keras, None where it has no such step.
        torch: the same in PyTorch.

    Raises:
        ValueError: if there is no such cause.
    """
    if cause not in CAUSES:
        raise unknown("cause", cause, CAUSES)
    values = {
        side: "nothing" if value is None else value
        for side, value in (("keras", keras), ("torch", torch))
    }
    entry = CAUSES[cause]
    return entry.torch_fix.format(**values), entry.keras_fix.format(**values)


def untried(keras: object = None, torch: object = None) -> tuple[str, str]:
    """Returns what is known of two operations that no experiment made the same.

    Args:
        keras: what Keras runs, in words; None where it runs nothing.
        torch: likewise.

    Returns:
        The same from PyTorch's side and from Keras's, in the place of `fixes`.
    """
    ours, theirs = ("nothing" if value is None else value for value in (keras, torch))
    known = (
        "they give different values of the same inputs, and what would make them agree "
        "is not known"
    )
    return (
        f"PyTorch runs {theirs} here and Keras {ours}: {known}",
        f"Keras runs {ours} here and PyTorch {theirs}: {known}",
    )
