"""Several processes that train one model, each on its part of every batch.

`torchrun --nproc-per-node 2 -m torch_impl.train lenet5` starts them. Each computes the
gradient on its part, and all make the same step with the sum. Batch normalisation
takes the statistics of each part, or with --sync-bn of the whole batch; the running
statistics are the means over the processes.
"""

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn

from parity.spec import devices, metrics
from parity.spec.errors import Failure, UsageError

# Seconds that a process waits for the others in a step, and where one of them reads
# the data.
TIMEOUT = 600
PATIENCE = 3600


class Group:
    """The processes that train one model.

    Attributes:
        rank: which this one is, from 0; the first writes.
        size: how many there are.
        folder: of the run, as the first one has it, if there is one.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.folder = None

    def device(self, name: str) -> str:
        """Returns the name of this process's device."""
        if (count := len(name.split(","))) > 1:
            raise UsageError(
                f"one process has one GPU, not {name}; torchrun --nproc-per-node "
                f"{count} -m torch_impl.train without --device would do"
            )
        kind, _ = devices.parse(name)
        if self.size == 1 or kind == "cpu" or not torch.cuda.is_available():
            return name
        if ":" in name:
            raise UsageError(
                f"--device {name} is one GPU for all {self.size} processes; gpu would "
                "give each its own"
            )
        number = int(os.environ.get("LOCAL_RANK", self.rank))
        if number < torch.cuda.device_count():
            torch.cuda.set_device(number)
        return f"gpu:{number}"

    def prepare(self, model: nn.Module, sync_bn: bool) -> nn.Module:
        """Returns a model on its device, before it has an optimizer."""
        if self.size == 1 or not sync_bn:
            return model
        if next(model.parameters()).device.type != "cuda":
            raise UsageError(
                "PyTorch's synchronised batch normalisation is for GPUs only; without "
                "--sync-bn each process takes the statistics of its part of a batch"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns the model as the steps want it."""
        if self.size == 1:
            return model
        wrapper = nn.parallel.DistributedDataParallel
        # The buffers are the statistics that `average` takes the means of; the name of
        # what leaves them alone is another one from PyTorch 2.14 on.
        arguments = inspect.signature(wrapper).parameters
        names = ("forward_sync_buffers", "broadcast_buffers")
        return wrapper(model, **{next(x for x in names if x in arguments): False})

    def shard(self, indices: np.ndarray) -> np.ndarray:
        """Returns this process's part of a batch."""
        return indices[self.rank :: self.size]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the sum of a tensor over the processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def mean(self, value: float) -> float:
        """Returns the mean of a number over the processes."""
        return float(self.sum(torch.tensor(value).double())) / self.size

    def any(self, flag: bool) -> bool:
        """Returns whether any process says so."""
        return bool(self.sum(torch.tensor(int(flag))))

    def stack(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the tensors of all processes as rows, in order of their ranks."""
        rows = values.new_zeros((self.size, *values.shape))
        rows[self.rank] = values
        return self.sum(rows)

    def average(self, model: nn.Module) -> None:
        """Gives a model the mean of the processes' running statistics."""
        for buffer in model.buffers() if self.size > 1 else ():
            if buffer.is_floating_point():
                self.sum(buffer).div_(self.size)

    def predict(self, predictor, pipeline, predict_all) -> np.ndarray:
        """Returns the logits of all of a pipeline's images, in order."""
        if self.size == 1:
            return predict_all(predictor, pipeline)
        own = self.shard(np.arange(len(pipeline)))
        order = [own[x] for x in metrics.in_order(len(own), *pipeline.size)]
        batches = pipeline.batches(order)
        part = np.concatenate([predictor(images) for images, _ in batches])
        logits = np.zeros((len(pipeline), *part.shape[1:]), part.dtype)
        logits[own] = part
        return self.sum(torch.from_numpy(logits)).numpy()

    def share(self, folder: Path) -> None:
        """Tells the others the first one's run folder."""
        said = [str(folder)]
        if self.size > 1:
            distributed.broadcast_object_list(said, src=0)
        self.folder = said[0]

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Lets the first process do what is inside before the others do it."""
        if self.rank:
            self._wait()
        yield
        if not self.rank:
            self._wait()
        self._wait()

    def _wait(self) -> None:
        if self.size > 1:
            limit = timedelta(seconds=PATIENCE)
            patient = distributed.new_group(backend="gloo", timeout=limit)
            distributed.all_reduce(torch.zeros(()), group=patient)


@contextlib.contextmanager
def join(options) -> Iterator[Group]:
    """Gives the group that the environment names, for as long as it lasts.

    Raises:
        UsageError: the environment does not say which process this is.
        Failure: another process of the group ended.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Group()
        return
    on_gpu = devices.parse(options.device)[0] != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=TIMEOUT))
    except (ValueError, distributed.DistError) as error:
        raise UsageError(
            f"the processes do not find each other ({_reason(error)}); "
            "torchrun --nproc-per-node 2 -m torch_impl.train starts two that do"
        ) from None
    group = Group(distributed.get_rank(), distributed.get_world_size())
    try:
        yield group
    except Failure as error:
        if group.rank:  # all have the same, and the first one says it
            sys.exit(error.code)
        raise
    except RuntimeError as error:
        if not _is_of_group(error):
            raise
        hint = f"; --resume {group.folder} goes on" if group.folder else ""
        raise Failure(
            f"another process of the group ended ({_reason(error)}){hint}"
        ) from None
    distributed.destroy_process_group()


def _is_of_group(error: RuntimeError) -> bool:
    """Returns whether an error is one of the communication between processes."""
    named = any(name in str(error) for name in ("gloo", "NCCL"))
    return named or isinstance(error, distributed.DistError)


def _reason(error: Exception) -> str:
    """Returns the first sentence of an error, without the place in gloo's source."""
    return re.sub(r"^\[\S+\] ", "", str(error).strip()).splitlines()[0].split(". ")[0]
