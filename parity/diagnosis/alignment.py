"""Finds the partner of each step: by structure, kinds, shapes, weights and names.

Both graphs are walked from their outputs back, the deeper branch first, so that the
order in which a model's author calls two branches makes no difference. The two rows of
steps are then aligned as two texts are, with the least cost.
"""

import math
from collections.abc import Callable

from parity.diagnosis.recording.graph import Graph, Step, same_size
from parity.diagnosis.recording.operations import TENSORS

WEIGHTED = ("conv", "conv_transpose", "dense", "batch_norm", "layer_norm", "group_norm")
FAMILIES = (
    ("activation", "softmax"),
    ("pool", "reduce", "adaptive_pool"),
    ("batch_norm", "layer_norm", "group_norm", "lrn"),
    ("conv", "conv_transpose", "dense"),
    ("resize", "adaptive_pool"),
)
# What a pair of steps gains, and what a step without a partner costs.
SAME_KIND, SAME_WEIGHTED, FAMILY, OPAQUE = 5.0, 8.0, 1.5, 0.5
SHAPE, WEIGHT_SHAPE, WEIGHT_VALUES, NAME, PARAMETERS = 2.0, 3.0, 6.0, 2.0, 0.5
FUNCTION = 2.5
GAP, WEIGHTED_GAP = 1.0, 2.5


def align(
    keras_graph: Graph,
    torch_graph: Graph,
    turned: frozenset[int] | None = frozenset(),
) -> list[tuple[Step, Step]]:
    """Returns the pairs of partners, in an order in which both can be run.

    Args:
        keras_graph: simplified.
        torch_graph: likewise.
        turned: the places of `ties` whose equal branches are taken the other way round;
            None takes all branches of both sides as they are given, or by name.
    """
    names = shared_names(keras_graph, torch_graph)
    ours = walk(keras_graph, names, None if turned is None else frozenset())
    theirs = walk(torch_graph, names, turned)
    gains = [[_gain(k, t, keras_graph, torch_graph) for t in theirs] for k in ours]
    return _best(ours, theirs, gains)


def shared_names(keras_graph: Graph, torch_graph: Graph) -> set[str]:
    """Returns the names that layers of both sides have."""
    ours, theirs = (
        {step.name for step in graph.steps if step.is_layer}
        for graph in (keras_graph, torch_graph)
    )
    return ours & theirs


def ties(graph: Graph, names: set[str]) -> list[int]:
    """Returns the values that are made of branches which nothing tells apart."""
    key = _keys(graph, names)
    return [
        step.output
        for step in graph.steps
        if len(step.inputs) > 1
        and len({key(number) for number in step.inputs}) < len(set(step.inputs))
    ]


def walk(
    graph: Graph, names: set[str], turned: frozenset[int] | None = frozenset()
) -> list[Step]:
    """Returns a graph's steps, inputs before what uses them, deeper branches first.

    Args:
        graph: of either side.
        names: those of layers that both sides know; they decide between equal branches.
        turned: the values whose equal branches are taken the other way round; None
            takes all branches as they are given, or by name.
    """
    producers = graph.producers()
    key = _keys(graph, names)
    found: list[Step] = []
    seen: set[int] = set()
    # Without recursion, since networks are deeper than Python's stack.
    stack = [(number, False) for number in reversed(graph.outputs)]
    while stack:
        number, ready = stack.pop()
        step = producers.get(number)
        if step is None or (number in seen and not ready):
            continue
        if ready:
            found.append(step)
            continue
        seen.add(number)
        stack.append((number, True))
        inputs = step.inputs
        if turned is None:
            inputs = sorted(inputs, key=lambda number: key(number)[-1])
        else:
            inputs = inputs[::-1] if number in turned else inputs
            inputs = sorted(inputs, key=key)
        stack += [(child, False) for child in reversed(inputs)]
    return found


