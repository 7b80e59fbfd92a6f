"""The device report as a page of Markdown."""

from collections import Counter
from collections.abc import Iterable

from parity.device.judge import VERDICTS, Comparison
from parity.device.parts import DTYPES, PARTS
from parity.device.report import DeviceReport

FRAMEWORKS = {"keras": "Keras", "torch": "PyTorch"}
SHOWN = 20  # differences, and reasons, in the first lists

JUDGED = """\
## How it is judged

- **float64**: equal when the relative L2 error of every tensor is at most 1e-10
  (outputs), 1e-9 (gradients) or 1e-12 (one convolution).
- **float32, TensorFloat-32, bfloat16**: each result is held against the float64 answer
  of its own framework on the CPU. It is *rounding* within what the type's rounding
  explains, and *different* beyond. For networks that is measured: the weights and the
  images are put off in float64 by as much as the type rounds. For one convolution it
  is the bound of a sum of products. A cell shows the errors of either, and the bound in
  brackets, of the tensor that comes nearest to it. Where a bound is above 1 there is
  nothing left to judge, as in a bias's gradient in bfloat16: TensorFlow's CPU kernel
  adds it up in bfloat16.
- **TensorFloat-32** is on for its own rows only. **bfloat16** is automatic mixed
  precision: layers compute in it, weights and loss stay float32.
- **steps**: losses of the first steps, and all weights after them; equal within 1e-9.
- **lockstep**: both sides train from the same weights on the same batches, and batch,
  loss, gradients and weights are compared each step.
- **accuracy**: two trainings from the same weights, equal within three standard
  deviations of two samples of one accuracy.
"""


def page(report: DeviceReport) -> str:
    """Returns the whole page; the verdict stands on its first screen."""
    parts = [
        f"# Device report: {_title(report)}",
        _verdict(report),
        _machine(report),
        _networks(report),
        _convolutions(report),
        _training(report),
        _speeds(report),
        _not_run(report),
        JUDGED,
    ]
    return "\n".join(f"{part.rstrip()}\n" for part in parts if part)


def _title(report: DeviceReport) -> str:
    gpus = {side["gpu"]["name"] for side in report.sides.values() if side["gpu"]}
    cpu = report.machine.get("CPU", "CPU").split(", load")[0]
    return f"{', '.join(sorted(gpus))}; {cpu}" if gpus else cpu


def _verdict(report: DeviceReport) -> str:
    counts = report.counts
    judged = sum(counts.values()) - counts["not run"]
    lines = []
    without = [
        FRAMEWORKS[name] for name, side in report.sides.items() if not side["gpu"]
    ]
    if len(without) == len(report.sides):
        listed = report.machine.get("GPU by nvidia-smi", "none") != "none"
        although = ", although nvidia-smi lists one" if listed else ""
        lines.append(
            f"**No GPU**: {' and '.join(without)} see{'s' * (len(without) == 1)} none "
            f"here{although}, so everything below is the CPU's.\n"
        )
    elif without:
        lines.append(f"**{without[0]} sees no GPU here.**\n")
    if len(report.sides) == 1:
        (name,) = report.sides
        lines.append(f"**Only {FRAMEWORKS[name]} is installed.**\n")
    what = f"{counts['different']} different" if counts["different"] else "none differs"
    verdict = f"{judged} comparisons, {what}" if judged else "nothing was compared"
    lines += [f"**Verdict: {verdict}.**\n"]
    header = ["part", *VERDICTS]
    rows = []
    for part in PARTS:
        found = Counter(x.verdict for x in report.comparisons if x.part == part)
        if found:
            rows.append([part, *(found[verdict] for verdict in VERDICTS)])
    missing = sum(x.images_per_second is None for x in report.speeds)
    if report.speeds:
        rows.append(["speed", "", "", "", missing])
    rows.append(["**all**", *(counts[verdict] for verdict in VERDICTS)])
    lines.append(table(header, rows))
    for item in report.different[:SHOWN]:
        lines.append(f"- **different**: {_sentence(item)}")
    if len(report.different) > SHOWN:
        lines.append(f"- and {len(report.different) - SHOWN} more, see below")
    lines.append(
        f"\nMade on {report.date} in {report.seconds / 60:.1f} minutes by "
        f"`{report.command}`; all numbers are in the JSON file beside this page."
    )
    return "\n".join(lines)


def _sentence(item: Comparison) -> str:
    between = " and ".join(map(_place, item.pair))
    text = f"{item.name}, {item.quantity} in {item.dtype}, {between}: {_numbers(item)}"
    return f"{text}, {item.note}" if item.note else text


def _machine(report: DeviceReport) -> str:
    rows = [[name, value] for name, value in report.machine.items()]
    for framework, side in report.sides.items():
        name = FRAMEWORKS[framework]
        versions = ", ".join(f"{k} {v}" for k, v in side["versions"].items())
        rows.append([f"{name} side", versions or f"cannot be used: {side['error']}"])
        gpu = side["gpu"]
        text = ", ".join(f"{k} {v}" for k, v in gpu.items()) if gpu else "none"
        rows.append([f"{name}'s GPU", text])
    return f"## Machine\n\n{table(['', ''], rows)}"


