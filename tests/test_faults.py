"""Each faulty pair really differs and each equal one is equal.

Judged by plain runs in float64, without anything of the diagnosis: outputs; loss and
gradients; what three steps of both loops make of the weights. The models' parameters
have different names and layouts, so that their norms are compared, sorted.
"""

import numpy as np
import pytest

from parity.frameworks import keras, tf, torch
from parity import faults
from parity.faults.gates import verdicts
from parity.precision import keras_as, torch_as
from parity.score import sample
from parity.spec.tolerances import relative_error

CASES = {case.name: case for case in faults.cases()}
# Every other cause once, without our deep networks; and some equal pairs.
CHEAP = sample(list(CASES.values()), 130)[::2]
CHEAP = [x.name for x in CHEAP if x.network not in ("ours-resnet18", "ours-googlenet")]


@pytest.fixture(autouse=True)
def response_in_float64(monkeypatch):
    """TensorFlow's local response normalisation knows no float64."""

    def normalise(x, depth_radius, bias, alpha, beta):
        radius, count = depth_radius, x.shape[-1]
        squares = tf.pad(x * x, [(0, 0)] * 3 + [(radius, radius)])
        total = sum(squares[..., i : i + count] for i in range(2 * radius + 1))
        return x / (bias + alpha * total) ** beta

    monkeypatch.setattr(tf.nn, "local_response_normalization", normalise)


def both_images(pair):
    images = pair.images
    if not isinstance(images, tuple):
        images = (images, images.transpose(0, 3, 1, 2))
    ours, theirs = (np.array(x, "float64") for x in images)
    return tf.constant(ours), torch.from_numpy(theirs)


def outputs_differ(pair) -> float:
    ours, theirs = both_images(pair)
    with keras_as(pair.keras_model, "float64", "cpu") as model:
        ours = np.array(model(ours, training=False))
    with torch_as(pair.torch_model, "float64", "cpu") as model, torch.no_grad():
        theirs = model(theirs).numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    return relative_error(theirs, ours)


def keras_loss(pair, labels, outputs):
    loss = pair.arguments.get("keras_loss")
    if loss is None:
        losses = keras.losses.sparse_categorical_crossentropy
        return tf.reduce_mean(losses(labels, outputs, from_logits=True))
    if isinstance(loss, keras.losses.Loss):
        loss._dtype = "float64"
    return tf.reduce_sum(loss(labels, outputs))


def torch_loss(pair, outputs, labels):
    loss = pair.arguments.get("torch_loss") or torch.nn.CrossEntropyLoss()
    if isinstance(loss, torch.nn.Module):
        loss = loss.double()
    return loss(outputs, labels)


def keras_gradients(pair, model, images, labels, training):
    values = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = keras_loss(pair, labels, model(images, training=training))
        loss = sum(model.losses, loss)
    gradients = tape.gradient(loss, values)
    return loss, [
        tf.zeros_like(v) if g is None else g
        for g, v in zip(gradients, values, strict=True)
    ]


def norms(arrays) -> np.ndarray:
    return np.array(sorted(float(np.linalg.norm(x)) for x in arrays))


def gradients_differ(pair) -> float:
    ours, theirs = both_images(pair)
    with keras_as(pair.keras_model, "float64", "cpu") as model:
        loss, gradients = keras_gradients(pair, model, ours, pair.labels, False)
        ours = np.array([float(loss), *norms(gradients)])
    with torch_as(pair.torch_model, "float64", "cpu") as model:
        loss = torch_loss(pair, model(theirs), torch.from_numpy(pair.labels))
        loss.backward()
        kept = [x for x in model.parameters() if x.requires_grad]
        kept = [np.zeros(1) if x.grad is None else x.grad.numpy() for x in kept]
        theirs = np.array([loss.item(), *norms(kept)])
    return relative_error(theirs, ours, 1e-3)


def keras_optimizer(pair):
    """Returns the optimizer with the numbers that were written, in float64."""
    optimizer = pair.arguments["keras_optimizer"]
    config = optimizer.get_config()
    rate = config["learning_rate"]
    if not isinstance(rate, dict):
        config["learning_rate"] = float(f"{rate:.6g}")
    return type(optimizer).from_config(config)


def keras_steps(pair, images, steps) -> np.ndarray:
    with keras_as(pair.keras_model, "float64", "cpu") as model:
        optimizer = keras_optimizer(pair)
        before = [np.array(variable.value) for variable in model.variables]
        optimizer.build(model.trainable_variables)
        for _ in range(steps):
            _, gradients = keras_gradients(pair, model, images, pair.labels, True)
            optimizer.apply(gradients, model.trainable_variables)
        moved = zip(model.variables, before, strict=True)
        moved = [np.array(x.value) - old for x, old in moved if old.dtype.kind == "f"]
    return norms(moved)


