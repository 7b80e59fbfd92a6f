"""The command `python -m parity score`: faulty ports, and who finds what in them.

Importing this loads no framework.
"""

import argparse
import fnmatch
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from parity.ops_command import check_writable
from parity.spec import cli
from parity.spec.errors import UsageError
from parity.spec.files import write_json

if TYPE_CHECKING:
    from parity.diagnosis.findings import Finding
    from parity.faults import Case, Expected, Pair

# What a score must reach, as parts of the cases that it is about.
TARGETS = {"detected": 1.0, "layer": 0.98, "cause": 0.95, "several": 0.9}


@dataclass(frozen=True)
class Outcome:
    """What was said of one case.

    Attributes:
        name: of the case.
        group: the first word of its cause: "conv", "several", "equal".
        cause: the identifier, "several" or "equal".
        network: what it was planted in.
        place: "early", "middle", "late" or "whole".
        scale: of the images.
        level: of the diagnosis.
        detected: whether any difference was found.
        layer: whether each difference that was planted was found at its layer.
        named: whether each was found there with its cause.
        both: whether the layer of either side is right, where one suffices for `layer`.
        others: findings that are none of what was planted, nor follow from it.
        expected: what was planted, in words.
        said: what was found, in words.
        seconds: that the diagnosis took.
        error: what it raised, if it did.
        gates: what other tools say of the outputs; empty where these are equal and
            the fault is one of the gradients or of the optimizer.
    """

    name: str
    group: str
    cause: str
    network: str
    place: str
    scale: float
    level: str
    detected: bool
    layer: bool
    named: bool
    both: bool
    others: int
    expected: tuple[str, ...]
    said: tuple[str, ...]
    seconds: float
    error: str = ""
    gates: dict[str, bool] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether all was found, or nothing in a pair that is equal."""
        if self.cause == "equal":
            return not self.detected and not self.error
        return self.detected and self.layer and self.named


@dataclass(frozen=True)
class Score:
    """All outcomes, and what they come to."""

    outcomes: tuple[Outcome, ...]

    def chosen(self, group: str) -> list[Outcome]:
        """Returns the outcomes of a group."""
        return [x for x in self.outcomes if x.group == group]

    @property
    def groups(self) -> list[str]:
        """The groups, "several" and "equal" last."""
        names = dict.fromkeys(x.group for x in self.outcomes)
        return sorted(names, key=("several", "equal").__contains__)

    @property
    def parts(self) -> dict[str, float | None]:
        """What of the faults was found; None of what there is none of."""
        faulty = [x for x in self.outcomes if x.group != "equal"]
        single = [x for x in faulty if x.group != "several"]
        return {
            "detected": _part(x.detected for x in faulty),
            "layer": _part(x.layer for x in single),
            "cause": _part(x.named for x in single),
            "several": _part(x.right for x in self.chosen("several")),
            "accused": _part(x.detected for x in self.chosen("equal")),
        }

    @property
    def reached(self) -> bool:
        """Whether every target is reached and no equal pair was accused."""
        parts = self.parts
        found = (
            part is None or part >= TARGETS.get(x, 0.0) for x, part in parts.items()
        )
        return all(found) and not parts["accused"]

    def to_dict(self) -> dict[str, object]:
        """Returns the parts and all outcomes as plain values."""
        return {
            "parts": self.parts,
            "targets": TARGETS | {"accused": 0.0},
            "reached": self.reached,
            "outcomes": [asdict(x) | {"right": x.right} for x in self.outcomes],
        }


def _part(found: Iterable[bool]) -> float | None:
    found = list(found)
    return sum(found) / len(found) if found else None


def sample(cases: Sequence["Case"], count: int) -> list["Case"]:
    """Returns some of the cases, the same ones every time, spread over the causes.

    A quarter of them are equal pairs; several faults at once count as one cause.
    """
    by_cause: dict[str, list] = {"several": []}  # the first, never left out
    for case in cases:
        by_cause.setdefault(case.cause, []).append(case)
    equal = _spread(by_cause.pop("equal", []), count // 4)
    rows = [_spread(found, len(found)) for found in by_cause.values()]
    turns = max(map(len, rows), default=0)
    faulty = [row[turn] for turn in range(turns) for row in rows if turn < len(row)]
    return faulty[: count - len(equal)] + equal


def _spread(items: list, count: int) -> list:
    """Returns items from all over a list: any first few are far from each other."""
    golden = 0.618033988749895
    order = sorted(range(len(items)), key=lambda i: (i + 1) * golden % 1)
    return [items[i] for i in order[:count]]


def score(
    cases: Iterable["Case"], progress: Callable[[str], None] = lambda name: None
) -> Score:
    """Diagnoses cases.

    Args:
        cases: of `parity.faults`.
        progress: told the name of each case before it is built.
    """
    from parity.frameworks import keras

    outcomes = []
    for case in cases:
        progress(case.name)
        outcomes.append(judge(case))
        if len(outcomes) % 50 == 0:
            keras.backend.clear_session()  # takes as long as several cases
    return Score(tuple(outcomes))


def judge(case: "Case") -> Outcome:
    """Diagnoses one case, and asks the gates of other tools."""
    from parity.diagnosis.diagnose import diagnose

    pair = case.make()
    start, error, findings, verdict = time.perf_counter(), "", (), "different"
    try:
        diagnosis = diagnose(
            pair.keras_model,
            pair.torch_model,
            pair.images,
            labels=pair.labels,
            level=pair.level,
            weights=pair.weights,
            **pair.arguments,
        )
        findings, verdict = diagnosis.findings, diagnosis.verdict
    except Exception as raised:  # a diagnosis that fails is a miss, whatever it raises
        error = f"{type(raised).__name__}: {raised}".splitlines()[0]
    seconds = time.perf_counter() - start
    found = [_matching(expected, findings) for expected in pair.expected]
    gates = {} if error and not pair.expected else _gates(pair)
    return Outcome(
        case.name,
        case.cause.split(".")[0],
        case.cause,
        case.network,
        case.place,
        case.scale,
        pair.level,
        not error and (verdict == "different" or bool(findings)),
        all(found),
        all(map(_names, pair.expected, found)),
        all(map(_on_both_sides, pair.expected, found)),
        sum(not any(_belongs(x, y) for y in pair.expected) for x in findings),
        tuple(map(_planted, pair.expected)),
        tuple(map(_said, findings)),
        seconds,
        error,
        gates,
    )


def _matching(expected: "Expected", findings: Sequence["Finding"]) -> list["Finding"]:
    """Returns the findings at a layer at which something was planted."""
    return [
        finding
        for finding in findings
        if finding.keras_name in expected.keras_names
        or finding.torch_name in expected.torch_names
    ]


def _on_both_sides(expected: "Expected", findings: Sequence["Finding"]) -> bool:
    return any(
        x.keras_name in expected.keras_names and x.torch_name in expected.torch_names
        for x in findings
        if {x.cause, *x.ties} & set(expected.causes)
    )


def _belongs(finding: "Finding", expected: "Expected") -> bool:
    """Returns whether a finding is what was planted, or follows from it."""
    known = {*expected.causes, *expected.also}
    said = {finding.cause, *finding.ties}
    return bool(_matching(expected, [finding]) and known & said)


def _names(expected: "Expected", findings: Sequence["Finding"]) -> bool:
    causes = {cause for x in findings for cause in (x.cause, *x.ties)}
    return bool(causes & set(expected.causes))


def _planted(expected: "Expected") -> str:
    places = "/".join(expected.keras_names), "/".join(expected.torch_names)
    return f"{'|'.join(expected.causes)} at {places[0]} | {places[1]}"


def _said(finding: "Finding") -> str:
    ties = f" (or {', '.join(finding.ties)})" if finding.ties else ""
    after = "-" if finding.error_after is None else f"{finding.error_after:.1e}"
    return (
        f"{finding.cause}{ties} at {finding.keras_name} | {finding.torch_name}: "
        f"{finding.error_before:.1e} -> {after}"
    )


def _gates(pair: "Pair") -> dict[str, bool]:
    """Returns what other tools say of the outputs in float32."""
    import numpy as np

    from parity.frameworks import torch
    from parity.faults.gates import verdicts

    if pair.level != "forward":
        return {}
    pair.transfer()
    images = pair.images
    if not isinstance(images, tuple):
        images = (images, np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    ours = np.array(pair.keras_model(images[0], training=False))
    with torch.no_grad():
        theirs = pair.torch_model(torch.from_numpy(images[1].copy())).numpy()
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    return verdicts(ours, theirs)


def add_arguments(commands) -> None:
    """Adds the command to the others."""
    command = commands.add_parser(
        "score",
        help="diagnoses faulty ports and equal ones: what is found, named, accused, "
        "and what other tools' gates say",
    )
    command.add_argument(
        "--only",
        metavar="PATTERN",
        help="cases whose names match, such as 'bn.*' or '*/residual/*'",
    )
    command.add_argument(
        "--sample",
        type=cli.positive,
        metavar="N",
        help="a fixed choice, spread over the causes",
    )
    command.add_argument(
        "--draw",
        type=cli.positive,
        metavar="N",
        help="pairs drawn by chance in the place of those of the lists",
    )
    command.add_argument("--seed", type=int, default=0, help="of what is drawn")
    command.add_argument(
        "--list", action="store_true", help="the names, without running them"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="every outcome")


def main(arguments: argparse.Namespace) -> int:
    """Prints the score; 1 where a target is missed."""
    if arguments.json:
        check_writable(arguments.json)
    from parity import faults

    cases = faults.cases()
    if arguments.draw:
        cases = list(faults.drawn.cases(arguments.seed, arguments.draw))
    if arguments.only:
        cases = [x for x in cases if fnmatch.fnmatch(x.name, arguments.only)]
        if not cases:
            raise UsageError(f"no case matches {arguments.only!r}; --list names all")
    if arguments.sample:
        cases = sample(cases, arguments.sample)
    if arguments.list:
        print(*(case.name for case in cases), sep="\n")
        return 0
    found = score(cases, _progress(len(cases)))
    from parity.score_table import show

    show(found)
    if arguments.json:
        write_json(arguments.json, found.to_dict())
    return int(not found.reached)


def _progress(count: int) -> Callable[[str], None]:
    """Returns what shows on a terminal which case is run, and how many are left."""
    from tqdm import tqdm

    bar = tqdm(total=count, file=sys.stderr, disable=None, leave=False)

    def show_name(name: str) -> None:
        bar.set_description(name[:60])
        bar.update()

    return show_name
