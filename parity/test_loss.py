"""Rung 5: the loss agrees."""

import numpy as np
import pytest

from parity.frameworks import tf, torch
from keras_impl.steps import cross_entropy as keras_cross_entropy
from parity.spec.tolerances import TOLERANCES, relative_error
from torch_impl.steps import cross_entropy as torch_cross_entropy

random = np.random.default_rng(0)
LABELS = random.integers(0, 10, 37)
LOGITS = {
    "near zero": random.standard_normal((37, 10)),
    "confident and right": 50 * np.eye(10)[LABELS],
    "confident and wrong": 50 * np.eye(10)[(LABELS + 1) % 10],
    "huge": 1e4 * random.standard_normal((37, 10)),
}


def losses(logits):
    ours = keras_cross_entropy(tf.constant(logits), LABELS)
    theirs = torch_cross_entropy(torch.from_numpy(logits), torch.from_numpy(LABELS))
    return float(ours), float(theirs)


def expected(logits):
    """The definition, from the largest logit down."""
    shifted = logits - logits.max(1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -logarithms[np.arange(37), LABELS].mean()


@pytest.mark.parametrize("kind", LOGITS)
def test_cross_entropy(kind):
    for loss in losses(LOGITS[kind]):
        assert relative_error(loss, expected(LOGITS[kind])) < TOLERANCES["loss"]


@pytest.mark.parametrize(
    "fault",
    [
        lambda logits: np.exp(logits) / np.exp(logits).sum(1, keepdims=True),
        lambda logits: np.roll(logits, 1, axis=0),
        lambda logits: logits * 1.0001,
    ],
    ids=["softmax twice", "shifted batch", "scaled"],
)
def test_a_wrong_loss_is_seen(fault):
    logits = LOGITS["near zero"]
    _, wrong = losses(fault(logits))
    right, _ = losses(logits)
    assert relative_error(wrong, right) > 100 * TOLERANCES["loss"]