def _keys(graph: Graph, names: set[str]) -> Callable[[int], tuple]:
    """Returns what branches are ordered by: depth, shapes of weights, names."""
    depths: dict[int, tuple] = {}
    for step in graph.steps:
        before = max(
            (depths.get(n, (0, 0, ())) for n in step.inputs), default=(0, 0, ())
        )
        weight = step.parameters.get("weight")
        shape = tuple(weight.shape) if weight is not None else ()
        heavy = step.kind in WEIGHTED
        shapes = (*before[2][-8:], shape) if shape else before[2]
        depths[step.output] = (before[0] + heavy, before[1] + 1, shapes)
    first_names: dict[int, str] = {}
    for step in graph.steps:
        inherited = next((first_names[n] for n in step.inputs if n in first_names), "")
        shared = step.name if step.name in names and step.kind in WEIGHTED else ""
        first_names[step.output] = shared or inherited

    def key(number: int) -> tuple:
        heavy, _, shapes = depths.get(number, (0, 0, ()))
        return (-heavy, str(shapes), first_names.get(number, ""))

    return key


def _gain(k: Step, t: Step, keras_graph: Graph, torch_graph: Graph) -> float:
    """Returns how well two steps fit, minus infinity where they cannot be partners."""
    if k.kind == t.kind:
        gain = SAME_WEIGHTED if k.kind in WEIGHTED else SAME_KIND
        if k.kind == "opaque" and k.operation.lower() != t.operation.lower():
            gain = OPAQUE
    elif any(k.kind in family and t.kind in family for family in FAMILIES):
        gain = FAMILY
    elif "opaque" in (k.kind, t.kind):
        gain = OPAQUE
    else:
        return -math.inf
    shapes = keras_graph.shapes[k.output], torch_graph.shapes[t.output]
    gain += SHAPE if same_size(*shapes) else -SHAPE
    if gain < SHAPE and k.kind != t.kind:
        return -math.inf
    gain += _weights_gain(k, t)
    if k.is_layer and t.is_layer:
        if k.name == t.name:
            gain += NAME
        elif k.name.split(".")[-1] == t.name.split(".")[-1]:
            gain += NAME / 4
    if k.kind == t.kind == "activation":
        same = k.parameters["function"] == t.parameters["function"]
        gain += FUNCTION if same else 0.0
    for key in ("mode", "stride", "size"):
        if key in k.parameters and k.parameters.get(key) == t.parameters.get(key):
            gain += PARAMETERS
    return gain


def _weights_gain(k: Step, t: Step) -> float:
    gain = 0.0
    for name in TENSORS.get(k.kind, ()):
        ours, theirs = k.parameters.get(name), t.parameters.get(name)
        if not (hasattr(ours, "shape") and hasattr(theirs, "shape")):
            continue
        if ours.shape != theirs.shape:
            gain -= WEIGHT_SHAPE / 2
        elif name == "weight":
            gain += WEIGHT_SHAPE
            sample, other = ours.flatten()[:16], theirs.flatten()[:16]
            if bool(((sample - other).abs() <= 1e-6 * sample.abs() + 1e-12).all()):
                gain += WEIGHT_VALUES
    return gain


def _best(ours: list[Step], theirs: list[Step], gains: list[list[float]]) -> list:
    """Returns the pairs of the alignment with the greatest gain (Needleman-Wunsch)."""
    rows, columns = len(ours), len(theirs)
    gaps_k = [WEIGHTED_GAP if step.kind in WEIGHTED else GAP for step in ours]
    gaps_t = [WEIGHTED_GAP if step.kind in WEIGHTED else GAP for step in theirs]
    table = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(1, rows + 1):
        table[i][0] = table[i - 1][0] - gaps_k[i - 1]
    for j in range(1, columns + 1):
        table[0][j] = table[0][j - 1] - gaps_t[j - 1]
    for i in range(1, rows + 1):
        above, row, gain = table[i - 1], table[i], gains[i - 1]
        for j in range(1, columns + 1):
            row[j] = max(
                above[j - 1] + gain[j - 1],
                above[j] - gaps_k[i - 1],
                row[j - 1] - gaps_t[j - 1],
            )
    pairs = []
    i, j = rows, columns
    while i and j:
        # Where two are as good, the earlier ones are partners.
        if table[i][j] == table[i - 1][j] - gaps_k[i - 1]:
            i -= 1
        elif table[i][j] == table[i][j - 1] - gaps_t[j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((ours[i], theirs[j]))
    return pairs[::-1]
