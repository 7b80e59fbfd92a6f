"""Attention: a small vision transformer and a network with a non-local block.

Both sides are written as people write them: with the library's layer, with one
projection for query, key and value, and with products of matrices by hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch.nn.functional as F

from parity.frameworks import keras, torch
from parity.diagnosis.copying import copy_aligned
from parity.faults.pairs import SCALES, Case, Expected, Pair, labels

layers, ops, nn = keras.layers, keras.ops, torch.nn
FEATURES, BLOCKS, CLASSES = 16, 3, 5
SIZE, PATCH = (16, 20), 4
INNER = 8  # features of the non-local block
PLACES = ("early", "middle", "late")


@dataclass(frozen=True)
class Attention:
    """How one side computes attention.

    Attributes:
        form: "layer", "fused" (PyTorch only) or "by_hand".
        heads: into which the features are cut.
        scale: of the products; None for one over the root of a head's size.
        causal: whether a place sees none behind it.
        axis: of the softmax.
        joined: whether the heads are permuted before they are put together.
    """

    form: str
    heads: int = 4
    scale: float | None = None
    causal: bool = False
    axis: int = -1
    joined: bool = True

    @property
    def factor(self) -> float:
        """The scale of the products."""
        return (FEATURES // self.heads) ** -0.5 if self.scale is None else self.scale


class Tokens(layers.Layer):
    """Puts a learned token before those of the patches, and adds their places."""

    def build(self, shape):
        """Makes the weights for tokens (N, T, C)."""
        _, count, features = shape
        self.first = self.add_weight(shape=(1, 1, features), name="first")
        self.places = self.add_weight(shape=(1, count + 1, features), name="places")

    def call(self, x):
        """Returns tokens (N, T + 1, C)."""
        first = ops.broadcast_to(self.first, (ops.shape(x)[0], 1, x.shape[2]))
        return ops.concatenate([first, x], axis=1) + self.places


class AttentionByHand(layers.Layer):
    """Attention of a token to all tokens, by products of matrices."""

    def __init__(self, attention: Attention, **kwargs):
        super().__init__(**kwargs)
        self.attention = attention
        self.query, self.key = layers.Dense(FEATURES), layers.Dense(FEATURES)
        self.value, self.output_ = layers.Dense(FEATURES), layers.Dense(FEATURES)

    def call(self, x):
        """Returns tokens (N, T, C)."""
        count, heads = x.shape[1], self.attention.heads

        def split(x):
            x = ops.reshape(x, (-1, count, heads, FEATURES // heads))
            return ops.transpose(x, (0, 2, 1, 3))

        query, key, value = (
            split(layer(x)) for layer in (self.query, self.key, self.value)
        )
        products = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        products = products * self.attention.factor
        if self.attention.causal:
            behind = ops.triu(ops.ones((count, count), "bool"), 1)
            products = ops.where(behind, -np.inf, products)
        x = ops.matmul(ops.softmax(products, axis=self.attention.axis), value)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, count, FEATURES))
        return self.output_(x)


def keras_transformer(blocks: list[Attention]) -> keras.Model:
    """Returns a transformer of images with one attention for each block."""
    images = keras.Input((*SIZE, 3))
    x = layers.Conv2D(FEATURES, PATCH, PATCH, name="patches")(images)
    x = layers.Reshape((-1, FEATURES))(x)
    x = Tokens(name="tokens")(x)
    for i, block in enumerate(blocks):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"norm{i}")(x)
        if block.form == "layer":
            size = FEATURES // block.heads
            layer = layers.MultiHeadAttention(block.heads, size, name=f"attention{i}")
            y = layer(y, y, use_causal_mask=block.causal)
        else:
            y = AttentionByHand(block, name=f"attention{i}")(y)
        x = layers.Add()([x, y])
        y = layers.Dense(2 * FEATURES, "silu", name=f"wide{i}")(x)
        x = layers.Add()([x, layers.Dense(FEATURES, name=f"narrow{i}")(y)])
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    return keras.Model(images, layers.Dense(CLASSES, name="head")(x[:, 0]))


class LayerAttention(nn.Module):
    """PyTorch's own layer."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.causal = attention.causal
        self.heads = nn.MultiheadAttention(FEATURES, attention.heads, batch_first=True)

    def forward(self, x):
        """Returns tokens (N, T, C)."""
        mask = None
        if self.causal:
            count = x.shape[1]
            mask = nn.Transformer.generate_square_subsequent_mask(count, dtype=x.dtype)
        return self.heads(x, x, x, need_weights=False, attn_mask=mask)[0]


