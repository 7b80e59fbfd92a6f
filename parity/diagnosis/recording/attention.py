"""Attention as one step: three projections, the product of the heads, a projection.

A layer of either framework is read as these; what someone has written by hand, of
reshapes, products and a softmax, is recognised by what it computes.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator

from parity.frameworks import torch
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.constants import Unknown, dense
from parity.diagnosis.recording.graph import Graph, Recorder, Step, Tensor
from parity.spec.tolerances import ROUNDED, relative_error

# How queries, keys and values are weighed and cut into heads.
USUAL = {"over": "keys", "split": operations.TOKENS, "joined": operations.TOKENS}
PROJECTIONS = ("query", "key", "value")
# Operations that someone writes attention of, by either framework's name.
PIECES = {
    "view", "reshape", "transpose", "permute", "flatten", "unflatten", "contiguous",
    "movedim", "swapaxes", "squeeze", "unsqueeze", "matmul", "__matmul__", "bmm",
    "einsum", "baddbmm", "scaled_dot_product_attention", "chunk", "split", "unbind",
    "__getitem__", "masked_fill", "masked_fill_", "add", "__add__", "mul", "__mul__",
    "div", "__truediv__", "Reshape", "Transpose", "BatchMatMulV2", "BatchMatMulV3",
    "Einsum", "Split", "SplitV", "StridedSlice", "Unpack", "Squeeze", "ExpandDims",
    "SelectV2", "AddV2", "Mul", "RealDiv", "Permute", "Dot", "__get__",
}  # fmt: skip
WHOLE = {"scaled_dot_product_attention", "Attention"}


@torch.no_grad()
def multi_head(
    recorder: Recorder,
    numbers: list[int],
    weights: dict[str, tuple[Tensor, Tensor | None]],
    settings: dict[str, object],
    output: Tensor,
    array_of: Callable[[Tensor], object],
) -> list[tuple[str, list, dict, object]]:
    """Returns a layer's steps as (kind, inputs, parameters, output).

    Args:
        recorder: which knows the values.
        numbers: of the query, the key and the value.
        weights: (weight, bias) of "query", "key", "value" and "output".
        settings: the heads, the scale and whether it is causal.
        output: the framework's own array, to compare with.
        array_of: makes an array of the framework of a tensor.

    Raises:
        Unknown: these do not give the output.
    """
    graph = recorder.graph
    view = graph.views[numbers[0]]
    if view.pixels or any(graph.views[number] != view for number in numbers):
        raise Unknown
    steps, made = [], []
    for name, number in zip(PROJECTIONS, numbers, strict=True):
        kind, inputs, parameters = dense(recorder, number, *weights[name])
        value = operations.run(kind, parameters, [graph.values[number]])
        made.append((value, array_of(view.array(value))))
        steps.append((kind, inputs, parameters, made[-1][1]))
    parameters = USUAL | settings | {"axis": view.axes[-1]}
    value = operations.run("attention", parameters, [value for value, _ in made])
    whole = array_of(view.array(value))
    steps.append(("attention", [array for _, array in made], parameters, whole))
    weight, bias = weights["output"]
    parameters = {"weight": weight, "bias": bias, "axis": view.axes[-1]}
    value = operations.run("dense", parameters, [value])
    wanted = view.value(output)
    if value.shape != wanted.shape or _error(value, wanted) > ROUNDED["constants"]:
        raise Unknown
    return [*steps, ("dense", [whole], parameters, None)]


def _error(value: Tensor, wanted: Tensor) -> float:
    return relative_error(value.numpy(), wanted.numpy())


def name_attention(graph: Graph) -> None:
    """Puts one step for those of an attention that is written by hand."""
    for step in list(graph.steps):
        whole = step.kind == "opaque" and _is_whole(step)
        if step in graph.steps and (whole or step.kind == "softmax"):
            _name(graph, step)


def _is_whole(step: Step) -> bool:
    return step.operation in WHOLE


def _is_piece(step: Step) -> bool:
    if step.weights:
        return False
    named = step.kind == "opaque" and (step.operation in PIECES or _is_whole(step))
    return named or step.kind in ("softmax", "transpose", "scale")


def _name(graph: Graph, core: Step) -> None:
    region, last = _pieces(graph, core)
    inner = {step.output for step in region}
    sources = [n for step in region for n in step.inputs if n not in inner]
    sources = list(dict.fromkeys(sources))
    if (last is core and not _is_whole(core)) or len(sources) > 3:
        return
    values, axis = [graph.values[n] for n in sources], _features(graph, sources[0])
    wanted = graph.values[last.output]
    parts = _thirds(values[0], wanted, axis) if len(sources) == 1 else None
    values = parts or (values + values[-1:] * 2)[:3]  # keys are values, too
    if any(value.dim() < 3 for value in values) or graph.used_outside(region, last):
        return
    found = _classify(values, wanted, region, graph, axis)
    if found is None:
        return
    order, parameters = found
    numbers = (sources + sources[-1:] * 2)[:3]
    if parts:
        numbers = _split_source(graph, sources[0], parts, axis)
    if numbers is None:
        return
    step = Step(
        "attention",
        core.name,
        "attention",
        [numbers[i] for i in order],
        last.output,
        parameters,
        is_layer=all(s.is_layer and s.name == core.name for s in region),
        shapes=[graph.shapes[numbers[i]] for i in order],
        view=graph.views[numbers[0]],
    )
    graph.steps[graph.steps.index(last)] = step
    graph.steps[:] = [s for s in graph.steps if s not in region or s is step]


def _pieces(graph: Graph, core: Step) -> tuple[list[Step], Step]:
    """Returns the steps that lead to and from a softmax, and the last of them."""
    producers = graph.producers()
    found: list[Step] = []

    def add(steps: list[Step]) -> None:
        waiting = list(steps)
        while waiting:
            step = waiting.pop(0)
            if step is None or step in found or not _is_piece(step):
                continue
            found.append(step)
            waiting += [producers.get(number) for number in step.inputs]

    add([core])
    last = core
    while last.output not in graph.outputs:
        users = [step for step in graph.steps if last.output in step.inputs]
        if len(users) != 1 or not _is_piece(users[0]) or users[0].kind == "softmax":
            break
        last = users[0]
        add([last])
    return [step for step in graph.steps if step in found], last


def _features(graph: Graph, number: int) -> int:
    """Returns the axis of a value's features: a map's channels, the tokens' last."""
    axes = graph.views[number].axes
    return axes[-1] if len(axes) == 3 else 1


