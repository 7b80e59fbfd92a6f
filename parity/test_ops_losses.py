"""Rung 2: losses and metrics by TensorFlow, PyTorch, NumPy and ONNX Runtime agree."""

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import special

from parity.frameworks import keras, torch
from keras_impl import ops as keras_ops
from parity import ops_cases
from parity.ops_cases import (
    assert_equal,
    assert_float32,
    assert_same,
    check_refused,
    count,
    draw,
    each_case,
    run,
)
from parity.spec import metrics
from parity.spec.tolerances import relative_error
from parity.witnesses import assert_onnx
from torch_impl import ops as torch_ops

print_counts = ops_cases.print_counts
counts = st.integers(1, 7)
classes = st.integers(2, 9)
smoothings = st.sampled_from([0.0, 0.125, 0.25, 1.0])
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


def probabilities(logits):
    return special.softmax(logits, 1).astype(np.float32).astype(float)


def draw_labels(count, classes, seed=3):
    return np.random.default_rng(seed).integers(0, classes, count)


def cross_entropy(logs, targets, smoothing=0.0, weights=None, ignored=None):
    """The mean, image by image from the definition."""
    total, divisor = 0.0, 0.0
    weights = np.ones(logs.shape[1]) if weights is None else weights
    for row, target in zip(logs, targets, strict=True):
        if np.ndim(target) == 0:
            if target == ignored:
                continue
            target = np.eye(len(row))[target]
        smoothed = (1 - smoothing) * target + smoothing / len(row)
        used = smoothed > 0
        total -= np.sum((smoothed * weights)[used] * row[used])
        divisor += np.sum(target * weights)
    return total / divisor


@st.composite
def cross_entropies(draw):
    labels = draw(st.booleans())
    return (
        draw(counts),
        draw(classes),
        labels,
        draw(st.booleans()),
        {
            "label_smoothing": draw(smoothings),
            "class_weights": draw(st.booleans()),
            "ignore_class": draw(st.sampled_from([None, 0, 255])) if labels else None,
        },
    )


