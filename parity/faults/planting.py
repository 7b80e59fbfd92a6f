"""How a fault is planted in the nodes of one side."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from parity.faults.networks import NETWORKS
from parity.faults.pairs import (
    SCALES,
    Case,
    Expected,
    Pair,
    Sides,
    build_sides,
    make_pair,
    place,
)
from parity.faults.spec import Built, Network, Nodes, change, insert, remove

Edit = Callable[[Nodes, str], Nodes]


def setting(**settings: object) -> Edit:
    """Returns an edit that gives a node other settings."""
    return lambda nodes, path: change(nodes, path, **settings)


def dropping() -> Edit:
    """Returns an edit that leaves a node out."""
    return remove


def adding(kind: str, name: str, **settings: object) -> Edit:
    """Returns an edit that puts one more node behind a node."""
    return lambda nodes, path: insert(nodes, path, kind, name, **settings)


def on(path: str, edit: Edit) -> Edit:
    """Returns an edit of the node of a path, whichever it is given."""
    return lambda nodes, _: edit(nodes, path)


def together(*edits: Edit) -> Edit:
    """Returns an edit that makes several."""

    def edited(nodes: Nodes, path: str) -> Nodes:
        for edit in edits:
            nodes = edit(nodes, path)
        return nodes

    return edited


def beside(path: str, name: str) -> str:
    """Returns the path of a node that stands beside another."""
    head, dot, _ = path.rpartition(".")
    return f"{head}{dot}{name}"


def expected_at(
    sides: Sides, paths: Sequence[str], causes: tuple[str, ...]
) -> Expected:
    """Returns one difference that may be found at any of some nodes."""
    found = [sides.expected(path, *causes) for path in paths]
    return Expected(
        causes,
        tuple(dict.fromkeys(name for item in found for name in item.keras_names)),
        tuple(dict.fromkeys(name for item in found for name in item.torch_names)),
        found[0].also,
    )


def planted(
    cause: str,
    targets: str,
    edit: Edit,
    *,
    also: tuple[str, ...] = (),
    both: Edit | None = None,
    keras: Edit | None = None,
    side: str = "",
    scale: float | None = None,
    at: Callable[[str], Sequence[str]] = lambda path: (path,),
    weights: str = "copy",
    plant: Callable[[Sides, Built, str], None] = lambda sides, built, path: None,
    level: str = "forward",
    tolerance: float = 1e-10,
    note: str = "",
    networks: Mapping[str, Network] = NETWORKS,
    arguments: Callable[[Sides], dict] = lambda sides: {},
) -> Iterator[Case]:
    """Yields a case for each target.

    Args:
        cause: its identifier.
        targets: "network:path network:path ...".
        edit: of the nodes of the side that is wrong.
        also: other causes that are right as well.
        both: an edit of both sides, made first.
        keras: an edit of the Keras side, of how it is written.
        side: that is wrong, "keras" or "torch"; both in turn where it is "".
        scale: of the images; all three in turn where it is None.
        at: the paths at which the fault may be found, from the target's.
        weights: "copy" or "as_is".
        plant: a change of the built models, for faults in the weights; it is given
            both sides, the wrong one and the path.
        level: of the diagnosis.
        tolerance: see `Pair`.
        note: tells cases of the same cause and target apart.
        networks: by name.
        arguments: further ones of the diagnosis, of both sides.
    """
    for index, target in enumerate(targets.split()):
        name, path = target.split(":")
        network = networks[name]
        wrong = side or ("torch", "keras")[index % 2]
        given = SCALES[(index + len(cause)) % 3] if scale is None else scale

        def make(network=network, path=path, wrong=wrong, given=given) -> Pair:
            nodes = network.nodes if both is None else both(network.nodes, path)
            changed = edit(nodes, path)
            ours, theirs = (changed, nodes) if wrong == "keras" else (nodes, changed)
            if keras is not None:
                ours = keras(ours, path)
            sides = build_sides(network, ours, theirs)
            return make_pair(
                sides,
                (expected_at(sides, at(path), (cause, *also)),),
                given,
                weights=weights,
                level=level,
                plant=lambda sides: plant(sides, getattr(sides, wrong), path),
                tolerance=tolerance,
                arguments=arguments(sides),
            )

        nodes = network.nodes if both is None else both(network.nodes, path)
        title = f"{cause}{note and '-'}{note}/{name}/{path}/{wrong}/{given:g}"
        yield Case(title, name, cause, place(nodes, path), given, make)
