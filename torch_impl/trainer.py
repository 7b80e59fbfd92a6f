"""What makes a run's steps, and all that they depend on as tensors."""

import numpy as np
import torch

from parity.spec import checkpoints, layouts, runs
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
        runs.check_parts(options, dataset, group.size, normalises_batches(model))
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
        # Lays out the kernels, of which a wrapped model's gradients take the order.
        self.predictor = make_predictor(model, options.precision)
        self.train_step = make_train_step(group.wrap(model), optimizer, *arithmetic)

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
        self.group.average(self.model)
        return self.group.predict(self.predictor, self.parts[part], predict_all)

    def measure(self, logits, labels):
        """Returns mean loss and accuracy."""
        return measure(logits, labels)

    def state(self):
        """Returns every tensor that the next steps depend on.

        A generator's are a row for each process.
        """
        self.group.average(self.model)
        state = checkpoints.under("model", weights.state_dict(self.model))
        for index, tensors in self.optimizer.state_dict()["state"].items():
            for name, value in tensors.items():
                if value is not None:
                    value = torch.as_tensor(value).cpu().numpy()
                    state[f"optimizer/{index}/{name}"] = value
        for name, value in self.train_step.scaler.state_dict().items():
            state[f"scaler/{name}"] = np.asarray(value)
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["gpu"] = torch.cuda.get_rng_state(self.device)
        for name, value in random.items():
            state[f"random/{name}"] = self.group.stack(value).numpy()
        return state

    def load(self, state):
        """Goes back to a state."""
        source = "the checkpoint"
        parts = {
            name: checkpoints.part(state, name)
            for name in ("model", "optimizer", "scaler", "random")
        }
        own = self.optimizer.state_dict() | {"state": {}}
        shapes = {name: tuple(x.shape) for name, x in parts["optimizer"].items()}
        wanted = _optimizer_shapes(self.optimizer) if shapes else {}
        layouts.check(wanted, shapes, "the checkpoint's optimizer")
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        for path, value in parts["optimizer"].items():
            index, _, name = path.partition("/")
            tensors = own["state"].setdefault(int(index), {})
            tensors[name] = torch.from_numpy(value.copy())
            if value.ndim:  # laid out as the parameter is, and so rounded alike
                alike = torch.empty_like(parameters[int(index)], device="cpu")
                tensors[name] = alike.copy_(tensors[name])
        weights.load_state_dict(self.model, parts["model"], source)
        self.optimizer.load_state_dict(own)
        if parts["scaler"]:
            scaler = {name: value.item() for name, value in parts["scaler"].items()}
            self.train_step.scaler.load_state_dict(scaler)
        for name, rows in parts["random"].items():
            if self.group.rank >= len(rows):
                continue  # there were fewer processes: this one's has not been used
            random = torch.from_numpy(rows[self.group.rank].copy())
            if name == "cpu":
                torch.set_rng_state(random)
            elif self.device.type == "cuda":
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


def normalises_batches(model):
    """Returns whether a model has batch normalisation."""
    kind = torch.nn.modules.batchnorm._BatchNorm
    return any(isinstance(module, kind) for module in model.modules())


def _optimizer_shapes(optimizer):
    """Returns the shapes of an optimizer's tensors after its first step, by path."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    probe = torch.zeros(2, requires_grad=True, device=parameters[0].device)
    probe.grad = torch.zeros_like(probe)
    other = type(optimizer)([probe])
    other.param_groups[0].update(optimizer.param_groups[0] | {"params": [probe]})
    other.step()
    tensors = {
        name: torch.as_tensor(value)
        for name, value in other.state[probe].items()
        if value is not None
    }
    return {
        f"{index}/{name}": tuple(parameter.shape if tensor.ndim else ())
        for index, parameter in enumerate(parameters)
        for name, tensor in tensors.items()
    }
