"""Weights from every format to every format and back."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.frameworks import keras, torch
from keras_impl import create_model as create_keras_model
from keras_impl.models import lenet
from parity.conftest import make_twins
from parity.spec import files, recipes
from parity.spec.errors import UsageError
from parity.weights import SUFFIXES, read_weights
from torch_impl import create_model as create_torch_model
from torch_impl import weights as torch_weights

SHAPE = recipes.shape(recipes.find("lenet5"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """The same weights in every format, each written by its framework's own means."""
    folder = tmp_path_factory.mktemp("sources")
    paths = {suffix: folder / f"a{suffix}" for suffix in SUFFIXES}
    keras_model, torch_model = make_twins("lenet5", image_size=28)
    keras_model.save_weights(paths[".weights.h5"])
    keras_model.save(paths[".keras"])
    torch.save(torch_model.state_dict(), paths[".pt"])
    torch.save(torch_model.state_dict(), paths[".pth"])
    tensors = torch_weights.state_dict(torch_model)
    files.save_weights(paths[".safetensors"], tensors, {})
    return paths


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product(SUFFIXES, SUFFIXES))
)
def test_every_format_to_every_format(source, target, sources, tmp_path):
    path = tmp_path / f"b{target}"
    rows = parity.convert("lenet5", sources[source], path, SHAPE)
    assert len(rows) == 10
    expected, _ = files.load_weights(sources[".safetensors"])
    found, _ = read_weights("lenet5", path, SHAPE)
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_the_frameworks_load_what_was_converted(sources, tmp_path):
    images = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    parity.convert("lenet5", sources[".keras"], tmp_path / "a.pt", SHAPE)
    torch_model = create_torch_model("lenet5")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    torch_model.load_state_dict(state, strict=True)
    parity.convert("lenet5", sources[".pt"], tmp_path / "a.weights.h5", SHAPE)
    keras_model = create_keras_model("lenet5")
    keras_model.load_weights(tmp_path / "a.weights.h5")
    parity.assert_parity(keras_model, torch_model, images)
    parity.convert("lenet5", sources[".pt"], tmp_path / "a.keras", SHAPE)
    whole = keras.models.load_model(tmp_path / "a.keras")
    parity.assert_parity(whole, torch_model, images)


@pytest.mark.parametrize("source", SUFFIXES)
def test_a_truncated_file_leaves_the_target_alone(source, sources, tmp_path):
    broken, target = tmp_path / f"broken{source}", tmp_path / "b.safetensors"
    broken.write_bytes(sources[source].read_bytes()[:3000])
    target.write_text("old")
    with pytest.raises(UsageError, match="broken") as raised:
        parity.convert("lenet5", broken, target, SHAPE)
    assert "\n" not in str(raised.value)
    assert target.read_text() == "old"


@pytest.mark.parametrize("source", SUFFIXES)
def test_a_file_of_another_network(source, sources, tmp_path):
    shape = recipes.shape(recipes.find("lenet5_1998"))
    with pytest.raises(parity.WeightMismatch, match="does not fit"):
        parity.convert("lenet5_1998", sources[source], tmp_path / "b.pt", shape)
    assert not (tmp_path / "b.pt").exists()


def test_a_tensor_that_keras_leaves_unread_is_an_error(tmp_path):
    class More(lenet.LeNet5):
        def __init__(self):
            super().__init__()
            self.extra = keras.layers.Dense(7)

        def call(self, images):
            return super().call(images) + self.extra(images[:, 0, :3, 0])[:, :1]

    model = More()
    model(keras.Input((28, 28, 1)))
    model.save_weights(tmp_path / "more.weights.h5")
    with pytest.raises(parity.WeightMismatch, match="it holds 12 tensors, not 10"):
        parity.convert("lenet5", tmp_path / "more.weights.h5", tmp_path / "b.pt", SHAPE)


def test_a_saved_model_of_other_arguments(tmp_path):
    """Keras 3.15 forgets the arguments of a subclass; ours are kept."""
    model = create_keras_model("cnn_dropout", num_classes=3, cdims=(4, 5), hdims=(6,))
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        assert np.array_equal(ours.numpy(), theirs.numpy())
    shape = recipes.shape(recipes.find("lenet5"), num_classes=3)
    create_keras_model("lenet5", num_classes=3).save(tmp_path / "b.keras")
    parity.convert("lenet5", tmp_path / "b.keras", tmp_path / "b.pt", shape)


def test_a_mismatch_of_many_tensors_is_cut_short(tmp_path):
    torch.save(create_torch_model("resnet18").state_dict(), tmp_path / "a.pt")
    with pytest.raises(parity.WeightMismatch, match=r"and \d\d\d more$") as raised:
        parity.convert("lenet5", tmp_path / "a.pt", tmp_path / "b.pt", SHAPE)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_precisions_become_float32(dtype, tmp_path):
    model = create_torch_model("lenet5").to(getattr(torch, dtype))
    torch.save(dict(model.named_parameters()), tmp_path / "a.pt")
    for target in ("b.safetensors", "b.pt"):
        parity.convert("lenet5", tmp_path / "a.pt", tmp_path / target, SHAPE)
        tensors, _ = read_weights("lenet5", tmp_path / target, SHAPE)
        assert {array.dtype for array in tensors.values()} == {np.dtype("float32")}
        expected = model.fc2.weight.detach().float().numpy()
        assert np.array_equal(tensors["fc2.weight"], expected)


def test_what_is_refused(sources, tmp_path):
    with pytest.raises(UsageError, match="no known suffix; choose from .safetensors"):
        parity.convert("lenet5", sources[".pt"], tmp_path / "b.onnx", SHAPE)
    with pytest.raises(UsageError, match="no such weights file: none.pt"):
        parity.convert("lenet5", Path("none.pt"), tmp_path / "b.keras", SHAPE)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({1: torch.ones(1)}, tmp_path / "numbers.pt")
    for name in ("list.pt", "numbers.pt"):
        with pytest.raises(UsageError, match="is no state_dict: it is not a dict"):
            parity.convert("lenet5", tmp_path / name, tmp_path / "b.keras", SHAPE)
