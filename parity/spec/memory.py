"""How much memory this process has."""

import contextlib
import sys
from pathlib import Path

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None


def field(name: str) -> int | None:
    """Returns the bytes in a field of Linux's /proc/self/status; None elsewhere.

    VmHWM is the peak; RssAnon is without the pages of files mapped into memory.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def peak() -> int:
    """Returns the most bytes that this process has had, 0 where that is unknown."""
    # What getrusage says is the peak of the process it was started by, if greater.
    if (found := field("VmHWM")) is not None:
        return found
    if not resource:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
