"""The command `python -m parity device-report`: one page on this machine.

Importing this loads no framework, so that a wrong argument is answered at once.
"""

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

from parity.device.judge import VERDICTS, Comparison
from parity.device.networks import STEPS, convolution_job, network_job, step_job
from parity.device.parts import PARTS, Job, Sides, Speed, attempt_job
from parity.device.side import installed
from parity.device.training import (
    ACCURACY,
    LOCKSTEP,
    SPEED,
    accuracy_jobs,
    lockstep_jobs,
    speed_jobs,
)
from parity.ops_command import check_writable
from parity.probe import DEEP
from parity.spec import cli, recipes
from parity.spec.errors import UsageError
from parity.spec.files import plain, write_atomically, write_json

MINUTES = 8.0


@dataclass(frozen=True)
class DeviceReport:
    """What was found on a machine.

    Attributes:
        date: "2026-01-31".
        command: that made it.
        seconds: that it took.
        machine: processor, memory, GPU and driver, in words.
        sides: versions and GPU of each framework.
        comparisons: all, those that were not run too.
        speeds: likewise.
    """

    date: str
    command: str
    seconds: float
    machine: dict[str, str]
    sides: dict[str, dict]
    comparisons: list[Comparison]
    speeds: list[Speed]

    @property
    def counts(self) -> dict[str, int]:
        """The number of comparisons of each verdict; a missing speed is "not run"."""
        found = Counter(x.verdict for x in self.comparisons)
        found["not run"] += sum(x.images_per_second is None for x in self.speeds)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def different(self) -> list[Comparison]:
        """The comparisons that are different."""
        return [x for x in self.comparisons if x.verdict == "different"]

    def to_dict(self) -> dict[str, object]:
        """Returns all of it as JSON has it; an infinite error is a string."""
        return plain({"verdicts": self.counts} | asdict(self))

    @classmethod
    def from_dict(cls, content: dict) -> "DeviceReport":
        """Returns the report that `to_dict` wrote."""
        content = {field.name: content[field.name] for field in fields(cls)}
        for name, kind in (("comparisons", Comparison), ("speeds", Speed)):
            content[name] = [kind(**_read(item)) for item in content[name]]
        return cls(**content)


def _read(item: dict) -> dict:
    """Returns a comparison's fields with tuples, and numbers where strings stand."""
    item = dict(item)
    for name in ("error", "bound", "images_per_second"):
        item |= {name: float(item[name])} if isinstance(item.get(name), str) else {}
    if item.get("errors"):
        item["errors"] = tuple(map(float, item["errors"]))
    if "pair" in item:
        item["pair"] = tuple(item["pair"])
    return item


def add_arguments(commands) -> None:
    """Adds the command to the others."""
    report = commands.add_parser(
        "device-report",
        help="outputs, gradients, training and speed on this machine: CPU against "
        "GPU, Keras against PyTorch",
    )
    report.add_argument(
        "--output",
        type=_page,
        required=True,
        metavar="FILE.md",
        help="the page; FILE.json is written beside it",
    )
    report.add_argument(
        "--minutes",
        type=cli.positive_float,
        default=MINUTES,
        metavar="N",
        help="what does not fit is listed as not run (default: 8)",
    )
    report.add_argument(
        "--models",
        type=cli.some_of("model", tuple(recipes.names())),
        metavar="MODEL,...",
        help="default: all",
    )
    report.add_argument(
        "--separate-processes",
        action="store_true",
        help="each framework in a process of its own, compared through files",
    )


def _page(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".md":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .md")
    return path


def main(arguments: argparse.Namespace) -> int:
    """Makes the report and writes it; 1 when anything is different."""
    from parity.device.page import page

    check_writable(arguments.output)
    models = list(arguments.models or recipes.names())
    report = make(
        models,
        minutes=arguments.minutes,
        apart=arguments.separate_processes,
        command=_command(arguments),
    )
    text = page(report)
    write_atomically(arguments.output, lambda path: path.write_text(text, "utf-8"))
    write_json(arguments.output.with_suffix(".json"), report.to_dict())
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items())
    print(f"{counts}; written to {arguments.output}")
    return int(bool(report.different))


def _command(arguments: argparse.Namespace) -> str:
    """Returns the command without the folders of this machine."""
    words = ["python -m parity device-report --output", arguments.output.name]
    if arguments.minutes != MINUTES:
        words += ["--minutes", f"{arguments.minutes:g}"]
    if arguments.models:
        words += ["--models", ",".join(arguments.models)]
    if arguments.separate_processes:
        words.append("--separate-processes")
    return " ".join(words)


