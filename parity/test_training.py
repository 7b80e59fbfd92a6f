"""Rung 9: float32 losses within rounding, and equivalent accuracies over five seeds."""

import numpy as np
import pytest

import parity
from parity.frameworks import tf, torch
from keras_impl import create_model as create_keras_model
from parity.conftest import make_twins
from parity.equivalence import compare_accuracies, paired_equivalence
from parity.spec import runs
from parity.spec.errors import UsageError
from parity.test_optimizer import RATES, batches
from torch_impl import create_model as create_torch_model


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param("sgd", marks=pytest.mark.slow),
        pytest.param("momentum", marks=pytest.mark.slow),
        "adam",
    ],
)
def test_the_first_twenty_losses_in_float32(optimizer, device):
    keras_model, torch_model = (
        create_keras_model("lenet5"),
        create_torch_model("lenet5", seed=0),
    )
    parity.copy_weights(torch_model, keras_model)
    report = parity.lockstep(
        keras_model,
        torch_model,
        *batches(20),
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
        dtype="float32",
        device=device,
    )
    assert report.verdict in ("equal", "rounding"), report
    assert len(report.steps) == 20


def test_rough_arithmetic_on_one_side_is_found():
    keras_model, torch_model = make_twins("lenet5", image_size=28)
    dense = torch_model.fc1.forward

    def rough(x):
        return dense(x.bfloat16().float()) if x.dtype == torch.float32 else dense(x)

    torch_model.fc1.forward = rough
    report = parity.lockstep(keras_model, torch_model, *batches(3), dtype="float32")
    assert report.verdict == "different"
    assert report.first_divergence.culprit == "loss"


def test_rough_arithmetic_on_both_sides_is_found():
    """Two sides that agree with each other may both be wrong."""
    keras_model, torch_model = make_twins("lenet5", image_size=28)

    dense, keras_dense = torch_model.fc1.forward, keras_model.fc1.call

    def torch_rough(x):
        return dense(x.bfloat16().float()) if x.dtype == torch.float32 else dense(x)

    def keras_rough(x, **_):
        x = tf.cast(tf.cast(x, "bfloat16"), x.dtype) if x.dtype == "float32" else x
        return keras_dense(x)

    torch_model.fc1.forward = torch_rough
    object.__setattr__(keras_model.fc1, "call", keras_rough)
    report = parity.lockstep(keras_model, torch_model, *batches(1), dtype="float32")
    step = report.first_divergence
    assert step.culprit == "loss"
    assert step.errors["loss"] < step.bounds["loss"]


def test_a_wrong_gradient_in_float32_is_found():
    keras_model, torch_model = make_twins("lenet5", image_size=28)
    torch_model.fc1.weight.register_hook(lambda gradient: 3 * gradient)
    report = parity.lockstep(keras_model, torch_model, *batches(1), dtype="float32")
    assert report.first_divergence.culprit == "gradients of fc1.weight"


def test_a_frozen_layer_on_one_side_in_float32_is_found():
    keras_model, torch_model = make_twins("lenet5", image_size=28)
    keras_model.fc2.trainable = False
    report = parity.lockstep(keras_model, torch_model, *batches(1), dtype="float32")
    assert report.first_divergence.culprit == "gradients of fc2.bias"


def test_accuracies_that_differ_after_equal_steps_are_found():
    keras_model, torch_model = make_twins("lenet5", image_size=28)
    ours, theirs = batches(1)
    (images, labels), (torch_images, torch_labels) = ours[0], theirs[0]
    report = parity.lockstep(
        keras_model,
        torch_model,
        ours,
        theirs,
        keras_test=(images, labels),
        torch_test=(torch_images, (torch_labels + 1) % 10),
    )
    assert {step.verdict for step in report.steps} == {"equal"}
    assert report.verdict == "different"


@pytest.mark.slow
def test_accuracies_over_five_seeds_are_equivalent(device):
    result = compare_accuracies(runs.options("lenet5", device=device), seeds=5)
    assert result.equivalent, result
    assert min(result.keras_accuracies + result.torch_accuracies) > 0.97, result


def test_accuracies_that_differ_are_not_equivalent():
    accuracies = [0.981, 0.975, 0.978, 0.983, 0.972]
    worse = [0.967, 0.966, 0.963, 0.969, 0.961]
    assert not paired_equivalence(accuracies, worse).equivalent
    assert not paired_equivalence(worse, accuracies).equivalent


def test_accuracies_that_scatter_are_not_shown_to_be_equivalent():
    accuracies = np.array([0.981, 0.975, 0.978, 0.983, 0.972])
    scattered = accuracies + [0.03, -0.03, 0.02, -0.02, 0.0]
    assert abs(accuracies.mean() - scattered.mean()) < 1e-9
    assert not paired_equivalence(accuracies, scattered).equivalent


def test_accuracies_without_variance():
    same = paired_equivalence([0.98] * 5, [0.98] * 5)
    assert same.equivalent
    assert not paired_equivalence([0.98] * 5, [0.96] * 5).equivalent


def test_one_seed_proves_nothing():
    with pytest.raises(UsageError, match="one seed proves nothing"):
        paired_equivalence([0.98], [0.98])
