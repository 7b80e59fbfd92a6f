"""Runnable scripts: one layer per side, the captured input, the assertion that fails.

Each side's code is run when it is written. Where it does not give what the layer gave
in its network, the script compares what was captured and says so.
"""

import itertools
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity.frameworks import keras, torch
from parity.diagnosis.causes import CAUSES
from parity.diagnosis.findings import Diagnosis, Finding
from parity.diagnosis.locate import TOLERANCE, Culprit
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.graph import Step, Tensor, same_size
from parity.diagnosis.repro.code import Arrays
from parity.diagnosis.repro.keras_code import keras_code
from parity.diagnosis.repro.torch_code import torch_code
from parity.spec.files import write_atomically
from parity.spec.tolerances import ROUNDED, relative_error

MOST_ORDERS = 720
WRITERS = {"keras": keras_code, "torch": torch_code}
ARRAYS = {"keras": 'data["{}"]', "torch": 'tensors["{}"]'}
LAYOUTS = {
    "keras": "Takes and returns channels first, as PyTorch has them.",
    "torch": "Takes and returns channels first.",
}

SCRIPT = '''\
"""{docstring}
"""

from pathlib import Path

import torchvision  # noqa: F401  # before TensorFlow: else the process is aborted
import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

keras.config.set_dtype_policy("float64")
data = dict(np.load(Path(__file__).with_suffix(".npz")))
tensors = {{name: torch.from_numpy(array) for name, array in data.items()}}


{functions}


def relative_error(value, reference):
    """Returns |value - reference| / |reference|, infinite where they cannot compare."""
    if value.size != reference.size:
        return np.inf
    value = value.reshape(reference.shape)
    finite = np.isfinite(reference)
    if not np.array_equal(finite, np.isfinite(value)):
        return np.inf
    if not np.array_equal(value[~finite], reference[~finite], equal_nan=True):
        return np.inf
    size = np.linalg.norm(reference[finite])
    return np.linalg.norm(value[finite] - reference[finite]) / (size or 1)


inputs = [{inputs}]
keras_output = keras.ops.convert_to_numpy(keras_side(*inputs))
torch_output = torch_side(*map(torch.from_numpy, inputs)).numpy()
for side, output in (("keras", keras_output), ("torch", torch_output)):
    kept = relative_error(output, data[f"{{side}}_output"])
    print(f"{{side}} gives what it gave in its network, within {{kept:.1e}}")
{prints}
error = relative_error(torch_output, keras_output)
print(f"relative L2 error: {{error:.1e}}")
assert error <= {tolerance!r}, f"the two sides differ by {{error:.1e}}"
print("the two sides agree")
'''


@dataclass
class _Side:
    """The function of one side in a script.

    Attributes:
        lines: of its body.
        arrays: that it reads.
        recorded: what it gave in its network.
        runs: whether the lines compute it; else they return what was recorded.
    """

    lines: list[str]
    arrays: dict[str, np.ndarray]
    recorded: np.ndarray
    runs: bool = True


def write_repros(diagnosis: Diagnosis, folder: str | Path) -> list[Path]:
    """Writes a script for each culprit, and its arrays beside it.

    Args:
        diagnosis: fresh from `diagnose`; one with no culprits writes nothing.
        folder: made where it is missing.

    Returns:
        The scripts, `NN_cause_layer.py`, in the order of the findings. Findings about
        the loss, the gradients or the optimizer have none.

    Raises:
        UsageError: a file cannot be written.
    """
    folder = Path(folder)
    paths = []
    for index, (culprit, findings) in enumerate(_with_findings(diagnosis), 1):
        text, arrays = script(culprit, findings)
        path = folder / f"{index:02}_{_slug(findings[0])}.py"
        write_atomically(
            path.with_suffix(".npz"), lambda file, arrays=arrays: _save(file, arrays)
        )
        write_atomically(path, lambda file, text=text: file.write_text(text, "utf-8"))
        paths.append(path)
    return paths


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _slug(finding: Finding) -> str:
    layer = finding.torch_name or finding.keras_name or "model"
    return re.sub(r"\W+", "_", f"{finding.cause} {layer}", flags=re.ASCII).strip("_")


