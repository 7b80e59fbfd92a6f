"""Classic CNNs in PyTorch (NCHW); the twin of `keras_impl`."""

from parity.spec import recipes


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the models that match a shell-style pattern, sorted."""
    return recipes.names(pattern)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    seed: int | None = None,
    **architecture: object,
):
    """Returns a `torch.nn.Module` that maps images (N, C, H, W) to logits.

    Args:
        name: one of `list_models()`.
        num_classes: number of logits; None takes the recipe's value, here and below.
        image_size: height and width in pixels, one number for both or a pair.
        in_channels: channels of the images.
        seed: of the initial weights; the same seed gives the same weights again.
        architecture: further arguments of the model's class, such as `cdims` of
            cnn_dropout.

    Raises:
        ValueError: an unknown name or argument, a number that is not a positive
            integer, or an image too small for the network.
    """
    recipe = recipes.find(name)
    shape = recipes.shape(
        recipe, num_classes, image_size, in_channels, architecture.get("cdims")
    )
    from torch_impl.models import build

    return build(name, shape, seed, architecture)
