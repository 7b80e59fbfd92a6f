"""Whether two trainings are as accurate as each other, by a paired test over seeds."""

import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from parity.frameworks import keras  # noqa: F401  (the order of imports)
from keras_impl.train import train as train_keras
from parity.spec import runs
from parity.spec.errors import UsageError
from torch_impl.train import train as train_torch

MARGIN = 0.01  # one percentage point
LEVEL = 0.05


@dataclass(frozen=True)
class Equivalence:
    """The outcome of two one-sided paired t-tests; `print(result)` shows it.

    Attributes:
        keras_accuracies: one per seed.
        torch_accuracies: likewise.
        difference: the mean of keras - torch.
        p_value: of the hypothesis that the means are at least MARGIN apart.
        equivalent: whether that hypothesis is rejected at LEVEL.
        first_seed: the seed of the first accuracies.
    """

    keras_accuracies: tuple[float, ...]
    torch_accuracies: tuple[float, ...]
    difference: float
    p_value: float
    equivalent: bool
    first_seed: int = 0

    def __str__(self) -> str:
        """Returns a line per seed and the verdict."""
        pairs = zip(self.keras_accuracies, self.torch_accuracies, strict=True)
        lines = [
            f"  seed {seed}  keras {ours:.4f}  torch {theirs:.4f}  "
            f"difference {ours - theirs:+.4f}"
            for seed, (ours, theirs) in enumerate(pairs, self.first_seed)
        ]
        verdict = "equivalent" if self.equivalent else "not shown to be equivalent"
        differences = np.subtract(self.keras_accuracies, self.torch_accuracies)
        reason = f"two one-sided paired t-tests, p = {self.p_value:.1e}"
        if np.ptp(differences) == 0:
            reason = "the same difference with every seed"
        lines.append(
            f"mean difference {self.difference:+.4f}: {verdict} within {MARGIN} "
            f"({reason})"
        )
        return "\n".join(lines)


def paired_equivalence(
    keras_accuracies: list[float], torch_accuracies: list[float]
) -> Equivalence:
    """Tests whether two sides' mean accuracies differ by less than MARGIN.

    Two one-sided tests (Schuirmann 1987): that there is no proof of a difference does
    not count; that the difference is small has to be shown.

    Args:
        keras_accuracies: fractions, one per seed.
        torch_accuracies: of the same seeds.

    Raises:
        UsageError: there are fewer than two seeds.
    """
    from scipy.stats import ttest_1samp

    if len(keras_accuracies) < 2:
        raise UsageError("one seed proves nothing: give 2 or more")
    differences = np.subtract(keras_accuracies, torch_accuracies)
    difference = float(differences.mean())
    if np.ptp(differences) == 0:  # no variance: the t statistic would be 0 / 0
        p_value = 0.0 if abs(difference) < MARGIN else 1.0
    else:
        above = ttest_1samp(differences, -MARGIN, alternative="greater").pvalue
        below = ttest_1samp(differences, MARGIN, alternative="less").pvalue
        p_value = float(max(above, below))
    return Equivalence(
        tuple(keras_accuracies),
        tuple(torch_accuracies),
        difference,
        p_value,
        p_value < LEVEL,
    )


def compare_accuracies(options: runs.Options, seeds: int) -> Equivalence:
    """Trains both sides with each seed and tests their accuracies for equivalence.

    Both start from the PyTorch side's initial weights and see the same batches.

    Args:
        options: of the trainings; weights and output are set here.
        seeds: how many, from the options' seed on.
    """
    accuracies = {"keras": [], "torch": []}
    first = options.seed
    for seed in tqdm(
        range(first, first + seeds),
        "seeds",
        leave=False,
        disable=not sys.stderr.isatty(),
    ):
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            path = Path(folder)
            options = replace(options, seed=seed, quiet=True, weights=None)
            theirs = train_torch(replace(options, output=path / "torch"))
            weights = theirs.folder / "initial.safetensors"
            options = replace(options, output=path / "keras", weights=weights)
            ours = train_keras(options)
        accuracies["keras"].append(ours.epochs[-1]["test_accuracy"])
        accuracies["torch"].append(theirs.epochs[-1]["test_accuracy"])
    result = paired_equivalence(accuracies["keras"], accuracies["torch"])
    return replace(result, first_seed=first)
