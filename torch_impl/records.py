"""Event files for TensorBoard."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from parity.spec.errors import UsageError


class EventWriter:
    """Writes a run's epochs as points of charts; train and test share one.

    The files of a run that went on are read as one. Each begins with a mark at which
    TensorBoard forgets the points that an earlier one, ended between its event file
    and its checkpoint, has from there on.
    """

    def __init__(self, folder: Path, first_epoch: int = 0):
        """Begins a file in the folder `tensorboard` of a run folder.

        Args:
            folder: the run folder.
            first_epoch: epochs that are done and stay; points after them go.

        Raises:
            UsageError: TensorBoard is not installed, or the folder cannot be made.
        """
        folder = Path(folder) / "tensorboard"
        if not importlib.util.find_spec("tensorboard"):
            raise UsageError(
                "--tensorboard needs the package tensorboard: pip install tensorboard"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make {folder}: {error.strerror}") from None
        # Without this module TensorBoard loads TensorFlow where it is installed, to
        # write files with; triton, loaded after that, would abort the process.
        if "tensorflow" not in sys.modules:
            name = "tensorboard.compat.notf"
            sys.modules.setdefault(name, ModuleType(name))
        from torch.utils.tensorboard import SummaryWriter

        # A new run has the mark too: readers pass over the first that they see.
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch + 1)

    def write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Adds a point to each metric's chart; it is in the file at once.

        Args:
            epoch: from 1, as in metrics.jsonl.
            metrics: name to value; "train_loss" is in chart "loss/train".
        """
        for name, value in metrics.items():
            if name != "epoch":
                self._writer.add_scalar(_tag(name), value, epoch, new_style=True)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


def _tag(name: str) -> str:
    part, _, quantity = name.partition("_")
    return f"{quantity}/{part}" if part in ("train", "test") else name
