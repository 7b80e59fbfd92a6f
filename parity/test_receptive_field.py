"""Effective receptive fields agree, fill the theoretical ones, and show a fault."""

import numpy as np
import pytest
from PIL import Image

from parity.frameworks import keras, torch
from parity import __main__ as program
from parity import receptive_field
from parity.spec import files, recipes
from parity.spec.errors import UsageError
from parity.spec.fields import gaussian
from parity.spec.recipes import Shape
from parity.spec.tolerances import TOLERANCES
from parity.weights import copy_weights
from torch_impl import create_model
from torch_impl import weights as torch_weights
from torch_impl.summary import summarize

LENET = recipes.shape(recipes.find("lenet5"))


@pytest.mark.parametrize(
    ("name", "layer", "image_size"),
    [("lenet5", "conv2", None), ("resnet18", "layer1.1.conv2", (64, 68))],
)
def test_both_sides_agree_within_the_theoretical_field(name, layer, image_size):
    shape = recipes.shape(recipes.find(name), image_size=image_size)
    field = receptive_field.model_field(name, layer, shape, images=3)
    assert field.equal
    assert field.error < TOLERANCES["gradients"]
    seen = tuple(map(len, field.support()))
    assert all(map(int.__le__, seen, field.theoretical))
    assert min(seen) > min(field.theoretical) / 2
    assert all(0 < sigma < size for sigma, size in zip(field.sigmas(), seen))  # noqa: B905


def linear_stack() -> tuple[keras.Model, torch.nn.Sequential]:
    """Returns twins of two convolutions with a stride and a dilation."""
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, (3, 5), stride=(2, 1)),
        torch.nn.Conv2d(3, 2, 3, dilation=2),
    )
    layers = [
        keras.Input((31, 33, 2)),
        keras.layers.Conv2D(3, (3, 5), strides=(2, 1)),
        keras.layers.Conv2D(2, 3, dilation_rate=2),
    ]
    ours = keras.Sequential(layers)
    copy_weights(theirs, ours)
    return ours, theirs


def measure(keras_model, torch_model):
    shape = Shape(31, 33, 2, 1)
    row = summarize(torch_model, shape).rows[-1]
    images = receptive_field.random_images(shape, 2, seed=0)
    return receptive_field.measure(
        keras_model, torch_model, "1", images, row.field, "a stack"
    )


def test_a_linear_stack_reaches_the_border_of_its_field():
    field = measure(*linear_stack())
    assert field.equal
    assert field.theoretical == (3 + 4 * 2, 5 + 4)
    assert tuple(map(len, field.support())) == field.theoretical


def shift_kernel(model):
    weight = model[0].weight
    weight.data = weight.data.roll(1, 3)


def shift_padding(model):
    model[0].padding = (1, 0)


def scale_kernel(model):
    model[1].weight.data *= 1 + 1e-6


@pytest.mark.parametrize("plant", [shift_kernel, shift_padding, scale_kernel])
def test_a_fault_is_found(plant):
    keras_model, torch_model = linear_stack()
    plant(torch_model)
    field = measure(keras_model, torch_model)
    assert not field.equal
    assert "different" in str(field)


def test_a_gradient_of_zero_is_an_error():
    keras_model, torch_model = linear_stack()
    for model_weight in torch_model.parameters():
        model_weight.data.zero_()
    copy_weights(torch_model, keras_model)
    with pytest.raises(UsageError, match="a stack has a gradient of 0"):
        measure(keras_model, torch_model)


def test_the_gaussian_fit_recovers_a_gaussian():
    positions = np.arange(41)
    profile = 2.5 * np.exp(-((positions - 19) ** 2) / (2 * 3.0**2))
    assert gaussian(profile) == pytest.approx((2.5, 19, 3), rel=1e-4)
    assert gaussian(np.eye(5)[2])[1:] == (2, 0)


def test_weights_come_from_the_seed_or_from_a_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    model = create_model("lenet5", seed=1)
    files.save_weights(path, torch_weights.state_dict(model), {})

    def measured(**arguments):
        return receptive_field.model_field("lenet5", "conv2", LENET, 2, **arguments)

    of_file, of_seed, of_both = (
        measured(weights=path),
        measured(),
        measured(seed=1, weights=path),
    )
    assert not np.array_equal(of_file.torch_map, of_seed.torch_map)
    assert np.array_equal(of_both.torch_map, measured(seed=1).torch_map)
    assert of_file.equal


def command(*arguments: object) -> int:
    given = program._arguments(["receptive-field", *map(str, arguments)])
    return program._receptive_field(given)


def test_the_stack_is_peaked_and_the_single_one_is_not(tmp_path, capsys):
    assert command("--stacked", "--output", tmp_path / "a" / "stacked.png") == 0
    printed = capsys.readouterr().out
    assert "18 C^2 = 1,179,648 stacked, 25 C^2 = 1,638,400" in printed
    with Image.open(tmp_path / "a" / "stacked.png") as image:
        assert image.size == (1400, 740)
    stack, single = receptive_field.stacked_fields()
    for field in (stack, single):
        assert field.theoretical == tuple(map(len, field.support())) == (5, 5)
    centre = slice(3, 6)
    shares = [
        field.torch_map[centre, centre].sum() / field.torch_map.sum()
        for field in (stack, single)
    ]
    assert shares[0] > 0.45
    assert shares[1] == pytest.approx(9 / 25, abs=0.02)
    assert stack.sigmas() < single.sigmas()


@pytest.mark.parametrize("fault", [False, True])
def test_the_exit_code_and_the_picture(fault, tmp_path, monkeypatch, capsys):
    def copy_wrongly(source, target):
        copy_weights(source, target)
        source.conv1.weight.data = source.conv1.weight.data.roll(1, 2)

    if fault:
        monkeypatch.setattr(receptive_field, "copy_weights", copy_wrongly)
    output = tmp_path / "field.png"
    arguments = ("lenet5", "--layer", "conv2", "--images", 3, "--output", output)
    assert command(*arguments) == int(fault)
    lines = capsys.readouterr().out.splitlines()
    verdict = "different" if fault else "equal"
    assert lines[0].startswith(f"conv2 of lenet5: {verdict}, relative error")
    assert lines[2] == "theoretical field: 14x14 pixels"
    with Image.open(output) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("lenet5", "conv3", "unknown layer 'conv3' of lenet5; did you mean conv2"),
        ("lenet5", "conv3", "`python -m torch_impl.summary lenet5` lists them"),
        ("lenet5", "fc1", "layer 'fc1' of lenet5 gives 120 numbers and no map"),
        ("googlenet_bn", "aux1.conv.conv", "runs in training only"),
    ],
)
def test_a_wrong_layer(name, layer, message, tmp_path):
    output = tmp_path / "field.png"
    with pytest.raises(UsageError, match=message):
        command(name, "--layer", layer, "--image-size", 64, "--output", output)
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "conv1"], "give a MODEL and --layer NAME, or --stacked"),
        (["lenet5", "--stacked"], "give a MODEL and --layer NAME, or --stacked"),
        (["lenet5"], "one of the arguments --layer --stacked is required"),
        (["lenet6", "--layer", "conv1"], "unknown model 'lenet6'; did you mean"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*arguments, "--output", "field.png")
    assert stop.value.code == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert answer.count("\n") == 1
