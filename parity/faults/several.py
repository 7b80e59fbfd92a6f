"""Two or three faults at once, independent of each other."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from parity.faults import weights
from parity.faults.networks import NETWORKS
from parity.faults.pairs import SCALES, Case, Pair, Sides, build_sides, make_pair
from parity.faults.planting import (
    Edit,
    adding,
    beside,
    dropping,
    expected_at,
    setting,
)
from parity.faults.spec import leaves


class _Fault(NamedTuple):
    """One of several faults: an edit of the nodes, or a change of the weights."""

    causes: tuple[str, ...]
    path: str
    edit: Edit | None
    plant: object = None
    new: str = ""  # the name of a node that the edit adds

    @property
    def paths(self) -> tuple[str, ...]:
        """The nodes at which it may be found."""
        return (beside(self.path, self.new) if self.new else self.path,)


def _fault(causes: str, path: str, edit: Edit, new: str = "") -> _Fault:
    return _Fault(tuple(causes.split()), path, edit, new=new)


# Of each network faults that leave all shapes alone, in the order of execution.
STRUCTURE = {
    "vgg": (
        _fault("conv.padding", "features.conv1", setting(padding=(0, 2, 0, 2))),
        _fault("activation.missing", "features.relu2", dropping()),
        _fault("pool.kind", "features.pool1", setting(function="mean")),
        _fault("conv.dilation", "features.conv4", setting(dilation=2)),
        _fault("bias.missing", "classifier.fc1", setting(bias=False)),
        _fault("activation.kind", "classifier.relu7", setting(function="sigmoid")),
    ),
    "strided": (
        _fault("conv.padding", "conv1", setting(padding=1)),
        _fault("bn.epsilon", "bn2", setting(epsilon=1e-3)),
        _fault("leaky.slope", "act2", setting(slope=0.01)),
        _fault("conv.padding", "conv3", setting(padding=1)),
        _fault("bn.missing", "bn4", dropping()),
        _fault("activation.kind", "act5", setting(function="relu")),
        _fault("softmax.missing", "probabilities", dropping()),
    ),
    "residual": (
        _fault("bn.epsilon", "bn1", setting(epsilon=1e-3)),
        _fault("activation.missing", "layer1.relu1", dropping()),
        _fault("shortcut.missing", "layer1.add", dropping()),
        _fault("conv.dilation", "layer2.conv2", setting(dilation=2, padding=2)),
        _fault("bn.epsilon", "layer2.down_bn", setting(epsilon=1e-3)),
        _fault("merge.kind", "layer3.add", setting(function="maximum")),
        _fault("bias.missing", "fc", setting(bias=False)),
    ),
    "inception": (
        _fault("activation.kind", "stem_relu", setting(function="silu")),
        _fault("conv.dilation", "mixed1.three", setting(dilation=2)),
        _fault("pool.kind", "mixed1.pool", setting(function="mean")),
        _fault(
            "merge.order",
            "mixed1.concat",
            setting(inputs=("three_relu", "one_relu", "five_relu", "pooled_relu")),
        ),
        _fault("activation.missing", "mixed2.five_in_relu", dropping()),
        _fault("bias.missing", "logits", setting(bias=False)),
    ),
    "alexnet": (
        _fault("activation.missing", "relu1", dropping()),
        _fault("lrn.k", "norm1", setting(k=1.0)),
        _fault("lrn.alpha", "norm2", setting(alpha=0.05 / 3)),
        _fault("conv.dilation", "conv3", setting(dilation=2, padding=2)),
        _fault("pool.kind", "pool2", setting(function="mean")),
        _fault("activation.missing", "relu6", dropping()),
    ),
    "mobile": (
        _fault("conv.padding", "stem", setting(padding=1)),
        _fault("activation.kind", "stem_act", setting(function="silu")),
        _fault("shortcut.missing", "block1.add", dropping()),
        _fault("merge.kind", "block2.scale", setting(function="add")),
        _fault("bn.epsilon", "block3.depth_bn", setting(epsilon=1e-3)),
        _fault("reshape.order", "shuffle", setting(groups=4)),
        _fault("ln.epsilon", "norm", setting(epsilon=1e-3)),
    ),
    "pools": (
        _fault("conv.padding", "conv1", setting(padding=(2, 1, 2, 1))),
        _fault("pool.count_padding", "pool1", setting(count=True)),
        _fault("pad.value", "pad", setting(mode="constant")),
        _fault("activation.missing", "sigmoid", dropping()),
        _fault("conv.dilation", "conv3", setting(dilation=1)),
        _fault("pool.kind", "largest", setting(function="mean")),
    ),
    "decoder": (
        _fault("conv.padding", "conv1", setting(padding=1)),
        _fault("activation.missing", "act3", dropping()),
        _fault("conv.transposed_padding", "deconv", setting(padding=1, more=1)),
        _fault("reshape.order", "space", setting(order="channels_first")),
        _fault("resize.method", "resize", setting(method="nearest")),
        _fault(
            "activation.twice",
            "act5",
            adding("act", "again", function="sigmoid", alone="function"),
            "again",
        ),
    ),
}


def _planted(causes: str, path: str, plant: object) -> _Fault:
    return _Fault(tuple(causes.split()), path, None, plant)


_FLIP = weights.changed(lambda w: {"kernel": w["kernel"][:, :, ::-1, ::-1].copy()})
_DOUBLE = weights.changed(lambda w: {"kernel": w["kernel"] * 2})
_NOISE = weights.changed(lambda w: {"kernel": weights.noisy(w["kernel"])})
_TURN = weights.changed(lambda w: {"kernel": w["kernel"].swapaxes(0, 1).copy()})
_FRESH = weights.changed(
    lambda w: {"mean": w["mean"] * 0, "variance": w["variance"] * 0 + 1}
)

# The same of weights that were copied wrongly.
COPIED = {
    "vgg": (
        _planted("weights.flipped", "features.conv2", _FLIP),
        _planted("weights.scaled", "features.conv4", _DOUBLE),
        _planted("flatten.order", "classifier.fc1", weights.unpermuted),
        _planted("weights.transposed", "classifier.fc2", _TURN),
    ),
    "strided": (
        _planted("weights.not_copied", "conv1", weights.initialised),
        _planted("bn.statistics_not_copied", "bn1", _FRESH),
        _planted("weights.flipped", "conv4", _FLIP),
        _planted("weights.different", "fc2", _NOISE),
    ),
    "residual": (
        _planted("bn.statistics_not_copied", "layer1.bn1", _FRESH),
        _planted("weights.scaled", "layer2.conv1", _DOUBLE),
        _planted("bn.statistics_not_copied", "layer2.down_bn", _FRESH),
        _planted("weights.flipped", "layer3.conv2", _FLIP),
    ),
    "mobile": (
        _planted("weights.flipped", "block1.depth", _FLIP),
        _planted("bn.statistics_not_copied", "block2.depth_bn", _FRESH),
        _planted("weights.not_copied", "block3.reduce", weights.initialised),
        _planted("weights.scaled", "fc", _DOUBLE),
    ),
}


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    for name, faults in STRUCTURE.items():
        chosen = [faults[:2], faults[-2:], faults[::2][:3], faults[1::2][:3]]
        for index, group in enumerate(chosen):
            wrong = ("torch", "keras")[(index + len(name)) % 2]
            if name == "decoder" or any(not _on_keras(x) for x in group):
                wrong = "torch"
            yield _case(name, group, wrong, SCALES[(index + len(name)) % 3], "copy")
    for name, faults in COPIED.items():
        for index, group in enumerate((faults[:2], faults[1:])):
            yield _case(name, group, "torch", SCALES[(index + 1) % 3], "as_is")
    for index, name in enumerate(("vgg", "strided", "mobile")):
        # Wrong weights in a wrong structure.
        group = (STRUCTURE[name][0], *COPIED[name][-2:])
        if name == "strided":
            group = (*COPIED[name][1:2], *STRUCTURE[name][2:4])
        yield _case(name, group, "torch", SCALES[index], "as_is")
    yield from _everywhere()


def _everywhere() -> Iterator[Case]:
    """Yields networks in which every BatchNorm has Keras's epsilon."""
    for index, name in enumerate(("strided", "residual")):
        paths = [x for x in leaves(NETWORKS[name].nodes) if "bn" in x]
        faults = [_fault("bn.epsilon", x, setting(epsilon=1e-3)) for x in paths]
        wrong, scale = ("keras", "torch")[index], SCALES[index + 1]
        yield _case(name, faults, wrong, scale, "copy", "bn.epsilon@all")


def _on_keras(fault: _Fault) -> bool:
    """Returns whether Keras's arguments can express a fault."""
    return fault.causes[0] not in ("pool.count_padding", "resize.method")


def _case(
    name: str,
    faults: Sequence[_Fault],
    wrong: str,
    scale: float,
    weights_: str,
    short: str = "",
) -> Case:
    network = NETWORKS[name]

    def make() -> Pair:
        changed = network.nodes
        for fault in faults:
            if fault.edit is not None:
                changed = fault.edit(changed, fault.path)
        nodes = network.nodes
        ours, theirs = (changed, nodes) if wrong == "keras" else (nodes, changed)
        sides = build_sides(network, ours, theirs)

        def plant(sides: Sides) -> None:
            for fault in faults:
                if fault.plant is not None:
                    fault.plant(sides, getattr(sides, wrong), fault.path)

        expected = tuple(expected_at(sides, x.paths, x.causes) for x in faults)
        return make_pair(sides, expected, scale, weights=weights_, plant=plant)

    short = short or "+".join(f"{x.causes[0]}@{x.path}" for x in faults)
    title = f"several/{name}/{short}/{wrong}/{scale:g}"
    return Case(title, name, "several", "whole", scale, make)
