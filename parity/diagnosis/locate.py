"""Finds the steps that introduce an error, each side's inputs being the same.

PyTorch's steps are run one after the other on Keras's values: what a step's partner put
out takes the place of what the step put out, so that an error shows where it arises and
nowhere behind. What stands between two partners is run as it is; where the values that
then come in differ, something between them is missing, extra or wired otherwise.
"""

import itertools
from dataclasses import dataclass, field

from parity.diagnosis.recording import operations
from parity.diagnosis.recording.graph import Graph, Step, Tensor, same_size
from parity.diagnosis.replay import (
    error_between,
    in_shape,
    is_rounding,
    run_or_none,
)
from parity.spec.tolerances import TOLERANCES

TOLERANCE = TOLERANCES["outputs"]
# How far behind two steps that differ a place is looked for where the two agree again.
AHEAD = 16
# Parameters that no step behind can make up for.
NUMBERS = ("epsilon", "slope", "alpha", "k", "function")


@dataclass
class Culprit:
    """A pair of steps that differ, or what stands before them.

    Attributes:
        keras_step: the step in Keras; None at the outputs.
        torch_step: its partner.
        kind: "step" when the pair itself differs, "before" when what comes in does,
            "formula" when a whole formula does that the pair is the last step of.
        error: relative L2, introduced.
        inputs: Keras's values that come in, none with "formula".
        output: Keras's value: that goes out, or with "before" that comes in.
        found: PyTorch's value in its place.
        only_keras: with "before", the steps between that only Keras has; with
            "formula", all of its.
        only_torch: likewise.
        base: with both, the value that Keras's steps between begin with.
        at_input: whether that is the images.
        without: with "before", PyTorch's value without its own steps between.
    """

    keras_step: Step | None
    torch_step: Step | None
    kind: str
    error: float
    inputs: list[Tensor]
    output: Tensor
    found: Tensor | None
    only_keras: list[Step] = field(default_factory=list)
    only_torch: list[Step] = field(default_factory=list)
    base: list[Tensor] = field(default_factory=list)
    at_input: bool = False
    without: Tensor | None = None


@dataclass
class Located:
    """What the pass with the same inputs found.

    Attributes:
        introduced: the relative L2 error of each of PyTorch's steps, by its id.
        culprits: what differs, in PyTorch's order of execution.
        grouped: the ids of PyTorch's steps that were judged as a whole with others.
        rounding: whether a constant that one side rounded to float32 was met.
        unjudged: the ids of PyTorch's steps of which nothing can be said.
        notes: why, a sentence each.
    """

    introduced: dict[int, float]
    culprits: list[Culprit]
    grouped: set[int]
    rounding: bool
    unjudged: set[int]
    notes: list[str]


