"""The networks in which faults are planted, small and each written in its own way."""

from parity.faults.spec import Network, Node, Style, block, chain, node


def _conv(name: str, filters: int, kernel: int = 3, **settings) -> Node:
    return node("conv", name, filters=filters, kernel=kernel, **settings)


def _act(name: str, function: str = "relu", *inputs: str, **settings) -> Node:
    return node("act", name, *inputs, function=function, **settings)


def _normal(name: str, convolution: Node) -> tuple[Node, Node]:
    """Returns a convolution without a bias and its BatchNorm."""
    return convolution, node("bn", f"{name}")


# Plain: activations inside Keras's layers, nn.Sequential with activations in place.
VGG = Network(
    "vgg",
    chain(
        block(
            "features",
            _conv("conv1", 8),
            _act("relu1"),
            _conv("conv2", 8),
            _act("relu2"),
            node("pool", "pool1", size=2),
            _conv("conv3", 12),
            _act("relu3"),
            _conv("conv4", 12),
            _act("relu4"),
            node("pool", "pool2", size=2),
            _conv("conv5", 12),
            _act("relu5"),
        ),
        node("flatten", "flatten"),
        block(
            "classifier",
            node("dense", "fc1", units=24),
            _act("relu6"),
            node("dropout", "drop1", rate=0.5),
            node("dense", "fc2", units=24),
            _act("relu7"),
            node("dense", "fc3", units=7),
        ),
    ),
    Style("functional", "inside"),
    Style("sequential", "layer", in_place=True),
    (24, 20),
)

# Strides and BatchNorm, at odd and even sizes: functions in `call` and `forward`.
STRIDED = Network(
    "strided",
    chain(
        node("scale", "rescale", factor=0.5, first=True),
        _conv("conv1", 8, stride=2),
        node("bn", "bn1"),
        _act("act1"),
        _conv("conv2", 8),
        node("bn", "bn2"),
        _act("act2", "leaky_relu", slope=0.25),
        _conv("conv3", 12, stride=2),
        node("bn", "bn3"),
        _act("act3", "elu"),
        _conv("conv4", 12, bias=False),
        node("bn", "bn4"),
        _act("act4", "silu"),
        node("global", "mean"),
        node("dense", "fc1", units=16),
        _act("act5", "tanh"),
        node("dense", "fc2", units=7),
        _act("probabilities", "softmax"),
    ),
    Style("subclass", "function", "function"),
    Style(
        "module",
        "function",
        "function",
        names={"conv": "c", "bn": "norm", "dense": "linear"},
    ),
    (22, 27),
)

# Residual: ZeroPadding2D and 'valid' against padding=1; names of Caffe and torchvision.
RESIDUAL = Network(
    "residual",
    chain(
        _conv("conv1", 8, padding=1, bias=False),
        node("bn", "bn1"),
        _act("relu"),
        node("pool", "maxpool", size=3, stride=2, padding=1, border="-inf"),
        block(
            "layer1",
            _conv("conv1", 8, padding=1, bias=False),
            node("bn", "bn1"),
            _act("relu1"),
            _conv("conv2", 8, padding=1, bias=False),
            node("bn", "bn2"),
            node("merge", "add", "bn2", "", function="add"),
            _act("relu2"),
        ),
        block(
            "layer2",
            _conv("conv1", 12, padding=1, stride=2, bias=False),
            node("bn", "bn1"),
            _act("relu1"),
            _conv("conv2", 12, padding=1, bias=False),
            node("bn", "bn2"),
            Node(
                "down", "conv", ("",), _conv("", 12, 1, stride=2, bias=False).settings
            ),
            node("bn", "down_bn"),
            node("merge", "add", "bn2", "down_bn", function="add"),
            _act("relu2"),
        ),
        block(
            "layer3",
            _conv("conv1", 8, 1, bias=False),
            node("bn", "bn1"),
            _act("relu1"),
            _conv("conv2", 8, padding=1, stride=2, bias=False),
            node("bn", "bn2"),
            _act("relu2"),
            _conv("conv3", 16, 1, bias=False),
            node("bn", "bn3"),
            Node(
                "down", "conv", ("",), _conv("", 16, 1, stride=2, bias=False).settings
            ),
            node("bn", "down_bn"),
            node("merge", "add", "bn3", "down_bn", function="add"),
            _act("relu3"),
        ),
        node("global", "avgpool"),
        node("dense", "fc", units=7),
    ),
    Style("functional"),
    Style("module", "function", "function", in_place=True),
    (20, 24),
)


