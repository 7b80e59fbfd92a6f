"""The table of layers, against published and hand-computed figures, on either side."""

import subprocess
import sys

import numpy as np
import pytest

import keras_impl.summary
import torch_impl.summary
from parity.frameworks import keras, torch, torchvision
from parity.spec import recipes
from parity.spec.fields import Field
from parity.spec.summary import square

SIDES = {"keras": keras_impl, "torch": torch_impl}
IMAGES = recipes.Shape(height=224, width=224, in_channels=3, num_classes=1000)


def foreign(name: str, **arguments: object):
    """Returns torchvision's own network without weights, and its summary."""
    if name == "googlenet":
        arguments["init_weights"] = False
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **arguments)
    return torch_impl.summary.summarize(model, IMAGES)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18", "resnet50"])
def test_the_totals_are_the_published_ones(name):
    published = torchvision.models.get_model_weights(name).DEFAULT.meta
    summary = foreign(name)
    assert round(summary.multiply_adds() / 1e9, 3) == published["_ops"]
    assert summary.parameters == published["num_params"]


def test_layers_that_only_train_are_counted_apart():
    published = torchvision.models.GoogLeNet_Weights.DEFAULT.meta
    summary = foreign("googlenet")
    assert round(summary.multiply_adds() / 1e9, 3) == published["_ops"]
    heads = [row for row in summary.rows if not row.inference]
    assert {row.name.split(".")[0] for row in heads} == {"aux1", "aux2"}
    added = summary.multiply_adds(training=True) - summary.multiply_adds()
    assert added == sum(row.multiply_adds for row in heads) > 0
    starred = [x.split()[0] for x in str(summary).splitlines() if x.startswith("aux")]
    assert starred == [f"{row.name}*" for row in heads]
    without = foreign("googlenet", aux_logits=False)
    assert without.parameters == published["num_params"]


@pytest.mark.parametrize(
    ("name", "layer", "pixels"),
    [
        ("alexnet", "features.12", 195),
        ("vgg16", "features.30", 212),
        ("vgg16", "avgpool", 212),
        ("vgg16", "classifier.0", 404),
        ("resnet18", "layer4.1.conv2", 435),
        ("resnet50", "layer4.2.conv3", 427),
        ("googlenet", "inception3a.branch1.conv", 27),
        ("googlenet", "inception3b.branch1.conv", 27 + 16),
    ],
)
def test_receptive_fields_of_branching_networks(name, layer, pixels):
    row = next(row for row in foreign(name).rows if row.name == layer)
    assert row.field == (pixels, pixels)


def stacked(side: str, *convolutions: dict[str, int]) -> list[tuple[int, int]]:
    """Returns the fields behind convolutions of one channel."""
    shape = recipes.Shape(64, 64, 1, 1)
    if side == "torch":
        layers = [torch.nn.Conv2d(1, 1, **options) for options in convolutions]
        model = torch.nn.Sequential(*layers)
    else:
        names = {"kernel_size": "kernel_size", "stride": "strides"}
        names["dilation"] = "dilation_rate"
        layers = [
            keras.layers.Conv2D(1, **{names[key]: v for key, v in options.items()})
            for options in convolutions
        ]
        model = keras.Sequential([keras.Input((64, 64, 1)), *layers])
    return [row.field for row in SIDES[side].summary.summarize(model, shape).rows]


@pytest.mark.parametrize("side", SIDES)
def test_receptive_fields_of_stacked_convolutions(side):
    three = {"kernel_size": 3}
    assert stacked(side, three, three) == [(3, 3), (5, 5)]
    assert stacked(side, three | {"dilation": 2}, three) == [(5, 5), (7, 7)]
    assert stacked(side, three | {"stride": 2}, three) == [(3, 3), (7, 7)]
    assert stacked(side, {"kernel_size": (1, 5), "stride": (1, 3)}, three) == [
        (1, 5),
        (3, 11),
    ]


@pytest.mark.parametrize(("size", "units"), [(7, 7), (14, 4), (7, 4), (3, 2), (1, 7)])
def test_the_field_behind_an_adaptive_pooling(size, units):
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    pooled = torch.nn.functional.adaptive_avg_pool2d(image, units)[0, 0, 0]
    seen = [torch.autograd.grad(x, image, retain_graph=True)[0] for x in pooled]
    widest = max(int((gradient.sum((0, 1, 2)) != 0).sum()) for gradient in seen)
    field = Field((1, 1), (1, 1), (size, size)).adaptive((units, units))
    assert field.size == (widest, widest)
    whole = Field(field.size, field.jump, (units, units)).whole()
    assert whole.size == (size, size)


