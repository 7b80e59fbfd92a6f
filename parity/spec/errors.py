"""Errors that a user can mend: one line that names the value and what would do."""

import difflib
from collections.abc import Iterable

OUT_OF_MEMORY = "out of memory; a smaller --batch-size or --image-size would do"


class UsageError(ValueError):
    """A wrong name, number, file or combination; programs exit with code 2."""


class Failure(Exception):
    """What ends a run that was rightly asked for; programs exit with its code.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


class WeightMismatch(UsageError):
    """Two sets of tensors that are not one to one; lists every one that is not."""


def unknown(kind: str, value: str, choices: Iterable[str]) -> UsageError:
    """Returns the error for a name that is not among the choices, near ones first."""
    choices = list(choices)
    near = [choice for choice in choices if value and choice.startswith(value)][:3]
    near = near or difflib.get_close_matches(value, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UsageError(
        f"unknown {kind} {value!r}; {hint}choose from {', '.join(choices)}"
    )
