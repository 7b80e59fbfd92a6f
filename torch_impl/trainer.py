"""What makes a run's steps, and all that they depend on as tensors."""

import time

import numpy as np
import torch

from parity.spec import checkpoints
from torch_impl import data, tracing, weights
from torch_impl.optim import set_learning_rate
from torch_impl.steps import (
    autocast,
    make_predictor,
    make_train_step,
    measure,
    predict_all,
)


class Trainer:
    """A model, its optimizer and the data on its device; see `parity.spec.loop`."""

    def __init__(self, model, optimizer, dataset, options, device, group):
        """Puts the data where the steps want them.

        Args:
            model: on the device, in the precision's type.
            optimizer: of its parameters.
            dataset: of the run.
            options: of the run.
            device: of `select_device`.
            group: of `processes.join`.
        """
        self.model = model
        self.optimizer = optimizer
        self.options = options
        self.device = device
        self.group = group
        settings = {
            "mean": dataset.mean,
            "std": dataset.std,
            "workers": options.workers,
            "device": device,
        }
        train_part = (dataset.train_images, dataset.train_labels)
        self.train_set = data.Pipeline(
            *train_part, augment=options.augment, seed=options.seed, **settings
        )
        plain = data.Pipeline(*train_part, **settings) if options.augment else None
        self.parts = {
            "train": plain or self.train_set,
            "test": data.Pipeline(dataset.test_images, dataset.test_labels, **settings),
        }
        arithmetic = (options.precision, options.compile)
        self.train_step = make_train_step(group.wrap(model), optimizer, *arithmetic)
        self.predictor = make_predictor(model, options.precision)

    @property
    def alone(self):
        """Whether there is no other process."""
        return self.group.size == 1

    def set_learning_rate(self, learning_rate):
        """Makes the next steps with a learning rate."""
        set_learning_rate(self.optimizer, learning_rate)

    def steps(self, order, epoch):
        """Makes the steps of an epoch; yields the loss of each."""
        own = [self.group.shard(indices) for indices in order]
        batches = self.train_set.batches(own, epoch)
        for indices, (images, labels) in zip(order, batches, strict=True):
            # The group takes the mean of its processes' gradients.
            share = len(labels) / len(indices)
            loss = self.train_step(images, labels, share * self.group.size)
            yield loss if self.alone else loss * share

    def to_host(self, losses):
        """Returns the losses (n,) of n steps."""
        return self.group.sum(torch.stack(losses).double()).cpu().numpy()

    def predict(self, part):
        """Returns the logits (N, num_classes) of "train" or "test"."""
        return self.group.predict(self.predictor, self.parts[part], predict_all)

    def measure(self, logits, labels):
        """Returns mean loss and accuracy."""
        return measure(logits, labels)

    def state(self):
        """Returns every tensor that the next steps depend on."""
        state = checkpoints.under("model", weights.state_dict(self.model))
        for index, tensors in self.optimizer.state_dict()["state"].items():
            for name, value in tensors.items():
                if value is not None:
                    value = torch.as_tensor(value).cpu().numpy()
                    state[f"optimizer/{index}/{name}"] = value
        for name, value in self.train_step.scaler.state_dict().items():
            state[f"scaler/{name}"] = np.asarray(value)
        state["random/cpu"] = torch.get_rng_state().numpy()
        if self.device.type == "cuda":
            state["random/gpu"] = torch.cuda.get_rng_state(self.device).numpy()
        return state

    def load(self, state):
        """Goes back to a state."""
        source = "the checkpoint"
        parts = {
            name: checkpoints.part(state, name)
            for name in ("model", "optimizer", "scaler", "random")
        }
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        own = self.optimizer.state_dict() | {"state": {}}
        for path, value in parts["optimizer"].items():
            index, _, name = path.partition("/")
            checkpoints.check_shape(
                path, value, parameters[int(index)].shape, scalar=name == "step"
            )
            tensors = own["state"].setdefault(int(index), {})
            tensors[name] = torch.from_numpy(value.copy())
        weights.load_state_dict(self.model, parts["model"], source)
        self.optimizer.load_state_dict(own)
        if parts["scaler"]:
            scaler = {name: value.item() for name, value in parts["scaler"].items()}
            self.train_step.scaler.load_state_dict(scaler)
        torch.set_rng_state(torch.from_numpy(parts["random"]["cpu"].copy()))
        if self.device.type == "cuda" and "gpu" in parts["random"]:
            random = torch.from_numpy(parts["random"]["gpu"].copy())
            torch.cuda.set_rng_state(random, self.device)

    def first_not_finite(self, indices, epoch):
        """Returns the layer whose output is not finite first on a training batch."""
        images, _ = next(self.train_set.batches([indices], epoch))
        if self.options.precision == "float64":
            images = images.double()
        self.model.train()
        with (
            torch.no_grad(),
            tracing.record_calls(self.model) as calls,
            autocast(self.device.type, self.options.precision),
        ):
            self.model(images)
        for call in calls:
            if not all(output.isfinite().all() for output in call.outputs):
                return call.name
        return None

    def any_process(self, flag):
        """Returns whether any process of the group says so."""
        return flag if self.alone else self.group.any(flag)

    def memory(self):
        """Returns the most bytes that the GPU, if there is one, has had in use."""
        is_gpu = self.device.type == "cuda"
        return torch.cuda.max_memory_allocated(self.device) if is_gpu else 0

    def speed(self, indices, steps=3):
        """Returns images per second of some steps on one batch, for a trial."""
        times = []
        for _ in range(1 + steps):  # the first one prepares
            start = time.perf_counter()
            self.to_host(list(self.steps([indices], 0)))
            times.append(time.perf_counter() - start)
        return len(indices) / min(times[1:])
