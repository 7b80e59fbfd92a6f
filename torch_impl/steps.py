"""Loss, gradients, one training step and predictions."""

import numpy as np
import torch
import torch.nn.functional as F

from parity.spec import devices, metrics
from parity.spec.recipes import AUXILIARY_WEIGHT


def average_map(logits):
    """Returns logits (N, num_classes), of a map (N, num_classes, H, W) its mean."""
    return logits.mean((2, 3)) if logits.ndim == 4 else logits


def cross_entropy(logits, labels):
    """Returns the mean cross-entropy of logits and labels (N,).

    A map of logits is averaged over its positions; one column of them is the logit of
    the second of two classes.
    """
    logits = average_map(logits)
    if logits.shape[1] == 1:
        target = labels.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits[:, 0], target)
    return F.cross_entropy(logits, labels)


def training_loss(outputs, labels):
    """Returns the cross-entropy, with that of auxiliary heads times their weight."""
    if not isinstance(outputs, tuple):
        return cross_entropy(outputs, labels)
    logits, *auxiliary = outputs
    added = sum(cross_entropy(head, labels) for head in auxiliary)
    return cross_entropy(logits, labels) + AUXILIARY_WEIGHT * added


def compute_gradients(model, images, labels):
    """Returns the loss and its gradient by each trainable parameter."""
    model.train()
    model.zero_grad()
    loss = training_loss(model(images), labels)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def make_train_step(model, optimizer, precision="float32", compiled=False):
    """Returns a function that makes one step and returns the loss.

    Args:
        model: in float64 for that precision, else in float32.
        optimizer: of its parameters.
        precision: one of devices.PRECISIONS; of 16 bits are layers, not the loss.
        compiled: whether by torch.compile.
    """
    device = next(model.parameters()).device.type
    scaler = make_loss_scaler(device, precision)
    memory_format = _lay_out(model, precision)

    def compute_loss(images, labels):
        with autocast(device, precision):
            outputs = model(images)
        return training_loss(widened(outputs), labels)

    if compiled:
        compute_loss = torch.compile(compute_loss)

    def train_step(images, labels, share=1.0):
        model.train()
        model.zero_grad()
        if precision == "float64":
            images = images.double()
        loss = compute_loss(images.contiguous(memory_format=memory_format), labels)
        scaler.scale(loss if share == 1 else loss * share).backward()
        scaler.unscale_(optimizer)  # clipping wants them so
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    train_step.scaler = scaler
    return train_step


def _lay_out(model, precision):
    """Puts kernels in the order of memory that is fastest; returns that of the images.

    With the channels last on the CPU, and on a GPU's tensor cores.
    """
    device = next(model.parameters()).device.type
    last = precision != "float64" if device == "cpu" else _is_short(precision)
    memory_format = torch.channels_last if last else torch.contiguous_format
    model.to(memory_format=memory_format)
    return memory_format


def _is_short(precision):
    return precision in ("bfloat16", "float16")


def autocast(device, precision):
    """Returns a context in which layers compute in 16 bits if that is asked for."""
    short = _is_short(precision)
    dtype = getattr(torch, precision) if short else None
    return torch.autocast(device, dtype, enabled=short)


def make_loss_scaler(device, precision):
    """Returns what keeps the gradients of float16 within its range."""
    return torch.amp.GradScaler(
        device,
        init_scale=devices.LOSS_SCALE,
        growth_interval=devices.LOSS_SCALE_STEPS,
        enabled=precision == "float16",
    )


def widened(logits):
    """Returns logits, or a tuple of logits, of at least 32 bits."""
    if isinstance(logits, tuple):
        return tuple(map(widened, logits))
    short = logits.dtype in (torch.bfloat16, torch.float16)
    return logits.float() if short else logits


def make_predictor(model, precision="float32"):
    """Returns a function from images (N, C, H, W) to logits (N, num_classes) as NumPy.

    Images are predicted in batches; a map of logits is averaged.
    """
    memory_format = _lay_out(model, precision)

    @torch.inference_mode()
    def predict(images):
        model.eval()
        logits = []
        if precision == "float64":
            images = images.double()
        images = images.contiguous(memory_format=memory_format)
        for batch in images.split(metrics.images_at_once(*images.shape[2:])):
            with autocast(images.device.type, precision):
                outputs = model(batch)
            logits.append(average_map(widened(outputs)).cpu().numpy())
        return np.concatenate(logits)

    return predict


def predict_all(predict, pipeline):
    """Returns the logits (N, num_classes) of all of a pipeline's images, in order."""
    order = metrics.in_order(len(pipeline), *pipeline.size)
    return np.concatenate([predict(images) for images, _ in pipeline.batches(order)])


def measure(logits, labels):
    """Returns mean loss and accuracy of logits (N, num_classes) and labels (N,)."""
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return float(loss), metrics.accuracy(logits, labels)
