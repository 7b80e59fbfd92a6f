"""The README shows the code as it is, and names commands and flags that exist."""

import ast
import re
from pathlib import Path

import pytest

from parity import rows
from parity.spec import recipes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("side", ["keras", "torch"])
def test_the_networks_source_is_quoted_as_it_is(side):
    source = (ROOT / f"{side}_impl" / "models" / "lenet.py").read_text("utf-8")
    start = source.index("class LeNet5(")
    network = source[start : source.index("\n\n\nclass ", start)]
    assert f"```python\n{network}\n```" in README


def test_every_model_is_listed_with_its_parameters():
    for name, recipe in recipes.RECIPES.items():
        line = next(x for x in README.splitlines() if x.startswith(f"| `{name}` |"))
        assert line.endswith(f"| {recipe.parameters:,} |")


def test_every_model_is_measured_on_the_digits_or_said_not_to_be():
    table = README[README.index("## Do they train?") : README.index("## Look into")]
    measured = [line for line in table.splitlines() if line.startswith("| `")]
    for line in measured:
        assert min(float(cell) for cell in line.split("|")[5:7]) > 0.15, line
    names = re.findall(r"`(\w+)`", "\n".join(measured))
    names += re.findall(r"`(\w+)`", table.partition("Not measured yet:")[2])
    assert sorted(names) == recipes.names()


def test_every_path_that_is_named_exists():
    paths = re.findall(r"(?:pytest|python) ((?:parity|benchmarks)/[\w/.]*)", README)
    assert len(set(paths)) >= 5
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_install_and_test_commands_are_those_of_ci():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert 'pip install -e ".[test]" && pytest' in README
    assert 'pip install -e ".[test]"\n' in script
    assert script.endswith("\npytest\npytest -m slow\n")


def test_the_page_and_the_readme_have_the_rows_of_the_table():
    names = {row.name for row in rows.ROWS}
    page = (ROOT / "docs" / "ops.html").read_text("utf-8")
    assert {name for name in re.findall(r'id="([^"]+)"', page) if "." in name} == names
    assert f"{len(names)} rows" in README
    section = README[README.index("## Operations side") : README.index("## Compare")]
    named = re.findall(r"^\| `([\w.]+)`", section, re.MULTILINE)
    assert len(named) >= 10
    assert set(named) <= names
    assert f"the same {len(operations())} functions" in section


def operations() -> list[str]:
    """Returns what `keras_impl.ops` exports, without loading a framework."""
    source = (ROOT / "keras_impl" / "ops" / "__init__.py").read_text("utf-8")
    return next(
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