class Locator:
    """Runs PyTorch's steps on Keras's values."""

    def __init__(self, keras_graph: Graph, torch_graph: Graph, pairs: list):
        self.keras, self.torch = keras_graph, torch_graph
        self.pairs = pairs
        self.partner = {id(t): k for k, t in pairs}
        self.paired_keras = {id(k): t for k, t in pairs}
        self.values: dict[int, Tensor] = {}
        self.culprits: list[Culprit] = []
        self.introduced: dict[int, float] = {}
        self.grouped: set[int] = set()
        self.rounding = False
        # The numbers of two values of which it was said that they differ.
        self.said: set[tuple[int, int]] = set()
        # What PyTorch's step made that was run on inputs of other sizes than its own.
        self.resized: dict[int, Step] = {}
        self.unjudged: set[int] = set()
        self.notes: list[str] = []

    def locate(self, torch_images: Tensor | None = None) -> Located:
        """Returns every culprit, in PyTorch's order of execution."""
        images = self.keras.values[self.keras.inputs[0]]
        self.values[self.torch.inputs[0]] = images
        if torch_images is not None:
            error = error_between(torch_images, images)
            if not is_rounding(error):
                self.culprits.append(
                    Culprit(
                        None,
                        None,
                        "before",
                        error,
                        [],
                        images,
                        torch_images,
                        at_input=True,
                    )
                )
        for step in self.torch.steps:
            inputs = [self.values.get(number) for number in step.inputs]
            k = self.partner.get(id(step))
            if k is None or id(step) in self.grouped:
                if step.output not in self.values:
                    self.values[step.output] = self._try(step, inputs)
                    self._mark_resized(step, inputs)
                continue
            self._pair(k, step, inputs)
        self._outputs()
        self._join_formulas()
        self._leave_out_behind_nan()
        return Located(
            self.introduced,
            self.culprits,
            self.grouped,
            self.rounding,
            self.unjudged,
            self.notes,
        )

    def _try(self, step: Step, inputs: list) -> Tensor | None:
        return run_or_none(step, inputs, self._taken)

    def _taken(self, step: Step, inputs: list[Tensor]) -> list[Tensor]:
        """Returns values in the shapes that a step of PyTorch takes, where they fit."""
        taken = []
        for number, x, shape in zip(step.inputs, inputs, step.shapes, strict=True):
            reshapes = self.torch.shapes[number] != shape
            fits = reshapes and same_size(tuple(x.shape), shape)
            taken.append(x.reshape(shape) if fits else in_shape(x, shape))
        return taken

    def _mark_resized(self, step: Step, inputs: list) -> None:
        """Notes what comes of an opaque step whose inputs have other sizes than its."""
        first = next((self.resized[n] for n in step.inputs if n in self.resized), None)
        if first is None and self._is_resized(step, inputs):
            first = step
        if first is not None:
            self.resized[step.output] = first

    def _is_resized(self, step: Step, inputs: list) -> bool:
        """Returns whether an opaque step is given other sizes than it was called with.

        What it does with its own arguments may hold for its own sizes alone.
        """
        if step.kind in operations.KINDS or any(x is None for x in inputs):
            return False
        taken = self._taken(step, inputs)
        return any(
            tuple(x.shape) != shape for x, shape in zip(taken, step.shapes, strict=True)
        )

    def _leave_out(self, step: Step, resized: Step) -> None:
        """Says that a step is not judged, as what it is given comes of another size."""
        self.unjudged.add(id(step))
        note = (
            f"{resized.operation} at {resized.name} was called with "
            f"{tuple(resized.shapes[0])}, and Keras has another size there: it can be "
            "judged once the sizes agree"
        )
        if note not in self.notes:
            self.notes.append(note)

    def _pair(self, k: Step, t: Step, inputs: list) -> None:
        wanted = self.keras.inputs_of(k)
        if all(value is not None for value in inputs):
            inputs = self._taken(t, inputs)
        order = self._order(k, t, inputs, wanted)
        output = self.keras.values[k.output]
        before = []
        if order is None:  # another number of inputs, which may hold the same
            if error_between(self._try(t, inputs), output) > TOLERANCE:
                before = [(None, None)]
        else:
            ordered = [wanted[i] for i in order]
            for position, (a, b) in enumerate(zip(ordered, inputs, strict=True)):
                if error_between(b, a) > TOLERANCE:
                    before.append((order[position], position))
        given = wanted if order is None else [wanted[i] for i in order]
        if order is not None and len(given) == len(t.inputs):
            found = self._try(t, given)
        else:
            found = None
        introduced = error_between(found, output)
        if order is None and not before:
            introduced = 0.0
        differs = introduced > TOLERANCE and not _by_number(k, t, given, output)
        if (before or differs) and self._agree_again(k, t, inputs):
            self.introduced[id(t)] = 0.0
            return
        if (before or differs) and self._is_resized(t, inputs):
            self._leave_out(t, t)
            self.introduced[id(t)] = introduced
            self.resized[t.output] = t
            self.values[t.output] = in_shape(output, self.torch.shapes[t.output])
            return
        for ours, theirs in before:
            self._before(k, t, ours, theirs, wanted, inputs)
        if before and differs and self._agree_again(k, t, given):
            self.introduced[id(t)] = 0.0
            return
        if order is not None or not before:
            self.introduced[id(t)] = introduced
            if introduced > TOLERANCE and self._is_resized(t, given):
                self._leave_out(t, t)
            elif introduced > TOLERANCE:
                self.culprits.append(
                    Culprit(k, t, "step", introduced, given, output, found)
                )
        self.values[t.output] = in_shape(output, self.torch.shapes[t.output])

    def _order(self, k: Step, t: Step, inputs: list, wanted: list) -> list | None:
        """Returns which of Keras's inputs is each of PyTorch's; None if none can be."""
        count = len(inputs)
        if count != len(wanted):
            return None
        if count == 1 or k.kind != "merge" or t.kind != "merge":
            return list(range(count))
        if count > 6:
            return list(range(count))
        errors = [error_between(b, a) for a, b in zip(wanted, inputs, strict=True)]
        if max(errors) <= TOLERANCE:
            return list(range(count))
        best = min(
            itertools.permutations(range(count)),
            key=lambda order: sum(
                error_between(inputs[i], wanted[j]) > TOLERANCE
                for i, j in enumerate(order)
            ),
        )
        return list(best)

    def _agree_again(self, k: Step, t: Step, inputs: list) -> bool:
        """Looks for a place behind two steps where both sides agree again.

        Then what lies between is the same function, written differently.
        """
        value = self._try(t, inputs)
        if value is None:
            return False
        theirs = {t.output: value}
        behind = self.torch.steps.index(t) + 1
        steps = [t]
        for step in self.torch.steps[behind : behind + AHEAD]:
            if not any(number in theirs for number in step.inputs):
                continue
            given = [theirs.get(n, self.values.get(n)) for n in step.inputs]
            made = self._try(step, given)
            if made is not None:
                theirs[step.output] = made
                steps.append(step)
        ours = {k.output: self.keras.values[k.output]}
        behind = self.keras.steps.index(k) + 1
        for step in self.keras.steps[behind : behind + AHEAD]:
            if any(number in ours for number in step.inputs):
                ours[step.output] = self.keras.values[step.output]
        plain = error_between(value, self.keras.values[k.output])
        for step in steps:
            made = theirs[step.output]
            for number, wanted in ours.items():
                error = error_between(made, wanted)
                # Weights that were multiplied out were rounded to float32.
                if error <= TOLERANCE or (is_rounding(error) and plain > 1e3 * error):
                    if not self._closed(k, t, number, step):
                        continue
                    self.rounding |= error > TOLERANCE
                    self._group(t, step, theirs, number)
                    return True
        return False

    def _group(self, t: Step, last: Step, theirs: dict, number: int) -> None:
        """Takes the steps up to the place of agreement for one."""
        for step in _inside(self.torch, t, last):
            if step.output in theirs:
                self.grouped.add(id(step))
                self.values[step.output] = theirs[step.output]
        value = self.keras.values[number]
        self.values[last.output] = in_shape(value, self.torch.shapes[last.output])

    def _closed(self, k: Step, t: Step, number: int, last: Step) -> bool:
        """Returns whether nothing else uses what lies between."""
        end = self.keras.producers()[number]
        ours, theirs = _inside(self.keras, k, end), _inside(self.torch, t, last)
        used = self.keras.used_outside(ours, end), self.torch.used_outside(theirs, last)
        return not any(used)

    def _before(self, k, t, ours, theirs, wanted, inputs) -> None:
        """Notes what stands between a pair and the pairs before it."""
        numbers = t.inputs if theirs is None else [t.inputs[theirs]]
        resized = [self.resized[n] for n in numbers if n in self.resized]
        if resized:
            self._leave_out(t, resized[0])
            return
        if ours is None:  # another number of inputs
            only_keras = self._between(self.keras, k.inputs, self.paired_keras)
            only_torch = self._between(self.torch, t.inputs, self.partner)
            found = self._try(t, inputs)
            output = self.keras.values[k.output]
            self.culprits.append(
                Culprit(
                    k,
                    t,
                    "before",
                    error_between(found, output),
                    wanted,
                    output,
                    found,
                    only_keras,
                    only_torch,
                )
            )
            return
        numbers = k.inputs[ours], t.inputs[theirs]
        if numbers not in self.said:  # else another step takes the same two values
            self.said.add(numbers)
            a, b = wanted[ours], inputs[theirs]
            self.culprits.append(self._edge(k, t, *numbers, a, b))

    def _edge(self, k, t, keras_number, torch_number, a, b) -> Culprit:
        only_keras = self._between(self.keras, [keras_number], self.paired_keras)
        only_torch = self._between(self.torch, [torch_number], self.partner)
        base = self._base(keras_number, only_keras)
        first = only_torch[0].inputs if only_torch else [torch_number]
        at_input = self.torch.inputs[0] in first or (
            self.keras.inputs[0]
            in (only_keras[0].inputs if only_keras else [keras_number])
        )
        return Culprit(
            k,
            t,
            "before",
            error_between(b, a),
            [],
            a,
            b,
            only_keras,
            only_torch,
            base,
            at_input,
            self.values.get(first[0]) if only_torch and len(first) == 1 else None,
        )

    def _base(self, number: int, steps: list[Step]) -> list[Tensor]:
        inner = {step.output for step in steps}
        numbers = [n for step in steps for n in step.inputs if n not in inner] or [
            number
        ]
        return [self.keras.values[n] for n in numbers]

    def _between(self, graph: Graph, numbers: list[int], paired: dict) -> list[Step]:
        """Returns the steps without a partner that a value comes through."""
        producers = graph.producers()
        found, waiting = [], list(numbers)
        while waiting:
            step = producers.get(waiting.pop())
            if step is None or id(step) in paired or step in found:
                continue
            if id(step) in self.grouped:
                continue
            found.append(step)
            waiting += step.inputs
        return [step for step in graph.steps if step in found]

    def _outputs(self) -> None:
        """Compares what the two models return."""
        for ours, theirs in zip(self.keras.outputs, self.torch.outputs, strict=False):
            a, b = self.keras.values[ours], self.values.get(theirs)
            if error_between(b, a) > TOLERANCE:
                last = self.torch.producers().get(theirs)
                if last is not None and any(
                    c.torch_step is last for c in self.culprits
                ):
                    continue  # shapes differ at a pair that is a culprit already
                if theirs in self.resized:
                    self._leave_out(last, self.resized[theirs])
                    continue
                self.culprits.append(self._edge(None, None, ours, theirs, a, b))

    def _join_formulas(self) -> None:
        """Takes the culprits of two formulas in which no two steps agree for one.

        Where they also differ in length, it is chance which of their steps are
        partners, and so is what each pair says.
        """
        differ = {id(c.torch_step): c for c in self.culprits if c.kind == "step"}
        for last in differ.values():
            ours = _formula(self.keras, last.keras_step)
            theirs = _formula(self.torch, last.torch_step)
            if ours is None or theirs is None:
                continue
            inner = {id(step) for step in (*ours[1], *theirs[1])}
            pairs = [(k, t) for k, t in self.pairs if {id(k), id(t)} & inner]
            if not all({id(k), id(t)} <= inner and id(t) in differ for k, t in pairs):
                continue
            joined = [c for c in self.culprits if id(c.torch_step) in inner]
            lengths = any(c.kind == "before" for c in joined)
            if lengths and self._same(ours[0], theirs[0]):
                whole = self._whole(last, ours, theirs)
                first, rest = id(joined[0]), {id(c) for c in joined[1:]}
                self.culprits = [
                    whole if id(c) == first else c
                    for c in self.culprits
                    if id(c) not in rest
                ]

    def _same(self, ours: int, theirs: int) -> bool:
        """Returns whether Keras's value came to where PyTorch's is taken."""
        value = self.values.get(theirs)
        return error_between(value, self.keras.values[ours]) <= TOLERANCE

    def _whole(self, last: Culprit, ours: tuple, theirs: tuple) -> Culprit:
        """Returns the difference between two formulas of one value."""
        (number, steps), (other, torch_steps) = ours, theirs
        made = {other: self.values[other]}
        for step in torch_steps:
            made[step.output] = self._try(step, [made[n] for n in step.inputs])
        output, found = last.output, made[last.torch_step.output]
        return Culprit(
            last.keras_step,
            last.torch_step,
            "formula",
            error_between(found, output),
            [],
            output,
            found,
            steps,
            torch_steps,
            [self.keras.values[number]],
        )

    def _leave_out_behind_nan(self) -> None:
        """Drops what was found where one side's own values are NaN or infinite.

        How a model is read rests on its values, and from there on they tell nothing.
        """
        ours: set[int] = set()
        theirs: set[int] = set()
        kept, source = [], ""
        for culprit in self.culprits:
            k, t = culprit.keras_step, culprit.torch_step
            taken = k.inputs if k else self.keras.outputs
            other = t.inputs if t else self.torch.outputs
            if ours & set(taken) or theirs & set(other):
                self.unjudged.add(id(t))
                continue
            kept.append(culprit)
            if culprit.kind != "step" or culprit.found is None:
                continue
            finite, other_finite = map(_is_finite, (culprit.output, culprit.found))
            if other_finite and not finite:
                ours |= self._lost_in_keras(k)
                source = source or k.name
            elif finite and not other_finite:
                theirs |= self._lost_in_torch(t, culprit.found)
                source = source or t.name
        if len(kept) < len(self.culprits):
            self.notes.append(
                f"NaN or infinity arises at {source}: what differs behind it can be "
                "judged once that is mended"
            )
        self.culprits = kept

    def _lost_in_keras(self, first: Step) -> set[int]:
        """Returns the values that come of a step of Keras and are not finite."""
        lost = {first.output}
        for step in self.keras.steps:
            behind = bool(lost & set(step.inputs))
            if behind and not _is_finite(self.keras.values[step.output]):
                lost.add(step.output)
        return lost

    def _lost_in_torch(self, first: Step, value: Tensor) -> set[int]:
        """Returns the values that come of a step of PyTorch's and are not finite."""
        lost: dict[int, Tensor | None] = {first.output: value}
        for step in self.torch.steps:
            if any(number in lost for number in step.inputs):
                given = [lost.get(n, self.values.get(n)) for n in step.inputs]
                made = self._try(step, given)
                if made is None or not _is_finite(made):
                    lost[step.output] = made
        return set(lost)


