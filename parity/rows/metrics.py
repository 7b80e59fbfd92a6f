"""Rows of the table: metrics."""

from parity.rows.record import Input, Row, array, given, integers

ROWS: tuple[Row, ...] = (
    Row(
        "metrics.accuracy",
        "the share of right answers",
        "metrics",
        "other name",
        keras="keras.metrics.SparseCategoricalAccuracy()(labels, scores)",
        torch="(scores.argmax(1) == labels).to(scores.dtype).mean()",
        operations=("accuracy",),
        inputs={"scores": array(40, 5), "labels": integers(40, below=5)},
        note="Both are shares from 0 to 1; logits serve as well as probabilities.",
    ),
    Row(
        "metrics.accuracy_one_hot",
        "the share of right answers, with one-hot targets",
        "metrics",
        "other name",
        keras="targets = keras.ops.one_hot(labels, 5)\n"
        "keras.metrics.CategoricalAccuracy()(targets, scores)",
        torch="targets = F.one_hot(labels, 5)\n"
        "(scores.argmax(1) == targets.argmax(1)).to(scores.dtype).mean()",
        operations=("accuracy",),
        inputs={"scores": array(40, 5), "labels": integers(40, below=5)},
        note="metrics=['accuracy'] chooses between the two by the shape of the "
        "targets.",
    ),
    Row(
        "metrics.accuracy_label_column",
        "labels of the shape (N, 1), as Keras's data sets have them",
        "metrics",
        "other meaning",
        keras="keras.metrics.SparseCategoricalAccuracy()(labels, scores)",
        torch="(scores.argmax(1) == labels.squeeze(1)).to(scores.dtype).mean()",
        naive_torch="(scores.argmax(1) == labels).to(scores.dtype).mean()",
        symptom="an accuracy near chance, however good the network: every answer is "
        "compared with every label",
        fix="labels.squeeze(1): Keras does it, PyTorch broadcasts",
        operations=("accuracy",),
        inputs={"scores": array(40, 5), "labels": integers(40, 1, below=5)},
    ),
    Row(
        "metrics.accuracy_class",
        "keras.metrics.Accuracy",
        "metrics",
        "other meaning",
        keras="keras.metrics.BinaryAccuracy()(labels, probabilities)",
        torch="right = (probabilities > 0.5) == labels.bool()\n"
        "right.to(probabilities.dtype).mean()",
        naive_keras="keras.metrics.Accuracy()(labels, probabilities)",
        symptom="an accuracy of 0",
        fix="BinaryAccuracy or SparseCategoricalAccuracy, which metrics=['accuracy'] "
        "stands for: the class Accuracy asks whether the numbers are equal",
        operations=("accuracy",),
        inputs={
            "probabilities": Input((40, 1), values="uniform"),
            "labels": integers(40, 1, below=2),
        },
    ),
    Row(
        "metrics.accuracy_of_logits",
        "metrics=['accuracy'] for one logit per sample",
        "metrics",
        "other default",
        keras="keras.metrics.BinaryAccuracy(threshold=0.0)(labels, logits)",
        torch="((logits > 0) == labels.bool()).to(logits.dtype).mean()",
        naive_keras="keras.metrics.BinaryAccuracy()(labels, logits)",
        symptom="an accuracy that is too low: logits from 0 to 0.5 count as no",
        fix="BinaryAccuracy(threshold=0.0): from_logits=True tells the loss, not the "
        "metric",
        operations=("accuracy",),
        inputs={"logits": array(60, 1), "labels": integers(60, 1, below=2)},
    ),
    Row(
        "metrics.running_value",
        "what calling a metric of Keras returns",
        "metrics",
        "other meaning",
        keras="accuracy, values = keras.metrics.SparseCategoricalAccuracy(), []\n"
        "for batch in (slice(0, 8), slice(8, 40)):\n"
        "    accuracy.reset_state()\n"
        "    values.append(accuracy(labels[batch], scores[batch]))\n"
        "values",
        torch="right = (scores.argmax(1) == labels).to(scores.dtype)\n"
        "[right[:8].mean(), right[8:].mean()]",
        naive_keras="accuracy, values = keras.metrics.SparseCategoricalAccuracy(), []\n"
        "for batch in (slice(0, 8), slice(8, 40)):\n"
        "    values.append(accuracy(labels[batch], scores[batch]))\n"
        "values",
        symptom="curves that are smoother than they should be, and that go on over "
        "the end of an epoch",
        fix="reset_state(): a metric counts all it has seen since the last one, not "
        "this batch",
        operations=("accuracy",),
        inputs={"scores": array(40, 5), "labels": integers(40, below=5)},
    ),
    Row(
        "metrics.top_k",
        "the k largest scores and their places",
        "metrics",
        "other name",
        keras="values, indices = tf.math.top_k(scores, k=3)\nvalues, indices",
        torch="values, indices = torch.topk(scores, k=3)\nvalues, indices",
        operations=("top_k",),
        inputs={"scores": array(6, 7)},
        note="Over the last axis, the largest first. The indices are int32 in "
        "TensorFlow, int64 in PyTorch. Among equal scores TensorFlow takes the first, "
        "PyTorch promises nothing.",
    ),
    Row(
        "metrics.top_k_accuracy",
        "the share of labels among the k largest scores",
        "metrics",
        "missing on one side",
        keras="keras.metrics.SparseTopKCategoricalAccuracy(k=3)(labels, scores)",
        torch="indices = scores.topk(3).indices\n"
        "(indices == labels[:, None]).any(1).to(scores.dtype).mean()",
        operations=("top_k", "top_k_accuracy"),
        inputs={"scores": array(40, 7), "labels": integers(40, below=7)},
        dtypes=("float32",),
    ),
    Row(
        "metrics.top_k_accuracy_ties",
        "top-k accuracy where scores are equal",
        "metrics",
        "other meaning",
        keras="keras.metrics.SparseTopKCategoricalAccuracy(k=5)(labels, scores)",
        torch="larger = scores > scores.gather(1, labels[:, None])\n"
        "(larger.sum(1) < 5).to(scores.dtype).mean()",
        naive_torch="indices = scores.topk(5).indices\n"
        "(indices == labels[:, None]).any(1).to(scores.dtype).mean()",
        symptom="a network whose outputs are all equal has a top-5 accuracy of 1 in "
        "Keras",
        fix="count the scores that are larger than the label's: in Keras equal ones "
        "are for the label",
        operations=("top_k_accuracy",),
        inputs={
            "scores": given([[0.0] * 10] * 10),
            "labels": given(list(range(10))),
        },
        dtypes=("float32",),
    ),
    Row(
        "metrics.top_k_accuracy_float64",
        "top-k accuracy of a float64 network",
        "metrics",
        "other meaning",
        keras="scores = keras.ops.cast(scores, 'float32')\n"
        "keras.ops.in_top_k(labels, scores, k=3)",
        torch="(scores.topk(3).indices == labels[:, None]).any(1)",
        naive_keras="keras.ops.in_top_k(labels, scores, k=3)",
        shows="InvalidArgumentError",
        says="expected to be a float tensor but is a double",
        symptom="TensorFlow stops: it wants float scores, not double",
        fix="cast the scores to float32; SparseTopKCategoricalAccuracy needs it too",
        operations=("top_k_accuracy",),
        inputs={"scores": array(40, 7), "labels": integers(40, below=7)},
        dtypes=("float64",),
    ),
    Row(
        "metrics.argmax_ties",
        "argmax where scores are equal",
        "metrics",
        "same",
        keras="tf.argmax(scores, axis=1)",
        torch="scores.argmax(1)",
        operations=("accuracy",),
        inputs={"scores": given([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, 1.0, 1.0]])},
        note="People expect another index of equal ones: it is the first on both "
        "sides on the CPU, which PyTorch does not promise.",
    ),
    Row(
        "metrics.argmax_nan",
        "argmax where a score is NaN",
        "metrics",
        "other meaning",
        keras="tf.argmax(scores / scores, axis=1), tf.argmax(scores, axis=1)",
        torch="def argmax(values):\n"
        "    return values.masked_fill(values.isnan(), -torch.inf).argmax(1)\n"
        "argmax(scores / scores), argmax(scores)",
        naive_torch="(scores / scores).argmax(1), scores.argmax(1)",
        symptom="a network that gives NaN is right about other samples: PyTorch takes "
        "the NaN for the largest, TensorFlow passes over it",
        fix="mask NaN before argmax, or better stop",
        operations=("accuracy",),
        # 0 / 0 is where NaN comes from.
        inputs={"scores": given([[1.0, 0.0, 3.0], [0.0, 2.0, 1.0], [1.0, 2.0, 0.0]])},
    ),
    Row(
        "metrics.auc",
        "the area under the ROC curve",
        "metrics",
        "missing on one side",
        keras="scores = 0.01 * scores ** (8.0 - 4.0 * keras.ops.cast(labels, dtype))\n"
        "ordered = np.sort(scores)\n"
        "thresholds = (ordered[1:] + ordered[:-1]) / 2\n"
        "keras.metrics.AUC(thresholds=thresholds.tolist())(labels, scores)",
        torch="scores = 0.01 * scores ** (8 - 4 * labels)\n"
        "positive, negative = scores[labels == 1], scores[labels == 0]\n"
        "(positive[:, None] > negative).to(scores.dtype).mean()",
        naive_keras="scores = 0.01 * scores ** (8.0 - 4.0 * keras.ops.cast(labels, "
        "dtype))\n"
        "keras.metrics.AUC()(labels, scores)",
        symptom="too low, far too low where the scores crowd together near 0 or 1",
        fix="thresholds between the scores themselves: the default is an even grid of "
        "200 from 0 to 1",
        inputs={
            "scores": Input((300,), values="uniform"),
            "labels": integers(300, below=2),
        },
    ),
    Row(
        "metrics.confusion_matrix",
        "how often which class was taken for which",
        "metrics",
        "missing on one side",
        keras="tf.math.confusion_matrix(labels, predictions, num_classes=4)",
        torch="torch.bincount(4 * labels + predictions, minlength=16).view(4, 4)",
        inputs={
            "labels": integers(50, below=4),
            "predictions": integers(50, below=4),
        },
        note="Rows are the labels, columns the answers.",
    ),
    Row(
        "metrics.precision",
        "precision with several classes",
        "metrics",
        "other default",
        keras="targets = keras.ops.one_hot(labels, 4)\n"
        "probabilities = keras.ops.softmax(scores)\n"
        "values = []\n"
        "for index in range(4):\n"
        "    precision = keras.metrics.Precision(top_k=1, class_id=index)\n"
        "    values.append(precision(targets, probabilities))\n"
        "keras.ops.mean(keras.ops.stack(values))",
        torch="answers = F.one_hot(scores.argmax(1), 4)\n"
        "right = answers * F.one_hot(labels, 4)\n"
        "(right.sum(0) / answers.sum(0)).mean()",
        naive_keras="targets = keras.ops.one_hot(labels, 4)\n"
        "keras.metrics.Precision()(targets, keras.ops.softmax(scores))",
        symptom="only answers above 0.5 count, and all classes in one pot",
        fix="top_k=1 and one metric per class, then the mean; the same for Recall",
        inputs={"scores": array(60, 4), "labels": integers(60, below=4)},
    ),
    Row(
        "metrics.f1",
        "the F1 score",
        "metrics",
        "missing on one side",
        keras="targets = keras.ops.one_hot(labels, 4)\n"
        "keras.metrics.F1Score(average='macro')(targets, keras.ops.softmax(scores))",
        torch="answers = F.one_hot(scores.argmax(1), 4)\n"
        "targets = F.one_hot(labels, 4)\n"
        "right = (answers * targets).sum(0)\n"
        "(2 * right / (answers.sum(0) + targets.sum(0))).mean()",
        inputs={"scores": array(60, 4), "labels": integers(60, below=4)},
        note="Without average the metric gives one number per class. It adds a small "
        "epsilon to what it divides by.",
        dtypes=("float32",),
    ),
)