LECTURE = """
    Conv2d 16x26x26 160; ReLU 16x26x26 0; MaxPool2d 16x14x14 0;
    Conv2d 32x12x12 4640; ReLU 32x12x12 0; MaxPool2d 32x7x7 0; Flatten 1568 0;
    Linear 32 50208; ReLU 32 0; Dropout 32 0; Linear 10 330"""


@pytest.mark.parametrize("side", SIDES)
def test_the_lectures_table(side):
    """The lecture's torchsummary; Flatten, which it does not list, takes no memory."""
    shape = recipes.shape(recipes.find("cnn_padded_pool"))
    model = SIDES[side].create_model("cnn_padded_pool")
    summary = SIDES[side].summary.summarize(model, shape)
    rows = [
        f"{row.kind} {'x'.join(map(str, row.shape))} {row.parameters}"
        for row in summary.rows
    ]
    assert rows == [" ".join(row.split()) for row in LECTURE.split(";")]
    assert summary.parameters == 55_338
    assert [f"{size:.2f}" for size in summary.megabytes()] == ["0.00", "0.27", "0.21"]
    text = str(summary)
    assert "parameters 0.21, total 0.49" in text
    assert {"keras": "[-1, 26, 26, 16]", "torch": "[-1, 16, 26, 26]"}[side] in text


def test_a_layer_called_twice_has_two_rows_and_its_parameters_once():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 3)

        def forward(self, images):
            return self.conv(self.conv(images))

    rows = torch_impl.summary.summarize(Twice(), IMAGES).rows
    assert [(row.name, row.parameters) for row in rows] == [("conv", 84), ("conv", 0)]
    assert [row.field for row in rows] == [(3, 3), (5, 5)]


def test_a_batchs_statistics_do_not_widen_the_field():
    layers = [keras.layers.Conv2D(4, 3), keras_impl.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((224, 224, 3)), *layers])
    summary = keras_impl.summary.summarize(model, IMAGES)
    assert [row.field for row in summary.rows] == [(3, 3), (3, 3)]
    assert (summary.parameters, summary.state) == (3 * 4 * 9 + 4 + 8, 8)


def test_summarizing_changes_no_model():
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout()]
    model = torch.nn.Sequential(*layers)
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch_impl.summary.summarize(model, IMAGES)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True]
    assert not any(module._forward_hooks for module in model)

    layers = [keras_impl.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    variables = [*model.variables, model.layers[1].seed_generator.state]
    before = [variable.numpy() for variable in variables]
    keras_impl.summary.summarize(model, recipes.Shape(8, 8, 3, 1))
    after = [variable.numpy() for variable in variables]
    assert all(map(np.array_equal, before, after))


def test_fields_are_printed_short():
    assert (square((5, 5)), square((5, 7))) == ("5", "5x7")


@pytest.mark.parametrize("side", SIDES)
def test_help_loads_no_framework(side):
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'tensorflow', 'keras'): sys.modules[name] = None\n"
        "sys.argv = ['x', {argument!r}, '--image-size', '3']\n"
        f"runpy.run_module('{side}_impl.summary', run_name='__main__')"
    )
    answers = []
    for argument in ("--help", "lenet5", "lenet6"):
        command = [sys.executable, "-c", code.format(argument=argument)]
        answers.append(
            subprocess.run(command, capture_output=True, text=True, check=False)
        )
    shown, small, unknown = answers
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"usage: python -m {side}_impl.summary")
    for flag in ("--image-size", "--num-classes", "--in-channels"):
        assert flag in shown.stdout
    assert (small.returncode, unknown.returncode) == (2, 2)
    assert "image size 3x3 is too small for lenet5" in small.stderr
    assert "did you mean lenet5" in unknown.stderr
    assert small.stderr.count("\n") == unknown.stderr.count("\n") == 1


@pytest.mark.parametrize("side", SIDES)
def test_the_program_prints_the_table(side):
    command = [sys.executable, "-m", f"{side}_impl.summary", "lenet5"]
    command += ["--in-channels", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["conv1", "Conv2d"]
    assert "\nparameters: 44,726\n" in done.stdout