def _formula(graph: Graph, last: Step) -> tuple[int, list[Step]] | None:
    """Returns what a step joins with something that is computed of it, and the steps.

    None where it is none of these: where a layer lies between, or another value is
    joined.
    """
    producers = graph.producers()
    for root in dict.fromkeys(last.inputs):
        found: dict[int, Step] = {}
        waiting = [last.output]
        while waiting:
            step = producers.get(waiting.pop())
            if step is None or step.is_layer:
                break
            found[step.output] = step
            waiting += [n for n in step.inputs if n != root and n not in found]
        else:
            return root, [step for step in graph.steps if step.output in found]
    return None


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _by_number(k: Step, t: Step, inputs: list[Tensor], output: Tensor) -> bool:
    """Returns whether one number or function explains it: nothing makes up for that."""
    if k.kind != t.kind:
        return False
    for name in NUMBERS:
        ours, theirs = k.parameters.get(name), t.parameters.get(name)
        if isinstance(ours, Tensor) or ours == theirs:
            continue
        try:
            made = operations.run(t.kind, t.parameters | {name: ours}, inputs)
        except (RuntimeError, ValueError, TypeError, IndexError):
            continue
        if error_between(made, output) <= TOLERANCE:
            return True
    return False


def _inside(graph: Graph, first: Step, last: Step) -> list[Step]:
    """Returns the steps on the ways from one step to another, both counted."""
    start = graph.steps.index(first)
    behind = {first.output}
    for step in graph.steps[start + 1 :]:
        if any(number in behind for number in step.inputs):
            behind.add(step.output)
    wanted = {last.output}
    found = []
    for step in reversed(graph.steps[start:]):
        if step.output in wanted and step.output in behind:
            found.append(step)
            wanted.update(step.inputs)
    return found[::-1]
