"""Faults of what has no weights: activations, branches, padding, resizing."""

from collections.abc import Iterator

from parity.faults.pairs import Case
from parity.faults.planting import (
    adding,
    beside,
    dropping,
    on,
    planted,
    setting,
    together,
)


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    yield from _activations()
    yield from _softmax_and_dropout()
    yield from _branches()
    yield from _steps()


def _activations() -> Iterator[Case]:
    cause = "activation.missing"
    yield from planted(
        cause,
        "vgg:features.relu1 residual:layer1.relu1 inception:mixed1.three_relu "
        "strided:act1 alexnet:relu6 vgg:features.relu5 residual:layer3.relu3 "
        "decoder:act3 mobile:block1.depth_act",
        dropping(),
    )
    extra = {"at": lambda path: (beside(path, "extra"),), "note": "extra"}
    yield from planted(
        cause,
        "mobile:block1.project_bn residual:layer1.bn2 mobile:fc inception:pool1",
        adding("act", "extra", function="tanh"),
        **extra,
    )
    cause = "activation.kind"
    for function, targets, scale in (
        ("tanh", "vgg:features.relu3 residual:layer3.relu1 alexnet:relu7", None),
        ("relu", "strided:act4 pools:softplus", None),
        ("silu", "mobile:stem_act inception:mixed2.five_relu", 1.0),
        ("sigmoid", "decoder:act1 strided:act5", 1.0),
        ("hard_swish", "residual:relu", 1.0),
    ):
        yield from planted(cause, targets, setting(function=function), scale=scale)
    yield from planted(
        cause,
        "mobile:block2.depth_act mobile:block1.expand_act",
        setting(function="relu"),
        also=("activation.parameter",),
        scale=100.0,
        note="cap",
    )
    curved = setting(function="elu", alpha=1.0)
    yield from planted(
        "activation.parameter",
        "strided:act3 vgg:features.relu2 residual:layer3.relu2 mobile:head_act",
        setting(alpha=0.5),
        both=curved,
    )
    cause = "activation.twice"
    for function, targets, scale in (
        ("tanh", "decoder:act1 strided:act5 vgg:features.relu3", None),
        ("sigmoid", "pools:sigmoid decoder:act5", 1.0),
        ("hard_swish", "mobile:stem_act", 1.0),
        ("silu", "residual:layer2.relu1", 1.0),
    ):
        yield from planted(
            cause,
            targets,
            adding("act", "again", function=function, alone="function"),
            both=setting(function=function),
            at=lambda path: (path, beside(path, "again")),
            scale=scale,
        )
    for targets, scale in (
        ("strided:act1 vgg:features.relu4", 0.01),
        ("residual:layer3.relu1 mobile:head_act", 1.0),
    ):
        yield from planted(
            "gelu.approximation",
            targets,
            setting(function="gelu_tanh"),
            both=setting(function="gelu"),
            scale=scale,
            tolerance=1e-7,
        )
    cause, leaky = "leaky.slope", setting(function="leaky_relu", slope=0.25)
    yield from planted(cause, "strided:act2", setting(slope=0.01), side="torch")
    yield from planted(
        cause,
        "vgg:features.relu1 residual:layer3.relu3 inception:mixed2.one_relu",
        setting(slope=0.01),
        both=leaky,
    )
    yield from planted(
        cause, "alexnet:relu3", setting(slope=0.3), both=leaky, side="keras"
    )


def _softmax_and_dropout() -> Iterator[Case]:
    twice = adding("act", "again", function="softmax", alone="function")
    either = {"at": lambda path: (path, beside(path, "again"))}
    yield from planted(
        "softmax.twice",
        "strided:probabilities inception:prob pools:attention",
        twice,
        also=("activation.twice",),
        scale=1.0,
        **either,
    )
    yield from planted(
        "softmax.missing", "strided:probabilities inception:prob", dropping()
    )
    yield from planted(
        "softmax.missing",
        "pools:attention",
        dropping(),
        also=("activation.missing",),
    )
    yield from planted(
        "softmax.missing",
        "vgg:classifier.fc3 alexnet:fc8",
        adding("act", "prob", function="softmax"),
        at=lambda path: (beside(path, "prob"),),
        note="extra",
    )
    yield from planted(
        "softmax.axis",
        "strided:probabilities inception:prob pools:attention",
        setting(axis="images"),
        scale=1.0,
    )
    yield from planted("softmax.axis", "pools:attention", setting(axis="height"))
    attention = setting(function="softmax")
    axis = setting(axis="height")
    yield from planted("softmax.axis", "strided:act1", axis, both=attention)
    yield from planted(
        "softmax.twice",
        "vgg:features.relu2 residual:layer3.relu1",
        twice,
        both=attention,
        also=("activation.twice",),
        scale=1.0,
        **either,
    )
    yield from planted(
        "dropout.active",
        "vgg:classifier.drop1 inception:drop alexnet:drop6",
        setting(active=True),
    )
    yield from planted(
        "dropout.active",
        "strided:act1 residual:layer2.relu1",
        lambda nodes, path: setting(active=True)(nodes, beside(path, "drop")),
        both=adding("dropout", "drop", rate=0.25),
        at=lambda path: (beside(path, "drop"),),
    )