def _thirds(value: Tensor, wanted: Tensor, axis: int) -> list[Tensor] | None:
    """Returns the three parts of one value that holds query, key and value."""
    if value.numel() != 3 * wanted.numel() or value.shape[axis] % 3:
        return None
    return [x.contiguous() for x in value.chunk(3, axis)]


def _classify(
    values: list[Tensor], wanted: Tensor, region: list[Step], graph: Graph, axis: int
) -> tuple[tuple[int, ...], dict[str, object]] | None:
    """Returns the order of the inputs, and the parameters that give a value."""
    first = [value[:1] for value in values]
    sizes = {size for step in region for size in graph.shapes[step.output]}
    factor = math.prod(
        float(step.parameters["scale"])
        for step in region
        if step.kind == "scale" and step.parameters["scale"].dim() == 0
    )
    width = values[0].shape[axis]
    heads = [n for n in sorted({1, *sizes}) if width % n == 0]
    for order, parameters in _candidates(heads, width, factor, axis):
        try:
            made = operations.run("attention", parameters, [first[i] for i in order])
        except RuntimeError:
            continue
        if made.numel() == wanted[:1].numel():
            made = made.reshape(wanted[:1].shape)
            if _error(made, wanted[:1]) <= ROUNDED["constants"]:
                return order, parameters
    return None


def _candidates(
    heads: list[int], width: int, factor: float, axis: int
) -> Iterator[tuple[tuple[int, ...], dict]]:
    """Yields (order of the inputs, parameters), what is usual first."""
    orders = list(itertools.permutations(range(3)))
    sides = (operations.TOKENS, operations.HEADS)
    ways = [
        {"over": "keys", "split": split, "joined": joined}
        for split, joined in itertools.product(sides, sides)
    ]
    ways += [USUAL | {"over": over} for over in ("queries", "heads")]
    for way in ways:
        for order in orders if way == USUAL else orders[:1]:
            for number in heads:
                natural = (width // number) ** -0.5
                for scale in dict.fromkeys((natural, factor, 1.0, width**-0.5)):
                    for causal in (False, True):
                        own = {"heads": number, "scale": scale, "causal": causal}
                        yield order, own | way | {"axis": axis}


def _split_source(
    graph: Graph, source: int, values: list[Tensor], axis: int
) -> list[int] | None:
    """Makes three steps of one that projects query, key and value at once."""
    step = graph.producers().get(source)
    if step is None or step.kind not in ("dense", "conv"):
        return None
    if step.parameters.get("groups", 1) != 1 or source in graph.outputs:
        return None
    numbers = []
    size = values[0].shape[axis]
    place = graph.steps.index(step)
    for index, value in enumerate(values):
        number = max(graph.shapes) + 1
        graph.values[number], graph.shapes[number] = value, tuple(value.shape)
        graph.views[number] = graph.views[source]
        graph.names[number] = graph.names[source]
        rows = slice(index * size, (index + 1) * size)
        parameters = dict(step.parameters)
        for name in operations.TENSORS[step.kind]:
            if parameters[name] is not None:
                parameters[name] = parameters[name][rows]
        graph.steps.insert(
            place + index,
            Step(
                step.kind, step.name, step.operation, list(step.inputs), number,
                parameters,
                {n: part_of(name, rows) for n, name in step.weights.items()},
                is_layer=step.is_layer, owner=step.owner, shapes=list(step.shapes),
                view=step.view,
            ),
        )  # fmt: skip
        numbers.append(number)
    graph.steps.remove(step)
    return numbers


def part_of(name: str, outputs: slice) -> str:
    """Returns the name of some outputs' part of a weight."""
    return f"{name}[{outputs.start}:{outputs.stop}]"


def split_name(name: str) -> tuple[str, slice | None]:
    """Returns the weight that a name is of, and which outputs if it is a part."""
    found = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", name)
    if found is None:
        return name, None
    return found[1], slice(int(found[2]), int(found[3]))
