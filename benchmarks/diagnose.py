"""`parity.diagnose` on networks of two libraries: what it names, and what it costs.

    python benchmarks/diagnose.py [NAME ...] [--size PIXELS]

Each network of keras.applications is held against torchvision's of the same name, with
Keras's first weights copied across, in a process of its own: seconds after the imports,
the peak of memory, the verdict, and how often each cause was found.
"""

import argparse
import json
import time
from collections import Counter

import common
import numpy as np

# Keras's class, torchvision's name, and the least pixels that both take.
NETWORKS = {
    "ResNet50": "resnet50",
    "MobileNetV2": "mobilenet_v2",
    "DenseNet121": "densenet121",
    "EfficientNetB0": "efficientnet_b0",
    "InceptionV3": "inception_v3",
    "ConvNeXtTiny": "convnext_tiny",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
}
LEAST = {"InceptionV3": 139, "VGG16": 224, "VGG19": 224}


def measure(name: str, size: int) -> dict[str, object]:
    """Returns what a diagnosis of one network found and cost in this process."""
    from parity.frameworks import keras, torchvision  # isort: skip
    import parity

    size = max(size, LEAST.get(name, 32))
    shape = (size, size, 3)
    model = getattr(keras.applications, name)(
        weights=None, classifier_activation=None, input_shape=shape
    )
    settings = {"init_weights": False} if name == "InceptionV3" else {}
    twin = torchvision.models.get_model(NETWORKS[name], weights=None, **settings)
    images = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    start = time.perf_counter()
    diagnosis = parity.diagnose(model, twin.eval(), images)
    return {
        "size": size,
        "seconds": time.perf_counter() - start,
        "peak": common.mebibytes("VmHWM"),
        "verdict": diagnosis.verdict,
        "error": diagnosis.error,
        "causes": Counter(finding.cause for finding in diagnosis.findings),
    }


def main() -> None:
    """Prints a line for each network."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    flags.add_argument("--size", type=int, default=224, metavar="PIXELS")
    flags.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags.add_argument("--started", help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    for name in arguments.names:
        if name not in NETWORKS:
            flags.error(f"unknown network {name!r}; choose from {', '.join(NETWORKS)}")
    if arguments.child:
        print(json.dumps(measure(arguments.names[0], arguments.size)))
        return
    print(common.show_environment(common.environment()))
    rows = []
    for name in arguments.names or NETWORKS:
        found = common.run_child(__file__, name, "--size", arguments.size)
        causes = [f"{count} {cause}" for cause, count in found["causes"].items()]
        rows.append(
            (
                name,
                found["size"],
                f"{found['seconds']:.1f}",
                f"{found['peak']:,.0f}",
                found["verdict"],
                f"{found['error']:.1e}",
                ", ".join(causes) or "none",
            )
        )
    head = ("network", "pixels", "seconds", "peak, MiB", "verdict", "error", "causes")
    print(common.show_table(head, rows))


if __name__ == "__main__":
    main()
