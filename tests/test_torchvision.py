"""Where torchvision has the network, its checkpoints load and the outputs are its."""

import numpy as np
import pytest

import parity
from parity.frameworks import keras, torch, torchvision
from keras_impl import create_model as create_keras_model
from parity.probe import DEEP
from parity.spec import recipes
from torch_impl import create_model as create_torch_model

THEIRS = {
    "alexnet_owt": "alexnet",
    "googlenet_bn": "googlenet",
    **{name: name for name in recipes.names("resnet*")},
    **{name: name for name in recipes.names("vgg*") if name != "vgg16_conv"},
}


def torchvision_model(name: str, **arguments: object) -> torch.nn.Module:
    """Returns torchvision's model with weights and statistics that show a fault."""
    if name == "googlenet_bn":
        arguments["init_weights"] = False
    model = getattr(torchvision.models, THEIRS[name])(weights=None, **arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith(("bias", "running_mean")):
                tensor.uniform_(-0.2, 0.2, generator=generator)
            elif key.endswith("running_var"):
                tensor.uniform_(0.7, 1.3, generator=generator)
    return model


@pytest.mark.parametrize("name", THEIRS)
def test_the_names_are_torchvisions(name):
    with torch.device("meta"):
        expected = getattr(torchvision.models, THEIRS[name])(
            weights=None, **({"init_weights": False} if name == "googlenet_bn" else {})
        )
        ours = create_torch_model(name)
    assert list(ours.state_dict()) == list(expected.state_dict())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in (*DEEP, "vgg11") else name
        for name in THEIRS
    ],
)
def test_the_outputs_are_torchvisions(name):
    theirs = torchvision_model(name).double().eval()
    ours = create_torch_model(name).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 71, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(images), rtol=1e-12, atol=1e-12)


def test_googlenets_heads_are_torchvisions():
    theirs = torchvision_model("googlenet_bn", num_classes=5).double()
    ours = create_torch_model("googlenet_bn", num_classes=5).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for model in (ours, theirs):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
    images = torch.randn(3, 3, 64, 71, dtype=torch.float64)
    logits, aux1, aux2 = ours(images)
    expected = theirs(images)
    assert torch.allclose(logits, expected.logits, rtol=1e-10)
    assert torch.allclose(aux1, expected.aux_logits1, rtol=1e-10)
    assert torch.allclose(aux2, expected.aux_logits2, rtol=1e-10)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("googlenet_bn", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_torchvision_comes_to_keras(name, tmp_path):
    theirs = torchvision_model(name, num_classes=4)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    shape = recipes.shape(recipes.find(name), num_classes=4, image_size=(64, 71))
    parity.convert(name, tmp_path / "theirs.pth", tmp_path / "ours.keras", shape)
    model = keras.models.load_model(tmp_path / "ours.keras")
    images = np.random.default_rng(0).standard_normal((2, 64, 71, 3)).astype(np.float32)
    ours = create_torch_model(name, **shape.arguments())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    parity.assert_parity(model, ours, images)
    with torch.inference_mode():
        nchw = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
        expected = theirs.eval()(nchw).numpy()
    assert np.allclose(model(images), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "alexnet_owt", "resnet50"])
def test_a_checkpoint_at_its_original_size(name, tmp_path):
    """224 pixels, 1000 classes, through safetensors to Keras, in float64."""
    theirs = torchvision_model(name)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    shape = recipes.shape(recipes.find(name))
    path = tmp_path / "ours.safetensors"
    parity.convert(name, tmp_path / "theirs.pth", path, shape)
    keras_model = create_keras_model(name)
    from keras_impl.weights import load_state_dict
    from parity.spec.files import load_weights

    load_state_dict(keras_model, load_weights(path)[0], str(path))
    ours = create_torch_model(name)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = np.random.default_rng(0).standard_normal((1, 224, 224, 3))
    report = parity.assert_parity(keras_model, ours, images.astype(np.float32))
    assert report.verdict == "equal"
    nchw = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
    with torch.inference_mode():
        expected = theirs.double().eval()(nchw)
        assert torch.allclose(ours.double().eval()(nchw), expected, rtol=1e-12)
