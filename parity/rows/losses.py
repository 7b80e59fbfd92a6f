"""Losses: how they are averaged, clipped and smoothed, and which input they want."""

from parity.rows.record import Row, array, given, integers, maps

LOGITS = {
    "logits": array(6, 5, scale=2.0),
    "labels": integers(6, below=5),
}
WEIGHTED = LOGITS | {"class_weights": given([0.3, 2.5, 1.0, 0.7, 4.0])}
BINARY = {
    "logits": array(6, 4, scale=2.0),
    "targets": given(
        [
            [1.0, 0.0, 0.0, 1.0],
            [0.0, 1.0, 0.0, 0.0],
            [1.0, 1.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
            [1.0, 0.0, 1.0, 1.0],
            [0.0, 1.0, 1.0, 0.0],
        ]
    ),
}
REGRESSION = {"outputs": array(6, 3), "targets": array(6, 3, scale=3.0)}
DISTRIBUTIONS = {
    "probabilities": given([[0.1, 0.2, 0.7], [0.4, 0.5, 0.1]]),
    "targets": given([[0.3, 0.3, 0.4], [0.8, 0.05, 0.15]]),
}
# Logits whose probabilities float64 can tell from 0 and 1, but the clip can not.
CONFIDENT = {
    "logits": given([[30.0, 0.0, 2.0], [1.0, 0.5, -1.0], [-20.0, 3.0, 5.0]]),
    "labels": given([1, 0, 0]),
}

ROWS = (
    Row(
        "losses.cross_entropy",
        "cross entropy of logits, labels as integers",
        "losses",
        "other name",
        keras="""\
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
loss(labels, logits)""",
        torch="nn.CrossEntropyLoss()(logits, labels)",
        operations=("cross_entropy",),
        inputs=LOGITS,
        note="the arguments change places: targets first in Keras, last in PyTorch",
    ),
    Row(
        "losses.cross_entropy_probabilities",
        "cross entropy of logits, targets as probabilities",
        "losses",
        "other name",
        keras="""\
targets = keras.ops.softmax(keras.ops.flip(logits, -1))
keras.losses.CategoricalCrossentropy(from_logits=True)(targets, logits)""",
        torch="""\
targets = logits.flip(-1).softmax(-1)
nn.CrossEntropyLoss()(logits, targets)""",
        operations=("cross_entropy",),
        inputs=LOGITS,
        note="one class in PyTorch: the type of the targets says which is meant",
    ),
    Row(
        "losses.double_softmax",
        "a model that ends in a softmax",
        "losses",
        "other meaning",
        keras="""\
probabilities = keras.activations.softmax(logits)
keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)""",
        torch="nn.CrossEntropyLoss()(logits, labels)",
        naive_torch="nn.CrossEntropyLoss()(logits.softmax(-1), labels)",
        symptom="no error, but the loss has a floor far above 0 and training is slow",
        fix="let the PyTorch module give logits: its loss has the softmax inside",
        operations=("cross_entropy",),
        inputs=LOGITS,
    ),
    Row(
        "losses.logits_as_probabilities",
        "logits given to a Keras loss with its defaults",
        "losses",
        "other default",
        keras="""\
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
loss(labels, logits)""",
        torch="nn.CrossEntropyLoss()(logits, labels)",
        naive_keras="keras.losses.SparseCategoricalCrossentropy()(labels, logits)",
        symptom="no error: the logits are clipped to between 0 and 1, most gradients 0",
        fix="from_logits=True",
        operations=("cross_entropy",),
        inputs=LOGITS,
        note="the losses by name, loss='sparse_categorical_crossentropy', do the same",
    ),
    Row(
        "losses.label_smoothing",
        "label smoothing over classes",
        "losses",
        "same",
        keras="""\
loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
loss(keras.ops.one_hot(labels, 5, dtype=dtype), logits)""",
        torch="nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels)",
        operations=("cross_entropy",),
        inputs=LOGITS,
        note="believed to differ; both share it among all classes, the true one too",
    ),
    Row(
        "losses.label_smoothing_sparse",
        "label smoothing for labels as integers",
        "losses",
        "missing on one side",
        keras="""\
loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
loss(keras.ops.one_hot(labels, 5, dtype=dtype), logits)""",
        torch="nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels)",
        naive_keras="""\
loss = keras.losses.SparseCategoricalCrossentropy(
    from_logits=True, label_smoothing=0.1
)
loss(labels, logits)""",
        symptom="Keras's sparse loss has no such argument",
        fix="one-hot labels and CategoricalCrossentropy",
        operations=("cross_entropy",),
        inputs=LOGITS,
        shows="TypeError",
        says="unexpected keyword argument 'label_smoothing'",
    ),
    Row(
        "losses.label_smoothing_binary",
        "label smoothing of binary targets",
        "losses",
        "missing on one side",
        keras="""\
loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
loss(targets, logits)""",
        torch="""\
smooth = targets * (1 - 0.1) + 0.1 / 2
nn.BCEWithLogitsLoss()(logits, smooth)""",
        naive_torch="nn.BCEWithLogitsLoss()(logits, targets * (1 - 0.1))",
        symptom="only the ones are smoothed, so that the scores are biased downwards",
        fix="add half of it back: two classes share it",
        operations=("binary_cross_entropy",),
        inputs=BINARY,
    ),
    Row(
        "losses.class_weights",
        "weights of classes: what the sum is divided by",
        "losses",
        "other meaning",
        keras="""\
weights = keras.ops.take(class_weights, labels)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
loss(labels, logits, sample_weight=weights)""",
        torch="""\
losses = F.cross_entropy(logits, labels, reduction="none")
(losses * class_weights[labels]).mean()""",
        naive_torch="nn.CrossEntropyLoss(weight=class_weights)(logits, labels)",
        symptom="PyTorch divides by the sum of the weights, Keras by their number: the "
        "loss, and with it the learning rate, is scaled by each batch's mean weight",
        fix="weight the single losses, then take the mean",
        operations=("cross_entropy",),
        inputs=WEIGHTED,
    ),
    Row(
        "losses.class_weights_normalized",
        "PyTorch's weighted mean in Keras",
        "losses",
        "other default",
        keras="""\
weights = keras.ops.take(class_weights, labels)
loss = keras.losses.SparseCategoricalCrossentropy(
    from_logits=True, reduction="mean_with_sample_weight"
)
loss(labels, logits, sample_weight=weights)""",
        torch="nn.CrossEntropyLoss(weight=class_weights)(logits, labels)",
        naive_keras="""\
weights = keras.ops.take(class_weights, labels)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
loss(labels, logits, sample_weight=weights)""",
        symptom="the loss is scaled by each batch's mean weight",
        fix="reduction='mean_with_sample_weight'",
        operations=("cross_entropy",),
        inputs=WEIGHTED,
    ),
    Row(
        "losses.class_weights_fit",
        "class_weight= of fit and train_on_batch",
        "losses",
        "other meaning",
        keras="""\
model = keras.Sequential([layers.Input((5,)), layers.Dense(5, use_bias=False)])
model.layers[0].kernel.assign(np.eye(5))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("sgd", loss, run_eagerly=True)
weights = {label: float(weight) for label, weight in enumerate(class_weights)}
model.train_on_batch(np.array(logits), np.array(labels), class_weight=weights)""",
        torch="""\
losses = F.cross_entropy(logits, labels, reduction="none")
(losses * class_weights[labels]).mean()""",
        naive_torch="nn.CrossEntropyLoss(weight=class_weights)(logits, labels)",
        symptom="the loss that the trainer reports and descends is scaled by each "
        "batch's mean weight",
        fix="weight the single losses, then take the mean",
        operations=("cross_entropy",),
        inputs=WEIGHTED,
    ),
    Row(
        "losses.ignored_class",
        "labels that do not count",
        "losses",
        "other name",
        keras="""\
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
loss(labels, logits)""",
        torch="nn.CrossEntropyLoss(ignore_index=255)(logits, labels)",
        operations=("cross_entropy",),
        inputs={"logits": array(6, 5), "labels": given([1, 255, 4, 0, 255, 2])},
        note="Keras is believed to divide by all labels; both divide by the kept ones. "
        "Without the argument PyTorch leaves out labels of -100, Keras none",
    ),
    Row(
        "losses.per_pixel",
        "a label for every pixel",
        "losses",
        "other layout",
        keras="""\
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
loss(labels, logits)""",
        torch="nn.CrossEntropyLoss()(logits, labels)",
        naive_torch="nn.CrossEntropyLoss()(logits.permute(0, 2, 3, 1), labels)",
        symptom="PyTorch wants the classes in dimension 1, and says only that it "
        "expected another shape of targets",
        fix="keep the logits (N, K, H, W); the mean is over all pixels on both sides",
        operations=("cross_entropy",),
        inputs={"logits": maps(2, 4, 6, 5), "labels": integers(2, 4, 6, below=5)},
        shows="RuntimeError",
        says="size mismatch",
    ),
    Row(
        "losses.clipped_probabilities",
        "cross entropy of probabilities near 0",
        "losses",
        "other meaning",
        keras="""\
targets = keras.ops.one_hot(labels, 3, dtype=dtype)
keras.losses.CategoricalCrossentropy(reduction=None)(targets, probabilities)""",
        torch="""\
clipped = probabilities.clamp(1e-7, 1 - 1e-7)
F.nll_loss(clipped.log(), labels, reduction="none")""",
        naive_torch='F.nll_loss(probabilities.log(), labels, reduction="none")',
        symptom="infinity in PyTorch; Keras clips to 1e-7: what is surely wrong has a "
        "bounded loss and no gradient",
        fix="train on logits; to get Keras's number, clip as it does",
        operations=("cross_entropy",),
        inputs={
            "probabilities": given([[0.0, 0.75, 0.25], [0.5, 0.25, 0.25]]),
            "labels": given([0, 0]),
        },
    ),
    Row(
        "losses.softmax_then_layer",
        "a layer behind the softmax",
        "losses",
        "other meaning",
        keras="""\
loss = keras.losses.SparseCategoricalCrossentropy()
with tf.GradientTape() as tape:
    tape.watch(logits)
    probabilities = layers.Softmax()(logits)
    value = loss(labels, probabilities)
value, tape.gradient(value, logits)""",
        torch="""\
value = nn.CrossEntropyLoss()(logits.requires_grad_(), labels)
value, *torch.autograd.grad(value, logits)""",
        naive_keras="""\
loss = keras.losses.SparseCategoricalCrossentropy()
with tf.GradientTape() as tape:
    tape.watch(logits)
    probabilities = layers.Reshape((3,))(layers.Softmax()(logits))
    value = loss(labels, probabilities)
value, tape.gradient(value, logits)""",
        symptom="on TensorFlow, Keras finds the logits of a softmax and does not clip; "
        "behind any other layer it does: samples that are confidently wrong have "
        "another loss and do not train",
        fix="let the softmax be the last thing, or better: logits",
        operations=("cross_entropy",),
        inputs=CONFIDENT,
    ),
    Row(
        "losses.loss_of_predictions",
        "a loss computed again from predict()",
        "losses",
        "other meaning",
        keras="""\
probabilities = layers.Softmax()(logits)
keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)""",
        torch="nn.CrossEntropyLoss()(logits, labels)",
        naive_keras="""\
probabilities = np.array(layers.Softmax()(logits))
keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)""",
        symptom="disagrees with what evaluate() said: as an array, probabilities have "
        "lost their logits and are clipped",
        fix="save logits, and compute losses of these",
        operations=("cross_entropy",),
        inputs=CONFIDENT,
        differs_on=("jax", "torch"),
    ),
    Row(
        "losses.sparse_on_probabilities",
        "scores that do not add up to 1",
        "losses",
        "other meaning",
        keras="""\
targets = keras.ops.one_hot(labels, 3, dtype=dtype)
keras.losses.CategoricalCrossentropy(reduction=None)(targets, scores)""",
        torch="""\
shares = scores / scores.sum(-1, keepdim=True)
F.nll_loss(shares.clamp(1e-7, 1 - 1e-7).log(), labels, reduction="none")""",
        naive_keras="""\
loss = keras.losses.SparseCategoricalCrossentropy(reduction=None)
loss(labels, scores)""",
        symptom="on TensorFlow, Keras's sparse loss clips before it divides by the "
        "sum, the other one after it: two losses for the same scores",
        fix="logits; or one-hot labels",
        operations=("cross_entropy",),
        inputs={
            "scores": given([[0.7, 1.5, 0.3], [2.0, 4.0, 0.0], [0.2, 0.1, 3.0]]),
            "labels": given([0, 1, 0]),
        },
    ),
    Row(
        "losses.binary_cross_entropy",
        "binary cross entropy of logits",
        "losses",
        "other name",
        keras="keras.losses.BinaryCrossentropy(from_logits=True)(targets, logits)",
        torch="nn.BCEWithLogitsLoss()(logits, targets)",
        operations=("binary_cross_entropy",),
        inputs=BINARY,
        note="from_logits=False is nn.BCELoss",
    ),
    Row(
        "losses.clipped_binary",
        "binary cross entropy of saturated probabilities",
        "losses",
        "other meaning",
        keras="keras.losses.BinaryCrossentropy()(targets, probabilities)",
        torch="nn.BCELoss()(probabilities.clamp(1e-7, 1 - 1e-7), targets)",
        naive_torch="nn.BCELoss()(probabilities, targets)",
        symptom="Keras clips the probability, PyTorch the logarithm: the loss of one "
        "saturated sample differs several times over",
        fix="logits on both sides; to get Keras's number, clip as it does",
        operations=("binary_cross_entropy",),
        inputs={
            "probabilities": given([[0.0, 0.75], [0.5, 0.25], [1.0, 0.5]]),
            "targets": given([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]),
        },
    ),
    Row(
        "losses.focal",
        "focal loss of binary targets",
        "losses",
        "other default",
        keras="""\
loss = keras.losses.BinaryFocalCrossentropy(from_logits=True)
loss(targets, logits)""",
        torch="""\
torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=-1, reduction="mean")""",
        naive_torch="""\
torchvision.ops.sigmoid_focal_loss(logits, targets, reduction="mean")""",
        symptom="torchvision weights the classes by alpha unless told not to, Keras "
        "only with apply_class_balancing=True",
        fix="alpha=-1; torchvision's default gives the single losses, not their mean",
        inputs=BINARY,
    ),
    Row(
        "losses.mean_squared_error",
        "mean squared error",
        "losses",
        "other name",
        keras="keras.losses.MeanSquaredError()(targets, outputs)",
        torch="nn.MSELoss()(outputs, targets)",
        operations=("mean_squared_error",),
        inputs=REGRESSION,
        note="both divide by the number of all elements, not of samples",
    ),
    Row(
        "losses.unreduced",
        "the losses without their mean",
        "losses",
        "other meaning",
        keras="keras.losses.MeanSquaredError(reduction=None)(targets, outputs)",
        torch='nn.MSELoss(reduction="none")(outputs, targets).mean(-1)',
        naive_torch='nn.MSELoss(reduction="none")(outputs, targets)',
        symptom="one number per sample in Keras, one per element in PyTorch",
        fix="take the mean over the last axis, as Keras has done before any reduction",
        operations=("mean_squared_error",),
        inputs=REGRESSION,
        shows="shape",
    ),
    Row(
        "losses.summed",
        "reduction='sum'",
        "losses",
        "other meaning",
        keras="""\
keras.losses.MeanSquaredError(reduction="sum")(targets, outputs)""",
        torch="""\
nn.MSELoss(reduction="none")(outputs, targets).mean(-1).sum()""",
        naive_torch='nn.MSELoss(reduction="sum")(outputs, targets)',
        symptom="PyTorch's sum is larger by the number of outputs",
        fix="take the mean over the last axis before the sum",
        operations=("mean_squared_error",),
        inputs=REGRESSION,
    ),
    Row(
        "losses.target_rank",
        "targets (N,) for outputs (N, 1)",
        "losses",
        "other meaning",
        keras="keras.losses.MeanSquaredError()(targets, outputs)",
        torch="nn.MSELoss()(outputs, targets.unsqueeze(1))",
        naive_torch="nn.MSELoss()(outputs, targets)",
        symptom="PyTorch compares every output with every target and only warns: the "
        "network learns the mean target",
        fix="give the targets the outputs' shape",
        operations=("mean_squared_error",),
        inputs={"outputs": array(6, 1), "targets": array(6, scale=3.0)},
    ),
    Row(
        "losses.mean_absolute_error",
        "mean absolute error",
        "losses",
        "other name",
        keras="keras.losses.MeanAbsoluteError()(targets, outputs)",
        torch="nn.L1Loss()(outputs, targets)",
        inputs=REGRESSION,
    ),
    Row(
        "losses.huber",
        "Huber loss",
        "losses",
        "other name",
        keras="keras.losses.Huber(delta=2.0)(targets, outputs)",
        torch="nn.HuberLoss(delta=2.0)(outputs, targets)",
        naive_torch="nn.SmoothL1Loss(beta=2.0)(outputs, targets)",
        symptom="SmoothL1Loss is the Huber loss divided by delta: the same at 1 only",
        fix="nn.HuberLoss",
        operations=("huber",),
        inputs=REGRESSION,
    ),
    Row(
        "losses.kl_divergence",
        "Kullback-Leibler divergence",
        "losses",
        "other meaning",
        keras="keras.losses.KLDivergence()(targets, probabilities)",
        torch='nn.KLDivLoss(reduction="batchmean")(probabilities.log(), targets)',
        naive_torch="nn.KLDivLoss()(probabilities, targets)",
        symptom="a negative divergence: PyTorch wants the prediction as logarithms and "
        "divides by the elements, not by the samples",
        fix="log first, reduction='batchmean'",
        operations=("kl_divergence",),
        inputs=DISTRIBUTIONS,
    ),
    Row(
        "losses.kl_divergence_order",
        "which argument is the target",
        "losses",
        "other layout",
        keras="keras.losses.KLDivergence()(targets, probabilities)",
        torch='nn.KLDivLoss(reduction="batchmean")(probabilities.log(), targets)',
        naive_torch='nn.KLDivLoss(reduction="batchmean")(targets.log(), probabilities)',
        symptom="the divergence the other way round, which is another number",
        fix="the target comes first in Keras, last in PyTorch",
        operations=("kl_divergence",),
        inputs=DISTRIBUTIONS,
    ),
    Row(
        "losses.cosine_similarity",
        "cosine similarity as a loss",
        "losses",
        "other meaning",
        keras="keras.losses.CosineSimilarity()(targets, outputs)",
        torch="-F.cosine_similarity(outputs, targets).mean()",
        naive_torch="""\
nn.CosineEmbeddingLoss()(outputs, targets, torch.ones(len(outputs)))""",
        symptom="from -1 to 1 in Keras, from 0 to 2 in PyTorch; the gradients agree",
        fix="the negative mean of F.cosine_similarity",
        inputs=REGRESSION,
    ),
    Row(
        "losses.l2_penalty",
        "an L2 regularizer against weight_decay",
        "losses",
        "other meaning",
        keras="""\
weights = keras.Variable(start)
penalty = keras.regularizers.L2(1e-2)
with tf.GradientTape() as tape:
    loss = keras.ops.sum(weights * slopes) + penalty(weights)
gradient = tape.gradient(loss, weights.value)
keras.optimizers.SGD(0.1).apply([gradient], [weights])
weights""",
        torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, weight_decay=2e-2)
(weights * slopes).sum().backward()
optimizer.step()
weights""",
        naive_torch="""\
weights = nn.Parameter(start)
optimizer = torch.optim.SGD([weights], lr=0.1, weight_decay=1e-2)
(weights * slopes).sum().backward()
optimizer.step()
weights""",
        symptom="half the regularization: L2 adds a w^2, its derivative is 2 a w; "
        "PyTorch's loss does not contain it, Keras's does",
        fix="twice the factor as weight_decay, with SGD; with Adam add it to the loss",
        note="Keras rounds the factor to float32, whatever the weights are",
        inputs={"start": array(4, 3), "slopes": array(4, 3, scale=0.1)},
    ),
)