def _mixed(name: str, pool: str) -> Node:
    """Returns an inception block of four branches."""
    return block(
        name,
        node("conv", "one", first=True, filters=6, kernel=1),
        _act("one_relu"),
        node("conv", "three_in", first=True, filters=6, kernel=1),
        _act("three_in_relu"),
        _conv("three", 6),
        _act("three_relu"),
        node("conv", "five_in", first=True, filters=4, kernel=1),
        _act("five_in_relu"),
        _conv("five", 6, 5),
        _act("five_relu"),
        node(
            "pool", "pool", first=True, size=3, stride=1, padding="same", function=pool
        ),
        _conv("pooled", 6, 1),
        _act("pooled_relu"),
        node(
            "merge",
            "concat",
            "one_relu",
            "three_relu",
            "five_relu",
            "pooled_relu",
            function="concat",
        ),
    )


# Branches: a functional model against nested modules with names of their own.
INCEPTION = Network(
    "inception",
    chain(
        _conv("stem", 8, 5),
        _act("stem_relu"),
        node("pool", "pool1", size=3, stride=2, padding="same"),
        _mixed("mixed1", "max"),
        node("pool", "pool2", size=2),
        _mixed("mixed2", "mean"),
        node("global", "gap"),
        node("dropout", "drop", rate=0.4),
        node("dense", "logits", units=7),
        _act("prob", "softmax"),
    ),
    Style("functional", "inside"),
    Style(
        "module",
        "function",
        "function",
        names={"one": "branch1", "conv": "branch", "dense": "classifier"},
    ),
    (19, 22),
)

# Local response normalisation, overlapping pools, groups.
ALEXNET = Network(
    "alexnet",
    chain(
        _conv("conv1", 8, 5, stride=2, padding="valid"),
        _act("relu1"),
        node("lrn", "norm1", size=5, alpha=0.02, beta=0.75, k=2.0),
        node("pool", "pool1", size=3, stride=2),
        _conv("conv2", 12, 5, padding=2, groups=2),
        _act("relu2"),
        node("lrn", "norm2", size=3, alpha=0.05, beta=0.5, k=1.0),
        _conv("conv3", 12, padding=1),
        _act("relu3"),
        _conv("conv4", 12, padding=1),
        _act("relu4"),
        node("pool", "pool2", size=3, stride=2),
        node("flatten", "flatten"),
        node("dense", "fc6", units=20),
        _act("relu6"),
        node("dropout", "drop6", rate=0.5),
        node("dense", "fc7", units=20),
        _act("relu7"),
        node("dense", "fc8", units=7),
    ),
    Style("subclass", "layer", names={"act": "activation", "dense": "dense"}),
    Style(
        "module",
        "layer",
        in_place=True,
        names={"conv": "c", "dense": "f", "lrn": "lrn", "act": "relu", "pool": "mp"},
    ),
    (31, 27),
)