def _branches() -> Iterator[Case]:
    names = ("one_relu", "three_relu", "five_relu", "pooled_relu")
    yield from planted(
        "merge.order",
        "inception:mixed1.concat inception:mixed2.concat",
        setting(inputs=tuple(reversed(names))),
    )
    yield from planted(
        "merge.order",
        "inception:mixed2.concat inception:mixed1.concat",
        setting(inputs=(names[0], names[2], names[1], names[3])),
        note="two",
    )
    for function, target in (
        ("concat", "residual:layer1.add"),
        ("subtract", "residual:layer2.add"),
        ("subtract", "mobile:block3.add"),
    ):
        first = {"layer1": "bn2", "layer2": "bn2", "block3": "project_bn"}
        second = {"layer1": "", "layer2": "down_bn", "block3": ""}
        head = target.split(":")[1].split(".")[0]
        swapped = (second[head], first[head])
        yield from planted(
            "merge.order",
            target,
            setting(inputs=swapped),
            both=setting(function=function),
            also=("merge.kind",) if function == "subtract" else (),
            note=function,
        )
    cause = "merge.kind"
    for function, targets in (
        ("multiply", "residual:layer1.add mobile:block1.add"),
        ("maximum", "residual:layer2.add"),
        ("mean", "residual:layer3.add"),
        ("add", "mobile:block2.scale"),
    ):
        yield from planted(cause, targets, setting(function=function))
    yield from planted(
        "shortcut.missing",
        "residual:layer1.add mobile:block1.add residual:layer3.add mobile:block3.add "
        "residual:layer2.add",
        dropping(),
        at=_shortcut,
    )


def _shortcut(path: str) -> tuple[str, ...]:
    """Returns a sum and what leads to it alone."""
    if not path.startswith(("layer2", "layer3")):
        return (path,)
    return (path, beside(path, "down"), beside(path, "down_bn"))


def _steps() -> Iterator[Case]:
    # A border may be told by the convolution that sees it, too.
    seen = {"at": lambda path: (path, {"pad": "conv2", "pad_end": "conv5"}[path])}
    yield from planted("pad.missing", "pools:pad pools:pad_end", dropping(), **seen)
    bordered = adding("pad", "border", pixels=(0, 1, 0, 1))
    new = {"both": bordered, "at": lambda path: (beside(path, "border"),)}

    def border(edit):
        return lambda nodes, path: edit(nodes, beside(path, "border"))

    targets = "residual:relu residual:layer2.relu2 strided:act4 mobile:head_act"
    yield from planted("pad.missing", targets, border(dropping()), **new)
    moved = border(setting(pixels=(1, 0, 1, 0)))
    yield from planted("pad.amount", "strided:act1 residual:layer2.relu2", moved, **new)
    yield from planted(
        "pad.amount", "pools:pad_end", setting(pixels=(1, 0, 0, 1)), **seen
    )
    yield from planted("pad.amount", "pools:pad", setting(pixels=2), **seen)
    yield from planted("pad.value", "pools:pad", setting(mode="constant"), **seen)
    yield from planted(
        "pad.value", "pools:pad", setting(mode="replicate"), note="edge", **seen
    )
    yield from planted("pad.value", "pools:pad_end", setting(value=1.0), **seen)
    yield from planted(
        "pad.value",
        "strided:act1 residual:layer2.relu2",
        border(setting(value=-1.0)),
        **new,
    )
    cause = "scale.missing"
    yield from planted(cause, "strided:rescale decoder:stretch", dropping())
    scaled = adding("scale", "scaled", factor=0.125)
    for target in (
        "residual:layer2.bn2",
        "mobile:block3.project_bn",
        "vgg:features.relu3",
    ):
        yield from planted(
            cause,
            target,
            lambda nodes, path: dropping()(nodes, beside(path, "scaled")),
            both=scaled,
            at=lambda path: (beside(path, "scaled"),),
        )
    yield from _resizings()
    cause = "reshape.order"
    yield from planted(cause, "mobile:shuffle", setting(order="channels"))
    yield from planted(cause, "decoder:space", setting(order="channels_first"))
    mixed = adding("shuffle", "mix", groups=2)
    yield from planted(
        cause,
        "strided:act1 residual:layer3.relu3 inception:stem",
        lambda nodes, path: setting(order="channels")(nodes, beside(path, "mix")),
        both=mixed,
        at=lambda path: (beside(path, "mix"),),
    )
    yield from planted(
        "bias.missing",
        "vgg:features.conv1 strided:conv2 vgg:classifier.fc2 alexnet:conv3 mobile:fc",
        setting(bias=False),
    )
    yield from planted(
        "bias.missing", "residual:conv1", setting(bias=True), note="extra"
    )
    yield from _missing_layers()
    yield from _other_operations()