@each_case(cross_entropies())
def test_cross_entropy(case):
    count_, classes, labels, from_logits, settings = case
    logits = draw(1, count_, classes) * 4
    predictions = logits if from_logits else probabilities(logits)
    targets = probabilities(draw(2, count_, classes))
    settings = dict(settings, from_logits=from_logits)
    if labels:
        targets = draw_labels(count_, classes)
        if settings["ignore_class"] == 255:
            targets[: count_ // 2] = 255
        if np.all(targets == settings["ignore_class"]):
            settings["ignore_class"] = None
    weights = abs(draw(4, classes)) + 0.5 if settings.pop("class_weights") else None
    settings["class_weights"] = weights
    case = ([predictions, targets], ["array", "array"], settings)
    results = run("cross_entropy", *case)
    assert not count("cross_entropy", results)
    assert_same(*results)
    logs = special.log_softmax(predictions, 1) if from_logits else np.log(predictions)
    smoothing, ignored = settings["label_smoothing"], settings["ignore_class"]
    expected = cross_entropy(logs, targets, smoothing, weights, ignored)
    assert_equal(results[0].output, expected)
    # What is summed is positive, and made of logits; the logarithm has four units.
    largest = expected + np.abs(predictions).max() * (1 if weights is None else 4)
    terms = 4 * (count_ + classes) + 8
    assert_float32("cross_entropy", *case, np.asarray(largest), terms)
    if labels and from_logits and not smoothing:
        assert_onnx(
            results[0].output,
            np.asarray(largest),
            terms,
            "SoftmaxCrossEntropyLoss",
            predictions,
            targets,
            *([] if weights is None else [weights]),
            **({} if ignored is None else {"ignore_index": ignored}),
        )


@each_case(st.tuples(counts, classes, st.booleans(), smoothings, st.booleans()))
def test_cross_entropy_of_labels_is_that_of_torch(case):
    count_, classes, weighted, smoothing, ignored = case
    logits, labels = draw(1, count_, classes) * 4, draw_labels(count_, classes)
    ignored = int(labels[0]) if ignored and len(set(labels)) > 1 else None
    weights = abs(draw(4, classes)) + 0.5 if weighted else None
    settings = {"label_smoothing": smoothing, "class_weights": weights}
    ours = keras_ops.cross_entropy(logits, labels, ignore_class=ignored, **settings)
    module = torch.nn.CrossEntropyLoss(
        None if weights is None else torch.tensor(weights),
        ignore_index=-100 if ignored is None else ignored,
        label_smoothing=smoothing,
    )
    assert_equal(module(torch.tensor(logits), torch.tensor(labels)), ours)


def test_losses_of_keras():
    logits, labels = draw(1, 5, 4) * 4, draw_labels(5, 4)
    one_hot, weights = np.eye(4)[labels], abs(draw(4, 4)) + 0.5
    losses, settings = keras.losses, {"from_logits": True, "dtype": "float64"}
    loss = losses.SparseCategoricalCrossentropy(**settings)
    assert_equal(loss(labels, logits), keras_ops.cross_entropy(logits, labels))
    loss = losses.SparseCategoricalCrossentropy(ignore_class=int(labels[0]), **settings)
    ignored = keras_ops.cross_entropy(logits, labels, ignore_class=int(labels[0]))
    assert_equal(loss(labels, logits), ignored)
    mean = losses.SparseCategoricalCrossentropy(
        reduction="mean_with_sample_weight", **settings
    )
    weighted = keras_ops.cross_entropy(logits, labels, class_weights=weights)
    assert_equal(mean(labels, logits, weights[labels]), weighted)
    loss = losses.CategoricalCrossentropy(label_smoothing=0.25, **settings)
    smoothed = keras_ops.cross_entropy(logits, labels, label_smoothing=0.25)
    assert_equal(loss(one_hot, logits), smoothed)
    loss = losses.CategoricalCrossentropy(dtype="float64")
    predicted = special.softmax(logits / 4, 1)
    value = keras_ops.cross_entropy(predicted, one_hot, from_logits=False)
    assert_equal(loss(one_hot, predicted), value)
    loss = losses.BinaryCrossentropy(label_smoothing=0.25, **settings)
    value = keras_ops.binary_cross_entropy(logits, one_hot, label_smoothing=0.25)
    assert_equal(loss(one_hot, logits), value)
    loss = losses.MeanSquaredError(dtype="float64")
    assert_equal(loss(one_hot, logits), keras_ops.mean_squared_error(logits, one_hot))
    loss = losses.Huber(0.5, dtype="float64")
    assert_equal(loss(one_hot, logits), keras_ops.huber(logits, one_hot, delta=0.5))
    loss = losses.KLDivergence(dtype="float64")
    targets = special.softmax(draw(2, 5, 4), 1)
    value = keras_ops.kl_divergence(predicted, targets)
    assert_equal(loss(targets, predicted), value)


def test_losses_of_torch():
    logits, nn = torch.tensor(draw(1, 5, 4) * 4), torch.nn
    targets = torch.tensor(special.softmax(draw(2, 5, 4), 1))
    predicted = (logits / 4).softmax(1)
    for value, expected in (
        (nn.CrossEntropyLoss()(logits, targets), ("cross_entropy", logits, {})),
        (
            nn.CrossEntropyLoss(label_smoothing=0.25)(logits, targets),
            ("cross_entropy", logits, {"label_smoothing": 0.25}),
        ),
        (
            nn.BCEWithLogitsLoss()(logits, targets),
            ("binary_cross_entropy", logits, {}),
        ),
        (
            nn.BCELoss()(predicted, targets),
            ("binary_cross_entropy", predicted, {"from_logits": False}),
        ),
        (nn.MSELoss()(logits, targets), ("mean_squared_error", logits, {})),
        (nn.HuberLoss(delta=0.5)(logits, targets), ("huber", logits, {"delta": 0.5})),
        (
            nn.KLDivLoss(reduction="batchmean")(predicted.log(), targets),
            ("kl_divergence", predicted, {}),
        ),
    ):
        name, predictions, settings = expected
        assert_equal(value, getattr(torch_ops, name)(predictions, targets, **settings))
    labels = targets.argmax(1)
    loss = nn.NLLLoss()(predicted.log(), labels)
    value = torch_ops.cross_entropy(predicted, labels, from_logits=False)
    assert_equal(loss, value)


@each_case(st.tuples(shapes, st.booleans(), st.booleans(), smoothings))
def test_binary_cross_entropy(case):
    shape, from_logits, hard, smoothing = case
    logits, targets = draw(1, *shape) * 4, special.expit(draw(2, *shape))
    targets = (targets > 0.5).astype(float) if hard else single(targets)
    predictions = logits if from_logits else single(special.expit(logits))
    settings = {"from_logits": from_logits, "label_smoothing": smoothing}
    case = ([predictions, targets], ["array", "array"], settings)
    results = run("binary_cross_entropy", *case)
    assert not count("binary_cross_entropy", results)
    assert_same(*results)
    targets = (1 - smoothing) * targets + smoothing / 2
    predicted = special.expit(predictions) if from_logits else predictions
    losses = -special.xlogy(targets, predicted)
    losses -= special.xlogy(1 - targets, 1 - predicted)
    assert_equal(results[0].output, losses.mean())
    largest = losses.mean() + abs(logits).max() + 1
    terms = 8 + targets.size
    assert_float32("binary_cross_entropy", *case, np.asarray(largest), terms)


def single(values):
    return values.astype(np.float32).astype(float)


@each_case(st.tuples(shapes, st.sampled_from([None, 0.25, 1.0, 3.0])))
def test_mean_squared_error_and_huber(case):
    shape, delta = case
    predictions, targets = draw(1, *shape) * 2, draw(2, *shape)
    name, settings = (
        ("huber", {"delta": delta}) if delta else ("mean_squared_error", {})
    )
    case = ([predictions, targets], ["array", "array"], settings)
    results = run(name, *case)
    assert not count(name, results)
    assert_same(*results)
    errors = predictions - targets
    losses = special.huber(delta, errors) if delta else errors**2
    assert_equal(results[0].output, losses.mean())
    largest = np.mean((abs(predictions) + abs(targets) + (delta or 0)) ** 2)
    assert_float32(name, *case, np.asarray(largest), targets.size + 6)


@each_case(st.tuples(counts, classes, st.booleans()))
def test_kl_divergence(case):
    count_, classes, hard = case
    predicted, targets = (probabilities(draw(seed, count_, classes)) for seed in (1, 2))
    if hard:
        targets = np.eye(classes)[draw_labels(count_, classes)]
    case = ([predicted, targets], ["array", "array"], {})
    results = run("kl_divergence", *case)
    assert not count("kl_divergence", results)
    assert_same(*results)
    expected = special.rel_entr(targets, predicted).sum(1).mean()
    assert_equal(results[0].output, expected)
    logs = special.entr(targets) - special.xlogy(targets, predicted)
    largest = np.abs(logs).sum(1).mean() + 1
    terms = 8 + classes + count_
    assert_float32("kl_divergence", *case, np.asarray(largest), terms)


@each_case(st.tuples(counts, classes, st.integers(1, 9), st.booleans()))
def test_accuracy_and_top_k_accuracy(case):
    count_, classes, k, ties = case
    predictions, labels = draw(1, count_, classes), draw_labels(count_, classes)
    predictions = predictions.round() if ties else predictions
    arrays, layouts = [predictions, labels], ["array", "array"]
    results = run("accuracy", arrays, layouts)
    assert not count("accuracy", results)
    assert_same(*results)
    assert results[0].output == metrics.accuracy(predictions, labels)
    results = run("top_k_accuracy", arrays, layouts, {"k": k})
    assert count("top_k_accuracy", results) == (k > classes)
    if k > classes:
        return
    assert_same(*results)
    likeliest = np.argsort(-predictions, 1, kind="stable")[:, :k]
    assert results[0].output == np.mean((likeliest == labels[:, None]).any(1))
    if k == 5:
        assert results[0].output == metrics.top5_accuracy(predictions, labels)


def test_metrics_of_keras():
    predictions, labels = draw(1, 50, 9), draw_labels(50, 9)
    for metric, value in (
        (
            keras.metrics.SparseCategoricalAccuracy(),
            keras_ops.accuracy(predictions, labels),
        ),
        (
            keras.metrics.SparseTopKCategoricalAccuracy(3),
            keras_ops.top_k_accuracy(predictions, labels, k=3),
        ),
    ):
        metric.update_state(labels, predictions.astype(np.float32))
        assert relative_error(metric.result(), value) < 1e-6  # it counts in float32
    equal = np.zeros((10, 10))
    metric = keras.metrics.SparseTopKCategoricalAccuracy(3)
    metric.update_state(np.arange(10), equal.astype(np.float32))
    assert metric.result() == 1
    assert_equal(keras_ops.top_k_accuracy(equal, np.arange(10), k=3), 0.3)


@pytest.mark.parametrize("side", [keras_ops, torch_ops])
def test_certain_probabilities(side):
    certain, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    assert float(side.cross_entropy(certain, labels, from_logits=False)) == 0
    assert float(side.binary_cross_entropy(certain, certain, from_logits=False)) == 0
    assert float(side.kl_divergence(certain, certain)) == 0
    wrong = labels[::-1].copy()
    assert float(side.cross_entropy(certain, wrong, from_logits=False)) == np.inf
    logits = np.array([[0.0, -np.inf], [3.0, 1.0]])  # a class that is ruled out
    assert np.isfinite(float(side.cross_entropy(logits, np.array([0, 0]))))


def test_the_gradients_of_certain_probabilities():
    certain, labels = np.array([[1.0, 0.0], [0.25, 0.75]]), np.array([0, 1])
    arrays, kinds = [certain, labels], ["array", "array"]
    results = run("cross_entropy", arrays, kinds, {"from_logits": False})
    assert_same(*results)
    assert np.isfinite(results[0].gradients[0]).all()
    arrays = [certain, np.eye(2)]
    results = run("binary_cross_entropy", arrays, kinds, {"from_logits": False})
    assert_same(*results)
    assert np.isfinite(results[0].gradients[0]).all()


LOGITS, LABELS = draw(1, 5, 4) * 4, draw_labels(5, 4)
WEIGHTS = np.array([0.5, 1.0, 2.0, 4.0])


def test_images_that_are_all_ignored_have_no_mean():
    arrays = [LOGITS, np.full(5, 3)]
    results = run("cross_entropy", arrays, ["array", "array"], {"ignore_class": 3})
    assert all(np.isnan(side.output) for side in results)


def torch_loss(logits, labels, **settings):
    return torch.nn.functional.cross_entropy(logits, labels, **settings)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, lambda x, y, w: torch_loss(x.softmax(1), y)),  # softmax twice
        ({}, lambda x, y, w: torch_loss(x, y, reduction="sum")),
        ({}, lambda x, y, w: torch.nn.functional.nll_loss(x, y)),  # no softmax
        ({}, lambda x, y, w: torch_loss(x, y, label_smoothing=0.1)),
        (
            {"class_weights": WEIGHTS},  # by the count
            lambda x, y, w: (torch_loss(x, y, reduction="none") * w[y]).mean(),
        ),
        (
            {"class_weights": WEIGHTS},  # by the count, as of probabilities
            lambda x, y, w: torch_loss(x, torch.eye(4, dtype=x.dtype)[y], weight=w),
        ),
        (
            {"ignore_class": int(LABELS[0])},  # by the count
            lambda x, y, w: (
                torch_loss(x, y, ignore_index=int(LABELS[0]), reduction="sum") / 5
            ),
        ),
        (
            {"label_smoothing": 0.1},  # to the other classes alone
            lambda x, y, w: torch_loss(
                x, 0.1 / 3 + (0.9 - 0.1 / 3) * torch.eye(4, dtype=x.dtype)[y]
            ),
        ),
    ],
)
def test_a_fault_in_cross_entropy_is_seen(settings, fault):
    right = keras_ops.cross_entropy(LOGITS, LABELS, **settings)
    wrong = fault(*map(torch.tensor, (LOGITS, LABELS, WEIGHTS)))
    assert relative_error(wrong, right) > 1e-3


