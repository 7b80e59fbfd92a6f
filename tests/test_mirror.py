"""The two sides mirror each other: same files, classes, functions and attributes."""

import ast
from collections.abc import Collection
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERAS, TORCH = ROOT / "keras_impl", ROOT / "torch_impl"
# Keras runs on other frameworks than TensorFlow, too.
ONE_SIDED = KERAS / "other_backends.py"
FILES = sorted({*KERAS.rglob("*.py")} - {ONE_SIDED})
FILES = [path.relative_to(KERAS) for path in FILES]
MODELS = [path for path in FILES if path.parts[0] == "models"]

# What only one side needs: a definition that its framework has otherwise.
ONLY = {
    "data.py": {"Pipeline._decoded", "Pipeline._start_method", "Pipeline._to_device"},
    "devices.py": {"share_gpus"},
    "processes.py": {
        "Group.make_train_step",
        "Group.make_train_steps",
        "Group.run",
        "Group.scope",
        "Group.spread",
        "Group._sum_of_vectors",
        "Group.unstack",
        "Group._wait",
        "Group.wrap",
    },
    "steps.py": {"autocast", "make_train_steps", "scale_of"},
    "train.py": {"precision_policy"},
    "trainer.py": {"Trainer._named", "Trainer._random", "Trainer._steps_of_files"},
    "initializers.py": {"VarianceScaling"},
    "layers.py": {
        "AdaptiveAveragePooling2D",
        "BatchNormalization",
        "Conv2D",
        "LocalResponseNorm.call",
        "MaxPooling2D",
        "Model",
        "pad",
    },
    "models/googlenet.py": {"GoogLeNet.build_from_config", "pooled_size"},
    "models/lenet.py": {"map_area"},
    "optim.py": {
        "Adagrad",
        "Adam",
        "CoupledDecay",
        "LambdaLR",
        "RMSprop",
        "ReduceLROnPlateau",
        "SGD",
    },
    "tracing.py": {"input_shape", "flattened_maps"},
    "weights.py": {"Weight", "flattened_shapes", "to_common"},
}


def test_the_same_files():
    theirs = sorted(path.relative_to(TORCH) for path in TORCH.rglob("*.py"))
    assert theirs == FILES


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_same_public_names_in_the_same_order(path):
    only = ONLY.get(path.as_posix(), set())
    ours, theirs = (definitions(side / path, only) for side in (KERAS, TORCH))
    assert ours == theirs


@pytest.mark.parametrize("path", MODELS, ids=str)
def test_the_same_attributes_in_the_same_order(path):
    ours, theirs = (attributes(side / path) for side in (KERAS, TORCH))
    assert ours == theirs


@pytest.mark.parametrize("path", MODELS, ids=str)
def test_the_same_opening_text(path):
    ours, theirs = (ast.get_docstring(parse(side / path)) for side in (KERAS, TORCH))
    assert ours == theirs
    if path.name != "__init__.py":
        assert "\nPaper: " in ours
        assert "\nDepartures from the paper: " in ours


def test_a_name_that_differs_is_seen(tmp_path):
    source = (TORCH / "models" / "lenet.py").read_text()
    changed = tmp_path / "lenet.py"
    changed.write_text(source.replace("self.fc2", "self.dense2"))
    assert attributes(changed) != attributes(TORCH / "models" / "lenet.py")
    changed.write_text(source.replace("class LeNet5(", "class LeNet("))
    assert definitions(changed) != definitions(TORCH / "models" / "lenet.py")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def definitions(path: Path, only: Collection[str] = ()) -> list[str]:
    """Returns the public classes and functions of a file and the classes' methods."""
    names = []
    for node in parse(path).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        if node.name.startswith("_") or node.name in only:
            continue
        names.append(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (m.name for m in node.body if isinstance(m, ast.FunctionDef))
            names += [f"{node.name}.{name}" for name in methods]
    names = [name.replace(".forward", ".call") for name in names]
    return [name for name in names if name not in only]


def attributes(path: Path) -> list[str]:
    """Returns `Class.attribute` of each assignment to self in an __init__."""
    found = []
    for node in parse(path).body:
        if not isinstance(node, ast.ClassDef):
            continue
        init = next(m for m in node.body if getattr(m, "name", "") == "__init__")
        for statement in ast.walk(init):
            if isinstance(statement, ast.Assign):
                target = statement.targets[0]
                if isinstance(target, ast.Attribute):
                    found.append((target.lineno, f"{node.name}.{target.attr}"))
    return [name for _, name in sorted(found)]
