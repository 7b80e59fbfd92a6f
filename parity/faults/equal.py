"""Pairs that are the same function, written differently."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from parity.faults import optimizers, ours, training
from parity.faults.networks import NETWORKS
from parity.faults.pairs import (
    SCALES,
    Case,
    Pair,
    Sides,
    build_sides,
    images,
    make_pair,
    read_weights,
    write_weights,
)
from parity.faults.planting import adding, on, together
from parity.faults.spec import Network, Nodes, Style, change, insert, remove

# Names that nobody would choose on the other side.
OTHER_NAMES = {
    "conv": "k",
    "bn": "normalise_",
    "act": "nonlinearity",
    "dense": "projection",
    "pool": "reduce",
    "block": "part",
    "lrn": "response",
}
KERAS_STYLES = (
    Style("functional", "inside"),
    Style("functional", "layer"),
    Style("functional", "function", "function"),
    Style("subclass", "layer"),
    Style("subclass", "function", "function", nested=False),
    Style("subclass", "inside", "layer", backwards=True),
    Style("functional", "layer", names=OTHER_NAMES),
)
TORCH_STYLES = (
    Style("module", "function", "function", in_place=True),
    Style("sequential", "layer", in_place=True),
    Style("module", "layer", "layer", nested=False, backwards=True),
    Style("module", "layer", "function", shared=True, in_place=True),
    Style("module", "function", "layer", names=OTHER_NAMES),
    Style("sequential", "layer", nested=False),
    Style("module", "layer", backwards=True),
)
SEQUENTIAL = ("vgg", "alexnet", "strided")


def cases() -> Iterator[Case]:
    """Yields all pairs that are equal."""
    yield from ours.equal_cases()
    yield from training.equal_cases()
    yield from optimizers.equal_cases()
    yield from _styles()
    yield from _same_network()
    yield from _by_hand()
    yield from _other_layers()
    yield from _harmless()
    yield from _other_weights()


def _case(
    note: str,
    network: Network,
    keras_edit: Callable[[Nodes], Nodes] = lambda nodes: nodes,
    torch_edit: Callable[[Nodes], Nodes] = lambda nodes: nodes,
    *,
    weights: str = "copy",
    plant: Callable[[Sides], None] = lambda sides: None,
    scale: float = 1.0,
    tolerance: float = 1e-10,
    paired: bool = False,
) -> Case:
    def make() -> Pair:
        nodes = network.nodes
        sides = build_sides(network, keras_edit(nodes), torch_edit(nodes))
        given = images(network, scale)
        if paired:
            given = (given, np.ascontiguousarray(given.transpose(0, 3, 1, 2)))
        settings = {"weights": weights, "plant": plant, "tolerance": tolerance}
        return make_pair(sides, (), scale, given=given, **settings)

    title = f"equal-{note}/{network.name}/{weights}/{scale:g}"
    return Case(title, network.name, "equal", "whole", scale, make)


def _styles() -> Iterator[Case]:
    for row, network in enumerate(NETWORKS.values()):
        for index, keras_style in enumerate(KERAS_STYLES):
            torch_style = TORCH_STYLES[(index + row) % len(TORCH_STYLES)]
            written = replace(network, keras=keras_style, torch=torch_style)
            weights = ("copy", "as_is")[(index + row) % 2]
            scale = SCALES[(index + row) % 3]
            yield _case(f"style{index}", written, weights=weights, scale=scale)
    for name in SEQUENTIAL:
        network = replace(
            NETWORKS[name],
            keras=Style("sequential", "layer"),
            torch=TORCH_STYLES[SEQUENTIAL.index(name)],
        )
        yield _case("sequential", network)


def _same_network() -> Iterator[Case]:
    for index, network in enumerate(NETWORKS.values()):
        paired = bool(index % 2)
        note = "paired" if paired else "plain"
        yield _case(note, network, paired=paired, scale=SCALES[index % 3])


def _set(path: str, **settings: object) -> Callable[[Nodes], Nodes]:
    return lambda nodes: change(nodes, path, **settings)


def _all(*edits: Callable[[Nodes], Nodes]) -> Callable[[Nodes], Nodes]:
    def edited(nodes: Nodes) -> Nodes:
        for edit in edits:
            nodes = edit(nodes)
        return nodes

    return edited


def _same(nodes: Nodes) -> Nodes:
    return nodes


def _by_hand() -> Iterator[Case]:
    """Formulas in the place of functions, on one side or the other."""
    for index, (function, network, path) in enumerate(
        (
            ("relu", "vgg", "features.relu3"),
            ("relu", "residual", "layer2.relu2"),
            ("silu", "strided", "act4"),
            ("elu", "strided", "act3"),
            ("tanh", "strided", "act5"),
            ("tanh", "decoder", "act1"),
            ("hard_swish", "mobile", "stem_act"),
            ("relu6", "mobile", "block1.depth_act"),
            ("sigmoid", "pools", "sigmoid"),
            ("sigmoid", "mobile", "block2.excite_act"),
            ("softmax", "strided", "probabilities"),
            ("softmax", "inception", "prob"),
        )
    ):
        edits = (_set(path, function=f"{function}_by_hand"), _same)
        edits = edits if index % 2 else tuple(reversed(edits))
        yield _case(f"{function}-by-hand", NETWORKS[network], *edits)
    vgg, masked = NETWORKS["vgg"], _set("features.relu3", function="relu_masked")
    yield _case("relu-masked", vgg, _same, masked)
    for way, path in (("product", "fc1"), ("addmm", "fc2"), ("einsum", "fc3")):
        by_hand = _set(f"classifier.{path}", way=way)
        yield _case(f"dense-{way}", vgg, _same, by_hand)
    leaky = _set("act2", function="leaky_by_hand")
    yield _case("leaky-by-hand", NETWORKS["strided"], _same, leaky)
    yield _case("leaky-by-hand-keras", NETWORKS["strided"], leaky)
    mobile, alexnet = NETWORKS["mobile"], NETWORKS["alexnet"]
    yield _case("gelu", mobile, _same, _set("head_act", function="gelu"))
    for path in ("bn2", "bn4"):
        edit = _set(path, way="by_hand")
        yield _case(f"{path}-by-hand", NETWORKS["strided"], _same, edit)
    by_hand = _all(_set("norm1", way="by_hand"), _set("norm2", way="by_hand"))
    yield _case("lrn-by-hand", alexnet, _same, by_hand)
    kernel = _all(_set("norm1", way="tensorflow"), _set("norm2", way="tensorflow"))
    yield _case("lrn-tensorflow", alexnet, kernel, scale=100.0)


def _other_layers() -> Iterator[Case]:
    """Other layers that compute the same."""
    residual, strided, vgg = (NETWORKS[x] for x in ("residual", "strided", "vgg"))
    alexnet, mobile, pools = (NETWORKS[x] for x in ("alexnet", "mobile", "pools"))
    decoder, inception = NETWORKS["decoder"], NETWORKS["inception"]
    convolved = _all(_set("avgpool", way="keep"), _set("fc", way="conv"))
    yield _case("dense-as-1x1", residual, _same, convolved)
    convolved = _all(_set("flatten", way="keep"), _set("fc6", way="conv"))
    yield _case("dense-as-conv", alexnet, _same, convolved)
    for network, path in ((vgg, "flatten"), (alexnet, "flatten")):
        last = _set(path, order="hwc")
        yield _case("flatten-hwc", network, _same, last)
        yield _case("flatten-chw", network, _set(path, order="chw"))
    view = replace(alexnet, torch=Style("module", "function", "function"))
    yield _case("flatten-view", view, _same, _set("flatten", way="view"))
    grouped = _set("block2.depth", depthwise=False, groups=16)
    yield _case("depthwise-as-groups", mobile, grouped)
    explicit = _all(
        lambda nodes: insert(nodes, "conv3", "pad", "border", pixels=1),
        _set("conv4", padding="valid"),
        lambda nodes: remove(nodes, "relu3"),
        lambda nodes: insert(nodes, "conv3", "act", "relu3", function="relu"),
    )
    yield _case("explicit-padding", alexnet, _same, explicit)
    yield _case("explicit-padding-keras", alexnet, explicit)
    whole = _all(
        _set("avgpool", kind="pool", size=(3, 3), function="mean"),
        lambda nodes: insert(nodes, "avgpool", "flatten", "flat"),
    )
    yield _case("mean-as-pool", residual, whole)
    yield _case("mean-as-pool-torch", residual, _same, whole)
    sized = _set("up", kind="resize", size=(10, 8), method="nearest")
    yield _case("upsample-as-resize", decoder, _same, sized)
    subsampled = _set("layer2.down", way="subsample")
    yield _case("stride-by-slicing", residual, _same, subsampled)
    yield _case("layer-as-group", mobile, _same, _set("norm", axes="all"))
    yield _case("group-as-layer", mobile, _set("norm", axes="all"))
    alone = _set("head_gn", groups=16)
    instance = _all(alone, _set("head_gn", way="instance"))
    yield _case("instance", mobile, alone, instance)
    for way in ("stack", "module"):
        yield _case(f"add-{way}", residual, _same, _set("layer2.add", way=way))
    mean = _set("layer3.add", function="mean")
    stacked = _all(mean, _set("layer3.add", way="stack"))
    yield _case("mean-stack", residual, mean, stacked)
    last = _set("space", order="channels_first")
    yield _case("pixel-shuffle", decoder, last, last)
    edge = _set("pad", mode="replicate")
    yield _case("replicate", pools, edge, edge)
    swapped = _set("layer1.add", inputs=("", "bn2"))
    yield _case("sum-turned", residual, _same, swapped)
    turned = _set("block2.scale", inputs=("gate", "depth_act"))
    yield _case("product-turned", mobile, _same, turned)
    shifted = _set("deconv", padding=1, more=1)
    yield _case("transposed-cropped", decoder, shifted, shifted)
    largest = _set("mixed1.pool", padding=1)
    yield _case("padded-maximum", inception, largest)
    yield _case("explicit-same", strided, _set("conv2", padding=1))


def _harmless() -> Iterator[Case]:
    """What looks like a fault and changes nothing."""
    residual, strided, vgg = (NETWORKS[x] for x in ("residual", "strided", "vgg"))
    inception, mobile = NETWORKS["inception"], NETWORKS["mobile"]
    twice = {"function": "relu"}
    for network, path in ((vgg, "features.relu2"), (residual, "layer1.relu1")):
        head = path.rpartition(".")[2]
        edit = adding("act", f"{head}_again", **twice)
        yield _case("relu-twice", network, _same, lambda n, e=edit, p=path: e(n, p))
    early = _all(
        lambda nodes: remove(nodes, "features.relu2"),
        lambda nodes: insert(nodes, "features.pool1", "act", "late", function="relu"),
    )
    yield _case("relu-after-pool", vgg, _same, early)
    yield _case("zero-border", residual, _set("maxpool", border="zero"))
    yield _case("zero-border-torch", residual, _same, _set("maxpool", border="zero"))
    odd = replace(strided, size=(23, 27))
    yield _case("same-at-odd", odd, _same, _set("conv1", padding=1))
    yield _case("ceil-at-even", vgg, _same, _set("features.pool1", ceil=True))
    yield _case("count-nothing", NETWORKS["pools"], _same, _set("pool3", count=False))
    for path in ("mixed1.one", "mixed2.pooled"):
        wide = _set(path, dilation=2)
        yield _case(f"dilated-1x1-{path}", inception, _same, wide)
    for network, path in (
        (vgg, "classifier.drop1"),
        (inception, "drop"),
        (NETWORKS["alexnet"], "drop6"),
    ):
        yield _case("no-dropout", network, _same, lambda n, p=path: remove(n, p))
        rate = _set(path, rate=0.1)
        yield _case("other-dropout", network, rate)
    for kind, settings in (
        ("scale", {"factor": 1.0}),
        ("op", {"function": "identity"}),
        ("dropout", {"rate": 0.5}),
        ("op", {"function": "stop"}),
    ):
        note = f"{kind}-{settings.get('function', '')}"
        extra = adding(kind, "nothing", **settings)
        edit = on("block1", extra)
        yield _case(f"nothing-{note}", mobile, _same, lambda n, e=edit: e(n, ""))
    again = together(on("act3", adding("act", "act3b", function="relu")))
    both = lambda nodes: change(again(nodes, ""), "act3", function="relu")  # noqa: E731
    yield _case("relu-for-relu", strided, _set("act3", function="relu"), both)
    slower = _set("bn1", momentum=0.01)
    yield _case("momentum-in-inference", strided, _same, slower)


def _other_weights() -> Iterator[Case]:
    """What is made up for in the weights, judged as they are."""
    strided, residual, inception = (
        NETWORKS[x] for x in ("strided", "residual", "inception")
    )
    for network, bn, conv, with_bias in (
        (strided, "bn2", "conv2", True),
        (strided, "bn4", "conv4", False),
        (residual, "layer2.bn1", "layer2.conv1", False),
        (residual, "layer3.down_bn", "layer3.down", False),
    ):
        folded = _all(lambda n, p=bn: remove(n, p), _set(conv, bias=True))

        def fold(sides: Sides, bn=bn, conv=conv, with_bias=with_bias) -> None:
            moments = read_weights(sides.keras, bn)
            weights = read_weights(sides.keras, conv)
            bias = weights["bias"] if with_bias else 0.0
            scale = _scale_of(moments)
            kernel = weights["kernel"] * scale[:, None, None, None]
            write_weights(sides.torch, conv, {"kernel": kernel})
            shift = moments["beta"] + (bias - moments["mean"]) * scale
            write_weights(sides.torch, conv, {"bias": shift})

        yield _case(
            f"folded-{bn}",
            network,
            _same,
            folded,
            weights="as_is",
            plant=fold,
            tolerance=1e-6,  # the product is rounded to float32
        )
    yield _case(
        "concat-permuted",
        inception,
        _same,
        _set(
            "mixed2.concat",
            inputs=("pooled_relu", "five_relu", "three_relu", "one_relu"),
        ),
        weights="as_is",
        plant=_permute_logits,
    )

    def without_bias(sides: Sides) -> None:
        bias = read_weights(sides.keras, "conv2")["bias"]
        write_weights(sides.keras, "conv2", {"bias": 0 * bias})

    none = _set("conv2", bias=False)
    settings = {"weights": "as_is", "plant": without_bias}
    yield _case("zero-bias", strided, _same, none, **settings)

    def plain_scale(sides: Sides) -> None:
        weights = read_weights(sides.keras, "bn3")
        weights = {"gamma": 0 * weights["gamma"] + 1, "beta": 0 * weights["beta"]}
        write_weights(sides.keras, "bn3", weights)

    none = _set("bn3", affine=False)
    settings = {"weights": "as_is", "plant": plain_scale}
    yield _case("trivial-affine", strided, _same, none, **settings)

    def halve(sides: Sides) -> None:
        kernel = read_weights(sides.torch, "conv1")["kernel"]
        write_weights(sides.torch, "conv1", {"kernel": kernel / 2})

    settings = {"weights": "as_is", "plant": halve}
    no_scale = lambda nodes: remove(nodes, "rescale")  # noqa: E731
    yield _case("scale-in-kernel", strided, _same, no_scale, **settings)

    def permute_rows(sides: Sides) -> None:
        weights = read_weights(sides.torch, "fc")
        order = np.arange(160).reshape(5, 4, 8).transpose(2, 0, 1).ravel()
        write_weights(sides.torch, "fc", {k: w[order] for k, w in weights.items()})

    rows = _set("to_map", order="chw")
    settings = {"weights": "as_is", "plant": permute_rows}
    yield _case("rows-permuted", NETWORKS["decoder"], _same, rows, **settings)


def _scale_of(moments: dict[str, np.ndarray]) -> np.ndarray:
    """Returns gamma / sqrt(variance + epsilon) in float64."""
    variance = moments["variance"].astype("float64")
    return moments["gamma"] / np.sqrt(variance + 1e-5)


def _permute_logits(sides: Sides) -> None:
    """Gives PyTorch's last layer its channels in the order of its branches."""
    kernel = read_weights(sides.torch, "logits")["kernel"]
    parts = np.split(kernel, 4, axis=1)  # six channels each
    write_weights(sides.torch, "logits", {"kernel": np.concatenate(parts[::-1], 1)})
