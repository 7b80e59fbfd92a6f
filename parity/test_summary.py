"""The tables of both sides are the same, to the digit."""

from dataclasses import replace

import pytest

from parity.frameworks import torch
from keras_impl.summary import summarize as keras_summarize
from parity import probe
from parity.conftest import MODELS, make_twins, shared_twins
from parity.spec import recipes
from torch_impl.summary import summarize as torch_summarize


def summaries(name: str, plant=None):
    """Returns both sides' summary, with shapes printed channels first."""
    recipe = recipes.find(name)
    shape = recipes.shape(recipe, image_size=probe.image_size(recipe))
    keras_model, torch_model = make_twins(name) if plant else shared_twins(name)
    if plant:
        plant(torch_model)
    ours = keras_summarize(keras_model, shape)
    return replace(ours, channels_last=False), torch_summarize(torch_model, shape)


@pytest.mark.parametrize("name", MODELS)
def test_the_tables_are_equal(name):
    ours, theirs = summaries(name)
    assert ours == theirs
    assert str(ours) == str(theirs)
    assert theirs.parameters == sum(row.parameters for row in theirs.rows) > 0


def test_another_pooling_is_seen():
    def widen(model):
        model.pool1 = torch.nn.MaxPool2d(3, 2, padding=1)

    ours, theirs = summaries("lenet5", widen)
    same = [a.field == b.field for a, b in zip(ours.rows, theirs.rows, strict=True)]
    assert same[:3] == [True, False, False]