def _inverted(name: str, stride: int, *, gate: bool) -> Node:
    """Returns an inverted residual block, with squeeze-and-excite if asked for."""
    start = [
        _conv("expand", 16, 1, bias=False),
        node("bn", "expand_bn"),
        _act("expand_act", "relu6"),
        _conv("depth", 16, stride=stride, depthwise=True, bias=False),
        node("bn", "depth_bn"),
        _act("depth_act", "relu6"),
    ]
    if gate:
        start += [
            node("global", "squeeze"),
            node("dense", "reduce", units=4),
            _act("reduce_act", "relu"),
            node("dense", "excite", units=16),
            _act("excite_act", "sigmoid"),
            node("gate", "gate", channels=16),
            node("merge", "scale", "depth_act", "gate", function="multiply"),
        ]
    start += [_conv("project", 8, 1, bias=False), node("bn", "project_bn")]
    if stride == 1:
        start += [node("merge", "add", "project_bn", "", function="add")]
    return block(name, *start)


# Mobile: depthwise convolutions, gates, shuffled channels, several normalisations.
MOBILE = Network(
    "mobile",
    chain(
        _conv("stem", 8, stride=2, bias=False),
        node("bn", "stem_bn"),
        _act("stem_act", "hard_swish"),
        _inverted("block1", 1, gate=False),
        _inverted("block2", 2, gate=True),
        _inverted("block3", 1, gate=True),
        node("shuffle", "shuffle", groups=2),
        _conv("head", 16, 1),
        node("gn", "head_gn", groups=4),
        _act("head_act", "gelu_by_hand"),
        node("ln", "head_ln"),
        node("global", "mean"),
        node("ln", "norm"),
        node("dense", "fc", units=7),
    ),
    Style("subclass", "layer", "function"),
    Style("module", "layer", "function", names={"bn": "batch_norm", "act": "a"}),
    (24, 20),
)

# Average pools, kernels of even sizes, reflected borders, softmax over a map.
POOLS = Network(
    "pools",
    chain(
        _conv("conv1", 8, 4),
        _act("relu1", "relu"),
        node("pool", "pool1", size=3, stride=2, padding="same", function="mean"),
        node("pad", "pad", pixels=1, mode="reflect"),
        _conv("conv2", 10, padding="valid"),
        _act("softplus", "softplus"),
        node("pool", "pool2", size=3, stride=1, padding=1, function="mean", count=True),
        _conv("conv3", 12, dilation=2),
        _act("sigmoid", "sigmoid"),
        node("pool", "pool3", size=2, function="mean"),
        _conv("conv4", 12, padding="valid"),
        _act("attention", "softmax"),
        node("pad", "pad_end", pixels=(0, 1, 1, 0)),
        _conv("conv5", 12, padding="valid"),
        node("pool", "pool4", size=2, stride=1),
        node("global", "largest", function="max"),
        node("dense", "fc", units=7),
    ),
    Style("functional", "layer"),
    Style("module", "function", "layer", names={"conv": "conv_", "pool": "down"}),
    (23, 26),
)

# An autoencoder: resizing, transposed convolutions, reshaping; its output is a map.
DECODER = Network(
    "decoder",
    chain(
        _conv("conv1", 8, stride=2),
        _act("act1", "tanh"),
        node("global", "mean"),
        node("dense", "fc", units=160),
        _act("act2", "relu"),
        node("reshape", "to_map", shape=(5, 4, 8)),
        _conv("conv2", 8),
        node("upsample", "up", factor=2),
        _conv("conv3", 8),
        _act("act3", "relu"),
        node("conv_transpose", "deconv", filters=8, kernel=3, stride=2),
        _act("act4", "relu"),
        node("space", "space"),
        node("resize", "resize", size=(30, 22), way="by_hand"),
        _conv("conv4", 3),
        _act("act5", "sigmoid"),
        node("scale", "stretch", factor=4.0, offset=-2.0),
    ),
    Style("functional", "layer"),
    Style("sequential", "layer", names={"conv": "conv", "dense": "latent"}),
    (16, 18),
    num_classes=0,
)

NETWORKS = {
    network.name: network
    for network in (
        VGG,
        STRIDED,
        RESIDUAL,
        INCEPTION,
        ALEXNET,
        MOBILE,
        POOLS,
        DECODER,
    )
}
