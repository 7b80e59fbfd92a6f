"""Functions of PyTorch's tensors, and modules that PyTorch has not."""

from collections.abc import Callable

import numpy as np
import torch.nn.functional as F

from parity.frameworks import torch
from parity.faults.spec import Node

nn = torch.nn


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        """Returns the function's output."""
        return self.function(*inputs)


class LayerNorm2d(nn.LayerNorm):
    """Normalises images (N, C, H, W) over their channels."""

    def forward(self, x):
        """Returns images of the same shape."""
        x = x.permute(0, 2, 3, 1)
        return super().forward(x).permute(0, 3, 1, 2)


class BatchNormByHand(nn.BatchNorm2d):
    """The formula of the running statistics, written out."""

    def forward(self, x):
        """Returns images of the same shape."""
        scale = self.weight / torch.sqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class BatchNormByBatch(nn.BatchNorm2d):
    """Normalises by the batch, in inference too."""

    def forward(self, x):
        """Returns images of the same shape."""
        return F.batch_norm(
            x, None, None, self.weight, self.bias, training=True, eps=self.eps
        )


class LinearByHand(nn.Linear):
    """A dense layer as one of the products that give the same."""

    way = "product"

    def forward(self, x):
        """Returns vectors."""
        products = {
            "product": lambda: x @ self.weight.t() + self.bias,
            "addmm": lambda: torch.addmm(self.bias, x, self.weight.t()),
            "einsum": lambda: torch.einsum("ni,oi->no", x, self.weight) + self.bias,
        }
        return products[self.way]()


class LocalResponseNorm(nn.Module):
    """Divides by (k + alpha * sum of squares over `size` channels) ** beta."""

    def __init__(self, size, alpha, beta, k):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        """Normalises images (N, C, H, W)."""
        radius, count = self.size // 2, x.shape[1]
        squares = F.pad(x * x, (0, 0, 0, 0, radius, radius))
        total = sum(squares[:, i : i + count] for i in range(self.size))
        return x / (self.k + self.alpha * total).pow(self.beta)


def function_of(item: Node, in_place: bool = False) -> Callable:
    """Returns the function of an activation."""
    functions = {
        "relu": lambda x: F.relu(x, inplace=in_place),
        "relu6": F.relu6,
        "leaky_relu": lambda x: F.leaky_relu(x, item["slope"], inplace=in_place),
        "elu": lambda x: F.elu(x, item.get("alpha", 1.0)),
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "gelu_by_hand": lambda x: x * (1 + torch.erf(x / np.sqrt(2))) / 2,
        "silu": F.silu,
        "silu_by_hand": lambda x: x * torch.sigmoid(x),
        "hard_swish": F.hardswish,
        "hard_swish_by_hand": lambda x: x * F.relu6(x + 3) / 6,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "softplus": lambda x: F.softplus(x, threshold=40),
        "relu_by_hand": lambda x: x.clamp(min=0),
        "relu_masked": lambda x: x.masked_fill(x < 0, 0),
        "relu6_by_hand": lambda x: x.clamp(0, 6),
        "sigmoid_by_hand": lambda x: 1 / (1 + torch.exp(-x)),
        "tanh_by_hand": lambda x: 2 * torch.sigmoid(2 * x) - 1,
        "elu_by_hand": lambda x: torch.where(x > 0, x, torch.expm1(x.clamp(max=0))),
        "leaky_by_hand": lambda x: torch.where(x > 0, x, item["slope"] * x),
        "softmax": lambda x: F.softmax(x, torch_axis(item)),
        "softmax_by_hand": _softmax_by_hand,
    }
    return functions[item["function"]]


def torch_axis(item: Node) -> int:
    """Returns the channels' axis, or that of the height or of the images."""
    return {"channels": 1, "height": 2, "images": 0}[item.get("axis", "channels")]


def _softmax_by_hand(x):
    x = torch.exp(x - x.amax(1, keepdim=True))
    return x / x.sum(1, keepdim=True)