class FusedAttention(nn.Module):
    """One projection for query, key and value."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention
        self.qkv = nn.Linear(FEATURES, 3 * FEATURES)
        self.proj = nn.Linear(FEATURES, FEATURES)

    def forward(self, x):
        """Returns tokens (N, T, C)."""
        shape, heads = x.shape, self.attention.heads
        x = self.qkv(x).reshape(*shape[:2], 3, heads, FEATURES // heads)
        query, key, value = x.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(
            query,
            key,
            value,
            scale=self.attention.scale,
            is_causal=self.attention.causal,
        )
        x = x.transpose(1, 2) if self.attention.joined else x
        return self.proj(x.reshape(shape))


class AttentionOfProducts(nn.Module):
    """Three projections and sums of products."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention
        self.query, self.key = (nn.Linear(FEATURES, FEATURES) for _ in range(2))
        self.value, self.out = (nn.Linear(FEATURES, FEATURES) for _ in range(2))

    def forward(self, x):
        """Returns tokens (N, T, C)."""
        heads, count = self.attention.heads, x.shape[1]
        query, key, value = (
            layer(x).view(len(x), count, heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        products = torch.einsum("nqhc,nkhc->nhqk", query, key) * self.attention.factor
        if self.attention.causal:
            behind = torch.ones(count, count, dtype=torch.bool).triu(1)
            products = products.masked_fill(behind, -torch.inf)
        weights = products.softmax(self.attention.axis)
        return self.out(torch.einsum("nhqk,nkhc->nqhc", weights, value).flatten(2))


FORMS = {
    "layer": LayerAttention,
    "fused": FusedAttention,
    "by_hand": AttentionOfProducts,
}


class Block(nn.Module):
    """Attention and two dense layers, each added to what it is given."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.norm = nn.LayerNorm(FEATURES, 1e-6)
        self.attention = FORMS[attention.form](attention)
        self.wide = nn.Linear(FEATURES, 2 * FEATURES)
        self.narrow = nn.Linear(2 * FEATURES, FEATURES)

    def forward(self, x):
        """Returns tokens (N, T, C)."""
        x = x + self.attention(self.norm(x))
        return x + self.narrow(F.silu(self.wide(x)))


class Transformer(nn.Module):
    """The PyTorch side of `keras_transformer`."""

    def __init__(self, blocks: list[Attention]):
        super().__init__()
        count = SIZE[0] * SIZE[1] // PATCH**2
        self.patches = nn.Conv2d(3, FEATURES, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, 1, FEATURES))
        self.places = nn.Parameter(torch.randn(1, count + 1, FEATURES))
        self.blocks = nn.ModuleList(map(Block, blocks))
        self.norm = nn.LayerNorm(FEATURES, 1e-6)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, images):
        """Returns the logits."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class NonLocalByHand(layers.Layer):
    """Attention of each pixel to all others, added to what it is given."""

    def __init__(self, attention: Attention, **kwargs):
        super().__init__(**kwargs)
        self.attention = attention
        self.theta, self.phi = layers.Conv2D(INNER, 1), layers.Conv2D(INNER, 1)
        self.g, self.out = layers.Conv2D(INNER, 1), layers.Conv2D(FEATURES, 1)

    def call(self, x):
        """Returns maps (N, H, W, C)."""
        _, height, width, _ = x.shape
        theta, phi, g = (
            ops.reshape(layer(x), (-1, height * width, INNER))
            for layer in (self.theta, self.phi, self.g)
        )
        products = ops.matmul(theta, ops.transpose(phi, (0, 2, 1)))
        weights = ops.softmax(products * (self.attention.scale or 1), axis=-1)
        y = ops.reshape(ops.matmul(weights, g), (-1, height, width, INNER))
        return x + self.out(y)


def keras_non_local(attention: Attention) -> keras.Model:
    """Returns a convolutional network with one non-local block."""
    images = keras.Input((*SIZE, 3))
    x = layers.Conv2D(FEATURES, 3, 2, activation="relu", name="stem")(images)
    x = NonLocalByHand(attention, name="nonlocal")(x)
    x = layers.Conv2D(FEATURES, 3, activation="relu", name="last")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(CLASSES, name="head")(x))


class NonLocal(nn.Module):
    """The PyTorch side of `keras_non_local`."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention
        self.stem = nn.Conv2d(3, FEATURES, 3, 2)
        self.theta, self.phi = (nn.Conv2d(FEATURES, INNER, 1) for _ in range(2))
        self.g, self.out = nn.Conv2d(FEATURES, INNER, 1), nn.Conv2d(INNER, FEATURES, 1)
        self.last = nn.Conv2d(FEATURES, FEATURES, 3)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, images):
        """Returns the logits."""
        x = F.relu(self.stem(images))
        theta, phi, g = (
            layer(x).flatten(2) for layer in (self.theta, self.phi, self.g)
        )
        products = torch.bmm(theta.transpose(1, 2), phi) * (self.attention.scale or 1)
        weights = F.softmax(products, dim=self.attention.axis)
        y = torch.bmm(weights, g.transpose(1, 2)).transpose(1, 2)
        x = x + self.out(y.reshape(len(x), INNER, *x.shape[2:]))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


def _fill(keras_model: keras.Model, torch_model: nn.Module) -> None:
    """Gives both sides weights of their own, none of them 0."""
    random = np.random.default_rng(0)
    for variable in keras_model.weights:
        values = 0.3 * random.standard_normal(variable.shape)
        variable.assign(values + ("gamma" in variable.name))
    with torch.no_grad():
        for name, parameter in torch_model.named_parameters():
            values = 0.3 * random.standard_normal(tuple(parameter.shape))
            values = values + ("norm.weight" in name)
            parameter.copy_(torch.from_numpy(values))


def _case(cause, network, note, make_models, place, scale, names, tolerance=1e-10):
    def make() -> Pair:
        keras_model, torch_model = make_models()
        torch_model.eval()
        _fill(keras_model, torch_model)
        images = np.random.default_rng(0).standard_normal((2, *SIZE, 3))
        expected = () if cause == "equal" else (Expected((cause,), *names),)
        return Pair(
            keras_model,
            torch_model,
            (scale * images).astype(np.float32),
            labels(2, CLASSES),
            "forward",
            "copy",
            {},
            expected,
            lambda: copy_aligned(keras_model, torch_model) and None,
            tolerance,
        )

    title = f"{cause}/{network}/{note}/{scale:g}"
    return Case(title, network, cause, place, scale, make)


def _in_transformer(
    cause: str,
    index: int,
    ours: Attention,
    theirs: Attention,
    note: str = "",
    tolerance: float = 1e-10,
) -> Case:
    """Returns a case in which one block has two other attentions than the rest."""
    usual = Attention(ours.form), Attention(theirs.form)

    def make_models() -> tuple[keras.Model, nn.Module]:
        sides = [[side] * BLOCKS for side in usual]
        for side, own in zip(sides, (ours, theirs), strict=True):
            side[index] = own
        return keras_transformer(sides[0]), Transformer(sides[1])

    parts = ("query", "key", "value")
    keras_names = (f"attention{index}",)
    if ours.form == "by_hand":
        keras_names = tuple(f"attention{index}.{part}" for part in parts)
    path = f"blocks.{index}.attention"
    torch_names = {
        "layer": (f"{path}.heads",),
        "fused": (f"{path}.qkv",),
        "by_hand": tuple(f"{path}.{part}" for part in parts),
    }[theirs.form]
    note = f"{ours.form}-{theirs.form}-{note or index}"
    place = "whole" if cause == "equal" else PLACES[index]
    names = (keras_names, torch_names)
    scale = SCALES[(index + len(note)) % 3]
    return _case(
        cause, "transformer", note, make_models, place, scale, names, tolerance
    )


def _in_non_local(cause: str, note: str, ours: Attention, theirs: Attention) -> Case:
    names = (
        tuple(f"nonlocal.{part}" for part in ("theta", "phi", "g")),
        ("theta", "phi", "g"),
    )
    make_models = lambda: (keras_non_local(ours), NonLocal(theirs))  # noqa: E731
    place = "whole" if cause == "equal" else "middle"
    return _case(cause, "nonlocal", note, make_models, place, 1.0, names)


def cases() -> Iterator[Case]:
    """Yields all cases of this file, the equal ones too."""
    forms = [(a, b) for a in ("layer", "by_hand") for b in FORMS]
    for index, (ours, theirs) in enumerate(forms):
        keras_side, torch_side = Attention(ours), Attention(theirs)
        place = index % BLOCKS
        yield _in_transformer("equal", place, keras_side, torch_side)
        other = replace(torch_side, heads=(2, 8)[index % 2])
        yield _in_transformer("attention.heads", place, keras_side, other)
        sees_less = [replace(side, causal=True) for side in (keras_side, torch_side)]
        which = index % 2
        pair = (sees_less[0], torch_side) if which else (keras_side, sees_less[1])
        yield _in_transformer("attention.mask", (place + 1) % BLOCKS, *pair)
        if theirs != "layer":
            other = replace(torch_side, scale=(1.0, 0.25)[index % 2])
            yield _in_transformer("attention.scale", place, keras_side, other)
    for index, ours in enumerate(("layer", "by_hand")):
        keras_side, by_hand = Attention(ours), Attention("by_hand")
        yield _in_transformer(
            "softmax.axis", index, keras_side, replace(by_hand, axis=2 - index)
        )
        together = replace(Attention("fused"), joined=False)
        yield _in_transformer("reshape.order", 2 - index, keras_side, together)
    causal = Attention("layer", causal=True), Attention("fused", causal=True)
    yield _in_transformer("equal", 1, *causal, "causal")
    # One over the root of 8 has digits, which TensorFlow rounds to float32.
    wide = Attention("layer", heads=2), Attention("by_hand", heads=2)
    yield _in_transformer("equal", 2, *wide, "rounded", 1e-6)
    plain = Attention("by_hand")
    yield _in_non_local("equal", "plain", plain, plain)
    scaled = replace(plain, scale=0.25)
    yield _in_non_local("equal", "scaled", scaled, scaled)
    yield _in_non_local("attention.scale", "torch", plain, scaled)
    yield _in_non_local("attention.scale", "keras", scaled, plain)
    yield _in_non_local("softmax.axis", "queries", plain, replace(plain, axis=1))
