"""`parity.diagnose` and `parity.copy_aligned` on attention, by whatever layers."""

import numpy as np
import pytest

import parity
from parity.frameworks import keras, torch, torchvision
from parity.diagnosis.repro.scripts import write_repros
from parity.faults.attention import (
    FORMS,
    SIZE,
    Attention,
    Tokens,
    Transformer,
    keras_transformer,
)

layers, nn = keras.layers, torch.nn


def images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *SIZE, 3))


def sides(keras_form: str, torch_form: str):
    keras_model = keras_transformer([Attention(keras_form)] * 2)
    torch.manual_seed(0)
    torch_model = Transformer([Attention(torch_form)] * 2).eval()
    for variable in keras_model.weights:  # none is 0
        values = np.random.default_rng(1).standard_normal(variable.shape)
        variable.assign(0.3 * values)
    for parameter in torch_model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return keras_model, torch_model


def outputs_agree(keras_model, torch_model) -> bool:
    ours = keras_model(images().astype("float32"), training=False).numpy()
    theirs = torch.from_numpy(images().transpose(0, 3, 1, 2).copy()).float()
    theirs = torch_model(theirs).detach().numpy()
    return np.allclose(ours, theirs, atol=1e-4 * np.abs(ours).max())


@pytest.mark.parametrize("direction", ["to torch", "to keras"])
@pytest.mark.parametrize("torch_form", FORMS)
@pytest.mark.parametrize("keras_form", ["layer", "by_hand"])
def test_weights_are_copied_whole_and_in_parts(keras_form, torch_form, direction):
    models = sides(keras_form, torch_form)
    assert not outputs_agree(*models)
    copied = parity.copy_aligned(*(models if "torch" in direction else models[::-1]))
    assert len(copied) == 2 * 14 + 8
    assert outputs_agree(*models)
    assert parity.diagnose(*models, images(), weights="as_is").verdict == "equal"


def keras_vision_transformer() -> keras.Model:
    """Returns torchvision's vision transformer of one block, in Keras's layers."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 8, 8)(inputs)
    x = Tokens()(layers.Reshape((-1, 16))(x))
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 8, name="heads")(y, y)])
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    y = layers.Dense(16)(layers.Activation(keras.ops.gelu)(layers.Dense(32)(y)))
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(5)(x[:, 0]))


def test_a_vision_transformer_of_torchvision():
    model = keras_vision_transformer()
    twin = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5)
    for parameter in twin.parameters():
        nn.init.normal_(parameter, std=0.3)
    given = np.random.default_rng(0).standard_normal((2, 32, 32, 3))
    diagnosis = parity.diagnose(model, twin.eval(), given)
    # keras.ops.gelu is the approximation by default, torchvision has the function.
    assert [finding.cause for finding in diagnosis.findings] == ["gelu.approximation"]
    assert diagnosis.notes == ()
    copied = parity.copy_aligned(twin, model, given)
    part = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight[16:32]"
    assert ("heads.key.kernel", part) in copied


@pytest.mark.parametrize("level", ["backward", "training"])
@pytest.mark.parametrize("forms", [("layer", "layer"), ("by_hand", "fused")])
def test_the_levels_above_the_outputs(forms, level):
    keras_model, torch_model = sides(*forms)
    optimizers = {
        "keras_optimizer": keras.optimizers.SGD(0.1),
        "torch_optimizer": torch.optim.SGD(torch_model.parameters(), 0.1),
    }
    settings = {"level": level, **(optimizers if level == "training" else {})}
    diagnosis = parity.diagnose(keras_model, torch_model, images(), **settings)
    assert diagnosis.verdict == "equal", diagnosis
    packed = torch_model.blocks[1].attention
    packed = packed.heads.in_proj_weight if forms[1] == "layer" else packed.qkv.weight
    packed.requires_grad_(False)
    diagnosis = parity.diagnose(keras_model, torch_model, images(), **settings)
    found = {(f.cause, f.torch_name) for f in diagnosis.findings}
    name = "blocks.1.attention." + ("heads" if forms[1] == "layer" else "qkv")
    assert found == {("layer.frozen", name)}


def test_a_script_of_both_sides_computes_what_they_did(tmp_path):
    keras_model = keras_transformer([Attention("layer")] * 2)
    torch_model = Transformer([Attention("layer"), Attention("fused", heads=2)])
    diagnosis = parity.diagnose(keras_model, torch_model.eval(), images())
    assert [finding.cause for finding in diagnosis.findings] == ["attention.heads"]
    (script,) = write_repros(diagnosis, tmp_path)
    text = script.read_text()
    assert "F.scaled_dot_product_attention(query, key, value" in text
    assert "keras.ops.matmul(query" in text


def test_attention_without_a_partner_stops_the_copy():
    keras_model = keras_transformer([Attention("layer")] * 2)
    torch_model = Transformer([Attention("fused")])
    before = [parameter.detach().clone() for parameter in torch_model.parameters()]
    with pytest.raises(parity.WeightMismatch, match=r"query.kernel .* has no partner"):
        parity.copy_aligned(keras_model, torch_model, images())
    after = torch_model.parameters()
    assert all(map(torch.equal, before, after))


class Masked(nn.Module):
    """Attention that does not see some of the tokens."""

    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        hidden = torch.arange(x.shape[1]).expand(len(x), -1) > 4
        return self.heads(x, x, x, key_padding_mask=hidden)[0]


def test_what_cannot_be_read_is_said():
    inputs = keras.Input((3, 3, 8))
    x = layers.Reshape((9, 8))(inputs)
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4, name="heads")(x, x))
    given = np.random.default_rng(0).standard_normal((2, 3, 3, 8))
    diagnosis = parity.diagnose(model, Masked().eval(), given)
    assert diagnosis.verdict == "different"
    assert any("heads.in_proj_weight" in note for note in diagnosis.notes)


def test_a_separable_convolution_has_gradients():
    inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(4, 3)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    twin = nn.Sequential(
        nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.Conv2d(3, 4, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    given = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    diagnosis = parity.diagnose(model, twin, given, level="backward")
    assert diagnosis.verdict == "equal", diagnosis