def torch_steps(pair, images, steps) -> np.ndarray:
    arguments, labels = pair.arguments, torch.from_numpy(pair.labels)
    optimizer = arguments["torch_optimizer"]
    scheduler = arguments.get("torch_scheduler")
    with torch_as(pair.torch_model, "float64", "cpu") as model:
        model.train()
        tensors = [x for x in model.state_dict().values() if x.is_floating_point()]
        before = [x.clone() for x in tensors]
        for step in range(1, steps + 1):
            if "torch_step" in arguments:
                arguments["torch_step"](images, labels)
            else:
                optimizer.zero_grad()
                torch_loss(pair, model(images), labels).backward()
                optimizer.step()
            if scheduler and step % arguments.get("steps_per_epoch", 1) == 0:
                scheduler.step()
        moved = [(x - old).numpy() for x, old in zip(tensors, before, strict=True)]
    return norms(moved)


def steps_differ(pair) -> float:
    ours, theirs = both_images(pair)
    steps = pair.arguments.get("steps", 3)
    moved = (torch_steps(pair, theirs, steps), keras_steps(pair, ours, steps))
    return relative_error(*moved)


DIFFERENCES = {
    "forward": outputs_differ,
    "backward": gradients_differ,
    "training": steps_differ,
}


def check(case):
    pair = case.make()
    pair.transfer()
    error = DIFFERENCES[pair.level](pair)
    if pair.expected:
        # Between what is rounding and what is a fault there is room.
        assert error > max(1e-9, 5 * pair.tolerance), error
    else:
        assert error <= pair.tolerance, error
    for expected in pair.expected:
        assert expected.keras_names
        assert expected.torch_names


@pytest.mark.parametrize("name", CHEAP)
def test_a_pair_is_what_it_says(name):
    check(CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in CHEAP])
def test_every_other_pair_is_what_it_says(name):
    check(CASES[name])


def test_there_are_enough_cases():
    cases = list(CASES.values())
    assert sum(case.cause != "equal" for case in cases) >= 300
    assert sum(case.cause == "equal" for case in cases) >= 100
    assert sum(case.cause == "several" for case in cases) >= 30
    assert {case.scale for case in cases} == {0.01, 1.0, 100.0}
    assert len({case.network.removeprefix("ours-") for case in cases}) >= 6


def test_every_cause_is_planted():
    from parity.diagnosis.causes import CAUSES

    planted = {case.cause for case in CASES.values()} - {"several", "equal"}
    assert planted == set(CAUSES) - {"unexplained"}


def test_the_expected_causes_are_known():
    from parity.diagnosis.causes import CAUSES

    for name in CHEAP[::5]:
        for expected in CASES[name].make().expected:
            assert set(expected.causes) <= set(CAUSES)


def test_a_case_is_the_same_every_time():
    case = CASES[CHEAP[0]]
    first, second = case.make(), case.make()
    assert first.expected == second.expected
    for pair in (first, second):
        pair.transfer()
    assert outputs_differ(first) == outputs_differ(second)


def test_the_sample_is_spread_over_the_causes():
    chosen = sample(list(CASES.values()), 120)
    causes = [case.cause for case in chosen]
    assert len(chosen) == len({case.name for case in chosen}) == 120
    assert causes.count("equal") == 30
    assert "several" in causes
    assert len(set(causes)) > 85


def test_gates():
    outputs = np.arange(60, dtype="float32").reshape(3, 20) - 25
    assert not any(verdicts(outputs, outputs).values())
    flipped = outputs[:, ::-1]
    found = verdicts(outputs, flipped)
    assert not found["means 1e-7"]  # the same numbers at other places
    assert found["max 5e-5"] and found["max 1e-4"] and found["cosine"]
    scaled = verdicts(outputs, 2 * outputs)
    assert not scaled["cosine"] and scaled["onnx2tf"]
    small = outputs + np.float32(7e-5)
    assert verdicts(outputs, small) == {
        "means 1e-7": True,
        "max 5e-5": True,
        "max 1e-4": False,
        "cosine": False,
        "onnx2tf": False,
    }
    lost = outputs.copy()
    lost[0, 0] = np.nan
    found = verdicts(outputs, lost)
    assert found["max 1e-4"] and not found["max 5e-5"]
    assert all(verdicts(outputs, outputs[:2]).values())