def _networks(report: DeviceReport) -> str:
    found = [x for x in report.comparisons if x.part == "networks"]
    text = "## Networks\n\nOutputs and gradients of every architecture.\n"
    for dtype in DTYPES:
        run = {x.name for x in found if x.dtype == dtype and x.verdict != "not run"}
        items = [x for x in found if x.dtype == dtype and x.name in run]
        pairs = list(dict.fromkeys(x.pair for x in items))
        cells = {(x.name, x.quantity, x.pair): _cell(x) for x in items}
        rows = [
            [name, quantity, *(cells.get((name, quantity, pair), "") for pair in pairs)]
            for name, quantity in dict.fromkeys((x.name, x.quantity) for x in items)
        ]
        if rows:
            header = ["network", "", *map(_between, pairs)]
            text += f"\n### {dtype}\n\n{table(header, rows)}"
    return text if found else ""


def _convolutions(report: DeviceReport) -> str:
    found = [x for x in report.comparisons if x.part == "conv2d"]
    rows = []
    for dtype, pair in dict.fromkeys((x.dtype, x.pair) for x in found):
        items = [x for x in found if (x.dtype, x.pair) == (dtype, pair)]
        counts = Counter(x.verdict for x in items)
        largest = max((x.error for x in items if x.error is not None), default=None)
        numbers = [counts[verdict] for verdict in VERDICTS]
        rows.append([dtype, _between(pair), *numbers, number(largest)])
    if not rows:
        return ""
    header = ["", "", *VERDICTS, "largest error"]
    count = len({x.name for x in found})
    return (
        f"## `tf.nn.conv2d` and `torch.nn.functional.conv2d`\n\n{count} cases, outputs "
        f"and gradients.\n\n{table(header, rows)}"
    )


def _training(report: DeviceReport) -> str:
    rows = [
        [x.part, x.name, x.quantity, x.dtype, _between(x.pair), _cell(x), x.note]
        for x in report.comparisons
        if x.part in ("steps", "lockstep", "accuracy")
    ]
    if not rows:
        return ""
    header = ["", "network", "", "type", "", "verdict", ""]
    return f"## Training\n\n{table(header, rows)}"


def _speeds(report: DeviceReport) -> str:
    rows = [
        [
            x.name,
            _place(x.place),
            x.image_size,
            x.batch_size,
            f"not run: {x.note}"
            if x.images_per_second is None
            else f"{x.images_per_second:,.0f}",
        ]
        for x in report.speeds
    ]
    if not rows:
        return ""
    header = ["network", "", "pixels", "batch", "images per second"]
    text = "Training steps in float32 on one batch that stays on the device. They are\n"
    text += "as fast as a free machine's only where the load above is low."
    return f"## Speed\n\n{text}\n\n{table(header, rows)}"


def _not_run(report: DeviceReport) -> str:
    reasons = {}
    for item in report.comparisons:
        if item.verdict == "not run":
            cases = "all cases" if item.part == "conv2d" else item.name
            names = reasons.setdefault((item.part, item.note), {})
            names.setdefault(cases, []).append(item)
    for item in report.speeds:
        if item.images_per_second is None:
            names = reasons.setdefault(("speed", item.note), {})
            names.setdefault(item.name, []).append(item)
    if not reasons:
        return ""
    rows = [
        [part, why, ", ".join(f"{name} ({len(x)})" for name, x in names.items())]
        for (part, why), names in reasons.items()
    ]
    header = ["part", "reason", "what (how many)"]
    return f"## Not run\n\n{table(header, rows)}"


def _cell(item: Comparison) -> str:
    if item.verdict == "not run":
        return "not run"
    verdict = item.verdict if item.verdict != "different" else "**different**"
    return f"{verdict}, {_numbers(item)}"


def _numbers(item: Comparison) -> str:
    if item.errors is None:
        bound = "" if item.bound is None else f" ({number(item.bound)})"
        return number(item.error) + bound
    first, second = map(number, item.errors)
    return f"{first} and {second} ({number(item.bound)})"


def _place(place: str) -> str:
    framework, device = place.split()
    return f"{FRAMEWORKS[framework]} {device.upper()}"


def _between(pair: tuple[str, str]) -> str:
    first, second = map(_place, pair)
    return f"{first}, {second}"


def number(value: float | None) -> str:
    """Returns an error in two digits."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Returns a table of Markdown as GitHub shows it."""
    lines = [header := list(header), ["---"] * len(header), *rows]
    text = (" | ".join(str(x).replace("|", "\\|") for x in line) for line in lines)
    return "".join(f"| {line} |\n" for line in text)