def test_other_faults_are_seen():
    logits, targets = torch.tensor(LOGITS), torch.tensor(draw(2, 5, 4)).softmax(1)
    predicted, given = logits.softmax(1), targets.numpy()
    functional = torch.nn.functional
    for right, wrong in (
        (
            keras_ops.binary_cross_entropy(LOGITS, given),
            functional.binary_cross_entropy_with_logits(logits.sigmoid(), targets),
        ),
        (
            keras_ops.binary_cross_entropy(LOGITS, given, label_smoothing=0.2),
            functional.binary_cross_entropy_with_logits(logits, targets * 0.8),
        ),
        (
            keras_ops.mean_squared_error(LOGITS, given),
            ((logits - targets) ** 2).sum(1).mean(),
        ),
        (
            keras_ops.huber(LOGITS, given, delta=0.5),
            functional.smooth_l1_loss(logits, targets, beta=0.5),  # huber / delta
        ),
        (
            keras_ops.kl_divergence(predicted.numpy(), given),
            torch.nn.functional.kl_div(predicted.log(), targets, reduction="sum"),
        ),
        (
            keras_ops.kl_divergence(predicted.numpy(), given),
            functional.kl_div(targets.log(), predicted, reduction="batchmean"),
        ),
        (keras_ops.accuracy(LOGITS, LABELS), (logits.argmin(1) == 0).double().mean()),
    ):
        assert relative_error(wrong, right) > 1e-3