def make(
    models: Sequence[str],
    *,
    minutes: float = MINUTES,
    apart: bool = False,
    command: str = "",
) -> DeviceReport:
    """Runs all parts on whatever is installed.

    Args:
        models: names.
        minutes: for all of it.
        apart: whether each framework has a process of its own.
        command: to write on the page.

    Raises:
        UsageError: no framework is installed.
    """
    frameworks = installed()
    if not frameworks:
        raise UsageError(
            "neither Keras with TensorFlow nor PyTorch with torchvision is installed"
        )
    start, hardware = time.monotonic(), machine()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        sides = Sides(frameworks, apart, Path(folder), start + 60 * minutes)
        try:
            jobs = plan(sides, models)
            found = work(jobs, start, 60 * minutes, _progress(len(jobs)))
        finally:
            sides.close()
    return DeviceReport(
        date.today().isoformat(),
        command,
        round(time.monotonic() - start, 1),
        hardware,
        sides.facts,
        [x for x in found if isinstance(x, Comparison)],
        [x for x in found if isinstance(x, Speed)],
    )


def plan(sides: Sides, models: Sequence[str]) -> list[Job]:
    """Returns all jobs, the most important first, deep networks after the others."""
    jobs = [network_job(sides, name) for name in sorted(models, key=DEEP.__contains__)]
    jobs.append(convolution_job(sides))
    jobs += [step_job(sides, name) for name in STEPS if name in models]
    for settings, make_jobs in (
        (LOCKSTEP, lockstep_jobs),
        (ACCURACY, accuracy_jobs),
        (SPEED, speed_jobs),
    ):
        for name in settings:
            jobs += make_jobs(sides, name) if name in models else []
    return [job for job in jobs if job.planned]


def work(
    jobs: Sequence[Job],
    start: float,
    seconds: float,
    progress: Callable[[str], None] = lambda title: None,
) -> list[Comparison | Speed]:
    """Returns all jobs' results in order, of those that do not fit their plans.

    A job is begun if the longest of its part so far would be done in the part's time.
    What the parts leave goes to the jobs that were left out.

    Args:
        jobs: the most important first.
        start: of time.monotonic.
        seconds: for all of them.
        progress: told the title of each job before it is run.
    """
    found, longest = {}, Counter()
    for shares in (PARTS, dict.fromkeys(PARTS, 1.0)):
        for index, job in enumerate(jobs):
            begun = time.monotonic()
            end = begun - start + longest[job.part]
            if index in found or end >= shares[job.part] * seconds:
                continue
            progress(f"{job.part}: {job.name}")
            found[index] = attempt_job(job)
            passed = time.monotonic() - begun
            longest[job.part] = max(longest[job.part], passed)
    return [
        item
        for index, job in enumerate(jobs)
        for item in found.get(index, job.not_run("time"))
    ]


def _progress(count: int) -> Callable[[str], None]:
    """Returns what shows on a terminal which job is run, and how many are left."""
    from tqdm import tqdm

    bar = tqdm(total=count, file=sys.stderr, disable=None, leave=False)

    def show(title: str) -> None:
        bar.set_description(title)
        bar.update()

    return show


def machine() -> dict[str, str]:
    """Returns the hardware and the system in words, without the machine's name."""
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    found = {"CPU": f"{_processor()}, {cores} cores"}
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{size / 2**30:.0f} GiB"
    with contextlib.suppress(OSError, AttributeError):
        found["CPU"] += f", load {os.getloadavg()[0]:.1f} at the start"
    found["GPU by nvidia-smi"] = _nvidia_smi() or "none"
    found["system"] = platform.system()
    with contextlib.suppress(OSError):
        found["system"] = platform.freedesktop_os_release()["PRETTY_NAME"]
    found["Python"] = platform.python_version()
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _nvidia_smi() -> str | None:
    """Returns each GPU's name, memory, driver and compute capability."""
    program = shutil.which("nvidia-smi")
    if not program:
        return None
    query = "--query-gpu=name,memory.total,driver_version,compute_cap"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    gpus = []
    for line in done.stdout.strip().splitlines():
        name, memory, driver, capability = (x.strip() for x in line.split(","))
        gpus.append(
            f"{name}, {memory}, driver {driver}, compute capability {capability}"
        )
    return "; ".join(gpus) or None
