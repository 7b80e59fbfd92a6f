"""Faults of convolutions, poolings and normalisations."""

from collections.abc import Iterator

from parity.faults.networks import NETWORKS
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
from parity.faults.spec import Nodes, change, find, leaves


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    yield from _convolutions()
    yield from _poolings()
    yield from _normalisations()


def _convolutions() -> Iterator[Case]:
    cause = "conv.padding"
    yield from planted(
        cause,
        "strided:conv1 mobile:stem decoder:conv1 mobile:block2.depth strided:conv3",
        setting(padding=1),
        side="torch",
    )
    yield from planted(
        cause,
        "residual:layer2.conv1 residual:layer3.conv2",
        setting(padding="same"),
        side="keras",
    )
    yield from planted(
        cause,
        "vgg:features.conv3 residual:layer1.conv1 inception:mixed2.three",
        setting(padding=(2, 0, 2, 0)),
        also=("pad.amount",),
        note="shifted",
    )
    yield from planted(
        cause,
        "strided:conv4 inception:stem",
        setting(padding="valid"),
        also=("pad.missing",),
        note="none",
    )
    yield from planted(
        cause, "pools:conv1", setting(padding=(2, 1, 2, 1)), side="torch"
    )
    yield from planted(
        "conv.stride",
        "residual:conv1 mobile:head strided:conv4",
        setting(stride=2),
    )
    yield from planted(
        "conv.stride", "strided:conv3 decoder:conv4", setting(stride=(2, 1))
    )
    yield from planted("conv.stride", "decoder:conv1 mobile:stem", setting(stride=1))
    yield from _stride_placements()
    yield from planted(
        "conv.dilation",
        "vgg:features.conv2 strided:conv2 inception:mixed2.three decoder:conv4",
        setting(dilation=2),
    )
    yield from planted(
        "conv.dilation",
        "residual:layer1.conv2 alexnet:conv3",
        setting(dilation=2, padding=2),
    )
    yield from planted("conv.dilation", "pools:conv3", setting(dilation=1))
    yield from planted(
        "conv.groups",
        "vgg:features.conv2 residual:layer2.conv2 strided:conv4 mobile:head",
        setting(groups=2),
    )
    yield from planted("conv.groups", "alexnet:conv2", setting(groups=1))
    yield from planted(
        "conv.kernel_size", "vgg:features.conv3 decoder:conv4", setting(kernel=5)
    )
    yield from planted("conv.kernel_size", "mobile:block3.depth", setting(kernel=5))
    yield from planted("conv.kernel_size", "inception:mixed1.five", setting(kernel=3))
    yield from planted(
        "conv.kernel_size",
        "residual:layer1.conv1 alexnet:conv4",
        setting(kernel=1, padding=0),
    )
    cause, shift = "conv.transposed_padding", setting(padding=1, more=1)
    yield from planted(cause, "decoder:deconv decoder:deconv", shift)
    larger = setting(kernel=5)
    shift = setting(padding=2, more=1)
    yield from planted(cause, "decoder:deconv", shift, both=larger, note="five")
    to_larger = setting(kind="conv_transpose", stride=2)
    for index, target in enumerate(("strided:conv2", "inception:stem", "mobile:head")):
        kernel = 3 + 2 * (index % 2)
        both = together(to_larger, setting(kernel=kernel))
        shift = setting(padding=kernel // 2, more=1)
        yield from planted(cause, target, shift, both=both, side="torch")


def _stride_placements() -> Iterator[Case]:
    for target, first, second in (
        ("strided:conv1", "conv1", "conv2"),
        ("residual:layer2.conv1", "conv1", "conv2"),
        ("residual:layer3.conv1", "conv1", "conv2"),
        ("mobile:block2.expand", "expand", "depth"),
        ("strided:conv3", "conv3", "conv4"),
    ):
        path = target.split(":")[1]
        one, two = beside(path, first), beside(path, second)
        swapped = (1, 2) if first in ("conv1", "conv3") else (2, 1)
        if "layer3" in target:
            swapped = (2, 1)
        edit = together(
            on(one, setting(stride=swapped[0])), on(two, setting(stride=swapped[1]))
        )
        paths = (one, two)
        yield from planted(
            "conv.stride_placement", target, edit, at=lambda _, paths=paths: paths
        )


def _poolings() -> Iterator[Case]:
    yield from planted(
        "pool.kind",
        "vgg:features.pool1 inception:mixed1.pool alexnet:pool2 pools:largest",
        setting(function="mean"),
    )
    yield from planted(
        "pool.kind",
        "pools:pool1 mobile:block2.squeeze inception:mixed2.pool residual:avgpool",
        setting(function="max"),
    )
    yield from planted(
        "pool.size",
        "residual:maxpool inception:mixed1.pool inception:mixed2.pool",
        _other_size,
    )
    yield from planted("pool.size", "inception:pool2", setting(size=3, stride=2))
    yield from planted("pool.size", "pools:pool2", setting(size=5), side="torch")
    yield from planted(
        "pool.stride",
        "residual:maxpool inception:pool2 pools:pool3 pools:pool1",
        setting(stride=1),
    )
    yield from planted("pool.stride", "inception:pool1", setting(stride=3))
    yield from planted("pool.stride", "pools:pool4", setting(stride=2))
    yield from planted(
        "pool.padding", "inception:pool1", setting(padding=1), side="torch"
    )
    yield from planted(
        "pool.padding", "residual:maxpool", setting(padding="same"), side="keras"
    )
    yield from planted(
        "pool.padding", "pools:pool1", setting(padding=1, count=False), side="torch"
    )
    yield from planted(
        "pool.padding", "pools:pool2", setting(padding="valid"), also=("pad.missing",)
    )
    yield from planted(
        "pool.padding",
        "inception:mixed2.pool",
        setting(padding=(2, 0, 2, 0), count=False),
        side="torch",
    )
    extra = {"size": 3, "stride": 1, "padding": 1}
    mean = adding("pool", "blur", **extra, function="mean", count=True)
    blur = {"at": lambda path: (beside(path, "blur"),)}
    cause = "pool.count_padding"
    yield from planted(cause, "pools:pool1", setting(count=True), side="torch")
    yield from planted(
        cause, "inception:mixed2.pool", setting(count=True), side="torch"
    )
    yield from planted(cause, "pools:pool2", setting(count=False))
    for target in ("strided:act1", "residual:layer3.relu3", "vgg:features.relu3"):
        blurred = beside(target.split(":")[1], "blur")
        fault = on(blurred, setting(count=False))
        yield from planted(cause, target, fault, both=mean, **blur)
    cause, zero = "pool.border", setting(border="zero")
    for target, relu in (
        ("residual:maxpool", "relu"),
        ("inception:pool1", "stem_relu"),
    ):
        both = on(relu, dropping())
        if target == "inception:pool1":
            both = together(both, setting(padding=1))
        also = ("pad.value", "pool.padding") if target == "residual:maxpool" else ()
        yield from planted(cause, target, zero, both=both, also=also)
    largest = adding("pool", "blur", **extra)
    blur |= {"both": largest, "also": ("pad.value",), "scale": 1.0}
    for target in ("strided:act2", "mobile:stem_act", "mobile:head_act"):
        blurred = beside(target.split(":")[1], "blur")
        yield from planted(cause, target, on(blurred, zero), **blur)
    blur = {"at": blur["at"]}
    cause, ceil = "pool.ceil_mode", setting(ceil=True)
    yield from planted(cause, "residual:maxpool inception:pool2", ceil)
    yield from planted(cause, "pools:pool3", ceil, side="torch")
    halve = adding("pool", "blur", size=2)
    yield from planted(
        cause,
        "mobile:head_act strided:act3",
        lambda nodes, path: ceil(nodes, "blur"),
        both=halve,
        **blur,
    )


def _other_size(nodes: Nodes, path: str) -> Nodes:
    """Gives a pooling window another size, one at which the network still runs."""
    return change(nodes, path, size={"maxpool": 2}.get(path, 5))


def _normalisations() -> Iterator[Case]:
    cause = "bn.epsilon"
    yield from planted(
        cause,
        "strided:bn1 residual:layer2.bn2 mobile:block3.project_bn residual:bn1",
        setting(epsilon=1e-3),
    )
    yield from planted(cause, "residual:layer3.down_bn", setting(epsilon=1.001e-5))
    yield from planted(cause, "strided:bn4 mobile:stem_bn", setting(epsilon=2e-5))
    cause, way = "bn.training_mode", setting(training=True)
    yield from planted(
        cause,
        "residual:layer1.bn1 strided:bn4 residual:layer3.bn3",
        way,
    )
    # Keras hands the mode on to the layers that are called afterwards.
    yield from planted(
        cause, "strided:bn2", way, side="keras", at=lambda _: ("bn2", "bn3", "bn4")
    )
    yield from planted(
        cause,
        "mobile:block2.depth_bn residual:bn1",
        setting(way="untracked"),
        side="torch",
        note="untracked",
    )
    yield from _forgotten_modes()
    yield from planted(
        "bn.affine",
        "strided:bn1 residual:layer2.bn1 residual:layer3.bn3 mobile:block3.depth_bn",
        setting(affine=False),
    )
    yield from planted(
        "bn.missing",
        "strided:bn2 residual:layer1.bn2 mobile:block1.expand_bn residual:layer3.bn3",
        dropping(),
    )
    yield from planted(
        "bn.missing",
        "vgg:features.conv2 alexnet:conv4",
        adding("bn", "extra_bn"),
        at=lambda path: (beside(path, "extra_bn"),),
        note="extra",
    )
    yield from _local_responses()
    cause = "ln.epsilon"
    yield from planted(cause, "mobile:norm mobile:head_ln", setting(epsilon=1e-3))
    yield from planted(cause, "mobile:head_gn", setting(epsilon=1e-3))
    layer, axes = adding("ln", "early_ln"), setting(axes="all")
    early = {"both": layer, "at": lambda path: (beside(path, "early_ln"),)}
    for target in ("mobile:stem", "strided:act2", "residual:layer2.relu1"):
        new = beside(target.split(":")[1], "early_ln")
        change = on(new, setting(epsilon=1e-6))
        yield from planted(cause, target, change, **early)
        yield from planted("ln.axes", target, on(new, axes), **early)
    yield from planted("ln.axes", "mobile:head_ln", axes, side="torch")


def _forgotten_modes() -> Iterator[Case]:
    """PyTorch's modules start in training mode."""

    def forget(sides, wrong, path) -> None:
        wrong.model.train()

    for cause, target, kind in (
        ("bn.training_mode", "strided:bn1", "bn"),
        ("bn.training_mode", "residual:bn1", "bn"),
        ("dropout.active", "vgg:classifier.drop1", "dropout"),
        ("dropout.active", "inception:drop", "dropout"),
    ):
        nodes = NETWORKS[target.split(":")[0]].nodes
        paths = [path for path in leaves(nodes) if find(nodes, path).kind == kind]
        yield from planted(
            cause,
            target,
            lambda nodes, path: nodes,
            at=lambda _, paths=paths: paths,
            plant=forget,
            side="torch",
            note="train",
        )


def _local_responses() -> Iterator[Case]:
    """Local response normalisation, in Keras also by TensorFlow's operation."""
    faults = {
        "lrn.alpha": (0.02 / 5, 0.05 / 3),
        "lrn.beta": (0.5, 0.75),
        "lrn.size": (3, 5),
        "lrn.k": (1.0, 2.0),
    }
    new = adding("lrn", "lrn", size=5, alpha=0.02, beta=0.75, k=2.0)
    for index, (cause, values) in enumerate(faults.items()):
        name = cause.split(".")[1]
        for path, value in zip(("norm1", "norm2"), values, strict=True):
            target, edit = f"alexnet:{path}", setting(**{name: value})
            yield from planted(cause, target, edit, scale=(1.0, 100.0)[index % 2])
        for target in (
            ("vgg:features.relu4", "residual:layer2.relu2")[index % 2],
            "decoder:act5",
        ):
            found = beside(target.split(":")[1], "lrn")
            at = {"both": new, "at": lambda _, found=found: (found,)}
            edit = on(found, setting(**{name: values[0]}))
            yield from planted(cause, target, edit, scale=1.0, **at)
        yield from planted(
            cause,
            f"alexnet:norm{1 + index % 2}",
            setting(**{name: values[index % 2]}),
            keras=setting(way="tensorflow"),
            side="torch",
            scale=100.0,
            tolerance=1e-6,
            note="tensorflow",
        )