def _with_findings(diagnosis: Diagnosis) -> Iterator[tuple[Culprit, list[Finding]]]:
    """Yields each culprit with its findings; those with none are left out.

    A finding is a culprit's if it is about its layers; where two culprits have layers
    of one name, the error tells whose it is.
    """
    forward = [x for x in diagnosis.findings if x.level == "forward"]
    errors = [culprit.error for culprit in diagnosis.culprits]
    for culprit in diagnosis.culprits:
        found = [finding for finding in forward if _is_at(finding, culprit)]
        if not found and errors.count(culprit.error) == 1:  # named by its padding
            found = [x for x in forward if x.error_before == culprit.error]
        exact = [finding for finding in found if finding.error_before == culprit.error]
        others = [x for x in found if x.error_before not in errors]
        if exact or others:
            yield culprit, exact + others
            continue
        moved = [x for x in forward if x.cause == "conv.stride_placement"]
        moved = [x for x in moved if _mentions(x, culprit)]
        if moved:
            yield culprit, moved


def _is_at(finding: Finding, culprit: Culprit) -> bool:
    """Returns whether a finding's layers are those of a culprit."""
    sides = (
        (finding.keras_name, culprit.keras_step, culprit.only_keras),
        (finding.torch_name, culprit.torch_step, culprit.only_torch),
    )
    between = bool(culprit.only_keras or culprit.only_torch)
    for name, step, only in sides:
        names = {x.name if x else None for x in (step, *only)}
        if culprit.at_input:
            names.add("input")
        elif step is None:
            names.add("output")
        # A side that lacks what the other has is named by the layer before the place.
        if name not in names and (only or not between):
            return False
    return True


def _mentions(finding: Finding, culprit: Culprit) -> bool:
    step = culprit.torch_step
    return step is not None and f"{step.name} " in str(finding.values.get("torch"))


def script(
    culprit: Culprit, findings: Sequence[Finding]
) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the text of a culprit's script and the arrays that it loads."""
    inputs, sides = _sides(culprit)
    arrays = {
        name.replace("x", "input"): array
        for name, array in zip(_variables(inputs), inputs, strict=True)
    }
    functions = []
    names = _variables(inputs)
    lines = {side: list(found.lines) for side, found in sides.items()}
    for side, found in sides.items():
        arrays |= found.arrays
        arrays[f"{side}_output"] = found.recorded
    _share(arrays, lines)
    for side, body in lines.items():
        head = [f"def {side}_side({', '.join(names)}):", f'    """{LAYOUTS[side]}"""']
        text = textwrap.indent("\n".join(body), "    ")
        functions.append("\n".join([*head, text]))
    text = SCRIPT.format(
        docstring=_docstring(culprit, findings),
        functions="\n\n\n".join(functions),
        inputs=", ".join(f'data["{name}"]' for name in arrays if "input" in name[:5]),
        prints="\n".join(f"print({line!r})" for line in _said(findings)),
        tolerance=TOLERANCE,
    )
    return text, arrays


def _share(arrays: dict[str, np.ndarray], lines: dict[str, list[str]]) -> None:
    """Keeps one array where both sides have the same, as copied weights are."""
    for name in [name for name in arrays if name.startswith("keras_")]:
        word = name.removeprefix("keras_")
        other = f"torch_{word}"
        if word == "output" or other not in arrays:
            continue
        if not np.array_equal(arrays[name], arrays[other]):
            continue
        arrays[word] = arrays.pop(name)
        del arrays[other]
        for side, body in lines.items():
            old, new = f'"{side}_{word}"', f'"{word}"'
            lines[side] = [line.replace(old, new) for line in body]