@pytest.mark.parametrize(
    ("name", "arrays", "settings", "message"),
    [
        (
            "cross_entropy",
            [LOGITS, LABELS + 1],
            {},
            f"label {max(LABELS) + 1} is not an integer from 0 to 3",
        ),
        (
            "cross_entropy",
            [LOGITS, LABELS[:4]],
            {},
            "shape of targets (4,) is not (5,) or (5, 4)",
        ),
        (
            "cross_entropy",
            [LOGITS, LABELS],
            {"label_smoothing": 2},
            "label_smoothing 2 is not from 0 to 1",
        ),
        (
            "cross_entropy",
            [LOGITS, LABELS],
            {"class_weights": WEIGHTS[:3]},
            "shape of class_weights (3,) is not (4,)",
        ),
        (
            "cross_entropy",
            [LOGITS, np.eye(4)[LABELS]],
            {"ignore_class": 1},
            "ignore_class 1 is not for probabilities",
        ),
        (
            "binary_cross_entropy",
            [LOGITS, LOGITS[0]],
            {},
            "shape of targets (4,) is not (5, 4)",
        ),
        (
            "binary_cross_entropy",
            [LOGITS, LOGITS],
            {"label_smoothing": -1},
            "label_smoothing -1 is not from 0 to 1",
        ),
        (
            "mean_squared_error",
            [LOGITS, LOGITS[:, 0]],
            {},
            "shape of targets (5,) is not (5, 4)",
        ),
        ("huber", [LOGITS, LOGITS], {"delta": 0}, "delta 0 is not more than 0"),
        (
            "kl_divergence",
            [LOGITS, LOGITS[:, :2]],
            {},
            "shape of targets (5, 2) is not (5, 4)",
        ),
        (
            "accuracy",
            [LOGITS, LABELS - 4],
            {},
            f"label {LABELS[0] - 4} is not an integer from 0 to 3",
        ),
        (
            "top_k_accuracy",
            [LOGITS, LABELS],
            {"k": 5},
            "k 5 is not an integer from 1 to 4",
        ),
        (
            "top_k_accuracy",
            [LOGITS, LABELS[:2]],
            {"k": 2},
            "shape of labels (2,) is not (5,)",
        ),
    ],
)
def test_wrong_arguments_are_the_same_line(name, arrays, settings, message):
    check_refused(name, message, arrays, ["array", "array"], settings)


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        ([255, 1], {"ignore_class": 255}),
        ([0, 1], {"class_weights": np.array([0.0, 1.0, 1.0])}),
    ],
)
def test_an_impossible_image_that_does_not_count(labels, settings):
    probabilities = np.array([[0.0, 0.5, 0.5], [0.2, 0.3, 0.5]])
    results = run(
        "cross_entropy",
        [probabilities, np.array(labels)],
        ["array", "array"],
        settings | {"from_logits": False},
        output="array",
    )
    assert_same(*results)
    assert_equal(results[0].output, -np.log(0.3))
