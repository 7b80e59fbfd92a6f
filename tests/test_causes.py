"""The table of causes, and the page that explains each of them."""

import re
import string
from pathlib import Path

import pytest

from parity.diagnosis.causes import CAUSES, fixes

PAGE = (Path(__file__).parents[1] / "docs" / "causes.md").read_text()
SECTIONS = {
    section.partition("\n")[0]: section.partition("\n")[2]
    for section in re.split(r"^### ", re.sub(r"(?m)^## .*$", "", PAGE), flags=re.M)[1:]
}
ENTRIES = pytest.mark.parametrize("entry", CAUSES.values(), ids=list(CAUSES))


def test_every_cause_has_a_section_and_every_section_a_cause():
    headings = re.findall(r"^### (.+)$", PAGE, flags=re.M)
    assert len(headings) == len(set(headings))
    assert headings == list(CAUSES)


def test_the_contents_link_to_every_section():
    contents = PAGE[: PAGE.index("\n## ")]
    links = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", contents)
    assert [name for name, _ in links] == list(CAUSES)
    anchors = [anchor for _, anchor in links]
    assert anchors == [re.sub(r"[^\w-]", "", name) for name in CAUSES]
    assert len(set(anchors)) == len(anchors)


def test_the_headings_of_topics_are_not_those_of_causes():
    # A heading that is repeated gets another anchor, and the link leads astray.
    anchors = [
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", PAGE, flags=re.M)
    ]
    assert len(set(anchors)) == len(anchors)


@ENTRIES
def test_a_section_tells_the_fix_on_both_sides(entry):
    section = SECTIONS[entry.id]
    paragraph, _, fixes_of_both = section.strip().partition("\n\n")
    assert len(paragraph) > 80
    assert re.findall(r"^- (\w+):\s", fixes_of_both, flags=re.M)[:2] == [
        "PyTorch",
        "Keras",
    ]


@pytest.mark.parametrize("name", list(SECTIONS))
def test_reports_name_the_thread_that_they_link_to(name):
    for title, address in re.findall(r"\[([^\]]+)\]\((https[^)]+)\)", SECTIONS[name]):
        repository, number = title.split("#")
        assert re.fullmatch(
            rf"https://github\.com/{repository}/(issues|pull)/{number}", address
        )


@ENTRIES
def test_an_entry_is_filed_under_its_own_id(entry):
    assert CAUSES[entry.id] is entry
    assert re.fullmatch(r"[a-z]+\.[a-z_]+|unexplained", entry.id)
    assert entry.level in ("forward", "backward", "training")
    assert entry.title and entry.title == entry.title.strip()


def test_titles_are_of_one_cause_each():
    titles = [entry.title for entry in CAUSES.values()]
    assert len(set(titles)) == len(titles)


@ENTRIES
def test_templates_hold_nothing_but_the_two_values(entry):
    for template in (entry.torch_fix, entry.keras_fix):
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        assert fields <= {"keras", "torch"}
        assert "\n" not in template
    torch_fix, keras_fix = fixes(entry.id, "ABC", "XYZ")
    assert torch_fix == entry.torch_fix.replace("{keras}", "ABC").replace(
        "{torch}", "XYZ"
    )
    assert keras_fix == entry.keras_fix.replace("{keras}", "ABC").replace(
        "{torch}", "XYZ"
    )


def test_fixes_carry_the_values():
    assert fixes("bn.epsilon", 1e-3, 1e-5) == (
        "set eps=0.001 (now 1e-05)",
        "set epsilon=1e-05 (now 0.001)",
    )
    assert fixes("activation.missing", "relu", None) == (
        "apply relu here (now nothing)",
        "apply nothing here (now relu)",
    )
    assert fixes("pad.value", "{braces}", 0)[0] == "pad with {braces} (now 0)"


@pytest.mark.parametrize(
    ("name", "near"), [("bn.eps", "bn.epsilon"), ("bn.momentun", "bn.momentum")]
)
def test_an_unknown_cause_is_refused_in_one_line(name, near):
    with pytest.raises(ValueError) as error:
        fixes(name, 1, 2)
    message = str(error.value)
    assert message.startswith(f"unknown cause {name!r}; did you mean {near}")
    assert "choose from" in message and "\n" not in message