def _said(findings: Sequence[Finding]) -> list[str]:
    said = []
    for finding in findings:
        cause = CAUSES.get(finding.cause)
        said.append(f"{finding.cause}: {cause.title}" if cause else finding.cause)
        if finding.ties:
            said.append(f"explained as well by: {', '.join(finding.ties)}")
        said.append(f"in PyTorch: {finding.fix}")
        said.append(f"or, in Keras: {finding.keras_fix}")
    return said


def _docstring(culprit: Culprit, findings: Sequence[Finding]) -> str:
    first = findings[0]
    where = f"{first.keras_name} (Keras) and {first.torch_name} (PyTorch)"
    causes = " and ".join(dict.fromkeys(finding.cause for finding in findings))
    parts = [
        f"{causes} at {where}.",
        "On the same inputs the two sides differ by "
        f"{_number(culprit.error)} (relative L2, float64).",
        *_said(findings),
        "The assertion fails as long as they differ.",
    ]
    parts = [part.replace("\\", "\\\\").replace('"', "'") for part in parts]
    wrapped = [textwrap.fill(part, 85, break_long_words=False) for part in parts]
    return "\n\n".join([*wrapped[:2], "\n".join(wrapped[2:-1]), wrapped[-1]])


def _number(error: float) -> str:
    return f"{error:.1e}" if math.isfinite(error) else "infinitely much"


# --- the two sides of a culprit


def _sides(culprit: Culprit) -> tuple[list[np.ndarray], dict[str, _Side]]:
    """Returns the inputs of a script, and the function of each side."""
    steps = {"keras": culprit.only_keras, "torch": culprit.only_torch}
    inputs = culprit.base
    if culprit.kind == "step" or culprit.inputs:  # the pair itself
        steps = {"keras": [culprit.keras_step], "torch": [culprit.torch_step]}
        inputs = culprit.inputs
    inputs = [_as_map(x, steps) for x in inputs]
    sides = {}
    for side, output in (("keras", culprit.output), ("torch", culprit.found)):
        found = None
        if inputs and output is not None:
            found = _written(side, steps[side], inputs, output, culprit.error)
        sides[side] = found or _recorded(side, steps[side], output)
    return [_array(x) for x in inputs], sides


def _as_map(value: Tensor, steps: dict[str, list[Step]]) -> Tensor:
    """Returns a flattened map as a map, so that both sides flatten it themselves."""
    for step in itertools.chain(*steps.values()):
        view = step.view
        if step.kind != "dense" or value.dim() != 2 or not (view and view.pixels):
            continue
        if math.prod(view.pixels) == value.shape[1] and len(view.pixels) == 3:
            return value.reshape(len(value), *view.pixels)
    return value


def _array(value: Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.detach().double().numpy())


def _recorded(side: str, steps: Sequence[Step], output: Tensor | None) -> _Side:
    """Returns a function that gives what was captured."""
    unknown = [step.operation for step in steps if step.kind not in operations.KINDS]
    if output is None:
        reason = "This side cannot take these inputs, so that it has no output."
        output = torch.empty(0, dtype=torch.float64)
    elif unknown:
        names = ", ".join(unknown)
        reason = (
            f"The parameters of {names} are not known: what it gave in the network."
        )
    elif steps:
        reason = "What it gave in the network: no plain code gives quite the same."
    else:
        reason = "What came here in the network."
    expression = ARRAYS[side].format(f"{side}_output")
    lines = [*textwrap.wrap(reason, 80), f"return {expression}"]
    lines = [f"# {line}" for line in lines[:-1]] + lines[-1:]
    return _Side(lines, {}, _array(output), runs=False)


def _written(
    side: str, steps: list[Step], inputs: list[Tensor], output: Tensor, error: float
) -> _Side | None:
    """Returns a function that computes a side's steps, None where no code does."""
    if any(step.kind not in operations.KINDS for step in steps):
        return None
    limit = min(ROUNDED["script"], error / 10)
    order = _order(steps, inputs, output, limit)
    if order is None:
        return None
    arrays = Arrays(side, ARRAYS[side])
    names = _variables(inputs)
    try:
        lines = _lines(side, steps, inputs, order, arrays)
    except KeyError:
        return None
    found = {name: _array(tensor) for name, tensor in arrays.found.items()}
    made = _run(side, lines, names, [_array(x) for x in inputs], found)
    recorded = _array(output)
    if made is None or made.size != recorded.size:
        return None
    left = relative_error(made.reshape(recorded.shape), recorded)
    return _Side(lines, found, recorded) if left <= limit else None