def _resizings() -> Iterator[Case]:
    yield from planted(
        "resize.method",
        "decoder:up",
        setting(method="bilinear"),
        side="torch",
        scale=1.0,
    )
    nearest = setting(method="nearest")
    yield from planted("resize.method", "decoder:resize", nearest, side="torch")
    bigger = {"size": (17, 21), "way": "by_hand"}
    new = {
        "both": adding("resize", "sized", **bigger),
        "at": lambda path: (beside(path, "sized"),),
    }
    for target in ("strided:act1", "inception:stem_relu", "residual:layer2.relu2"):
        path = beside(target.split(":")[1], "sized")
        yield from planted(
            "resize.method", target, on(path, nearest), side="torch", **new
        )
        edge = on(path, setting(align=True))
        yield from planted("resize.grid", target, edge, side="torch", scale=1.0, **new)
    yield from planted(
        "resize.grid", "decoder:resize", setting(align=True), side="torch"
    )
    smaller = {"size": (7, 8), "method": "bilinear"}
    new["both"] = adding("resize", "sized", **smaller)
    new["tolerance"] = 1e-6
    for target in ("strided:act1", "inception:stem_relu", "decoder:act4"):
        path = beside(target.split(":")[1], "sized")
        edit = on(path, setting(antialias=True))
        yield from planted("resize.antialias", target, edit, **new)
    yield from planted(
        "resize.antialias",
        "decoder:resize",
        setting(antialias=True),
        both=setting(size=(11, 9), way="", method="bilinear"),
        tolerance=1e-6,
    )


def _missing_layers() -> Iterator[Case]:
    for target, names in (
        ("vgg:features.conv2", ("conv2", "relu2")),
        ("strided:conv2", ("conv2", "bn2", "act2")),
        ("alexnet:conv4", ("conv4", "relu4")),
        ("vgg:classifier.fc2", ("fc2", "relu7")),
        ("residual:layer1.conv2", ("conv2", "bn2")),
    ):
        path = target.split(":")[1]
        paths = tuple(beside(path, name) for name in names)
        edit = together(*(on(x, dropping()) for x in paths))
        yield from planted(
            "layer.missing",
            target,
            edit,
            also=("bn.missing",) if "bn2" in names else (),
            at=lambda _, paths=paths: paths,
        )


def _other_operations() -> Iterator[Case]:
    for one, other, targets in (
        ("square", "abs", "strided:act1 mobile:head_act"),
        ("flip", "roll", "vgg:features.relu4 inception:mixed1"),
        ("normalize", "center", "residual:layer1.relu2 mobile:mean"),
    ):
        yield from planted(
            "operation.different",
            targets,
            lambda nodes, path, other=other: setting(function=other)(
                nodes, beside(path, "op")
            ),
            both=adding("op", "op", function=one),
            at=lambda path: (beside(path, "op"),),
            scale=1.0,
        )
    for target in ("strided:act1", "residual:layer2.relu2", "vgg:features.relu5"):
        yield from planted(
            "nan.first",
            target,
            lambda nodes, path: setting(function="log")(nodes, beside(path, "op")),
            both=adding("op", "op", function="log1p"),
            also=("operation.different",),
            at=lambda path: (beside(path, "op"),),
        )