def _variables(inputs: Sequence) -> list[str]:
    return ["x"] if len(inputs) == 1 else [f"x{i + 1}" for i in range(len(inputs))]


def _external(steps: list[Step]) -> list[int]:
    """Returns the numbers of the values that come into steps from outside."""
    inner = {step.output for step in steps}
    numbers = [number for step in steps for number in step.inputs]
    return [x for x in dict.fromkeys(numbers) if x not in inner]


def _compute(steps: list[Step], values: dict[int, Tensor]) -> dict[int, Tensor]:
    """Returns the values of steps."""
    values = dict(values)
    for step in steps:
        given = [
            x.reshape(shape) if same_size(tuple(x.shape), tuple(shape)) else x
            for x, shape in zip(map(values.get, step.inputs), step.shapes, strict=True)
        ]
        values[step.output] = operations.run(step.kind, step.parameters, given)
    return values


def _order(
    steps: list[Step], inputs: list[Tensor], output: Tensor, limit: float
) -> tuple[int, ...] | None:
    """Returns which inputs steps must be given for an output, None where none are."""
    count = len(_external(steps)) if steps else 1
    orders = itertools.permutations(range(len(inputs)), count)
    for order in itertools.islice(orders, MOST_ORDERS):
        given = [inputs[i] for i in order]
        made = given[0]
        if steps:
            try:
                values = dict(zip(_external(steps), given, strict=True))
                made = _compute(steps, values)[steps[-1].output]
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
                continue
        if not same_size(tuple(made.shape), tuple(output.shape)):
            continue
        made = made.reshape(output.shape)
        if relative_error(_array(made), _array(output)) <= limit:
            return order
    return None


def _lines(
    side: str,
    steps: list[Step],
    inputs: list[Tensor],
    order: tuple[int, ...],
    arrays: Arrays,
) -> list[str]:
    """Returns the body of a function."""
    names = _variables(inputs)
    if not steps:
        return ["# This side does nothing here.", f"return {names[order[0]]}"]
    external = _external(steps)
    values = {x: inputs[i] for x, i in zip(external, order, strict=True)}
    variables = {x: names[i] for x, i in zip(external, order, strict=True)}
    shapes = {x: tuple(value.shape) for x, value in _compute(steps, values).items()}
    lines: list[str] = []
    for index, step in enumerate(steps, 1):
        variables[step.output] = "y" if len(steps) == 1 else f"y{index}"
        lines += WRITERS[side](
            step,
            [variables[number] for number in step.inputs],
            [shapes[number] for number in step.inputs],
            variables[step.output],
            arrays,
        )
    lines.append(f"return {variables[steps[-1].output]}")
    return "\n".join(lines).split("\n")


def _run(
    side: str,
    lines: list[str],
    names: list[str],
    inputs: list[np.ndarray],
    arrays: dict[str, np.ndarray],
) -> np.ndarray | None:
    """Returns what the body of a function gives, None where it cannot be run."""
    body = textwrap.indent("\n".join(lines), "    ")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    space = {"keras": keras, "torch": torch, "F": torch.nn.functional, "np": np}
    space |= {"data": arrays, "tensors": tensors}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        exec(f"def function({', '.join(names)}):\n{body}", space)  # as it will be run
        if side == "keras":
            return np.array(keras.ops.convert_to_numpy(space["function"](*inputs)))
        with torch.no_grad():
            return space["function"](*map(torch.from_numpy, inputs)).numpy()
    except Exception:  # whatever a framework says of code that does not fit
        return None
    finally:
        keras.config.set_dtype_policy(policy)
