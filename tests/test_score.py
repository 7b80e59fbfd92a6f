"""The score of a diagnosis: its parts, its targets and what it prints."""

import argparse
import json
import subprocess
import sys

import pytest

from parity import score, score_table
from parity.score import Outcome, Score
from parity.spec.errors import UsageError


def outcome(cause="conv.padding", **changes) -> Outcome:
    settings = {
        "name": f"{cause}/vgg/conv1",
        "group": cause.split(".")[0],
        "cause": cause,
        "network": "vgg",
        "place": "early",
        "scale": 1.0,
        "level": "forward",
        "detected": cause != "equal",
        "layer": True,
        "named": True,
        "both": True,
        "others": 0,
        "expected": () if cause == "equal" else (f"{cause} at conv1 | features.0",),
        "said": (),
        "seconds": 0.1,
    }
    return Outcome(**(settings | changes))


RIGHT = (outcome(), outcome("bn.epsilon"), outcome("several"), outcome("equal"))


def test_the_parts_of_what_was_planted():
    missed = outcome(detected=False, layer=False, named=False)
    other = outcome(named=False)
    found = Score((*RIGHT, missed, other))
    assert found.parts == {
        "detected": 4 / 5,
        "layer": 3 / 4,
        "cause": 2 / 4,
        "several": 1.0,
        "accused": 0.0,
    }
    assert not found.reached
    assert Score(RIGHT).reached


@pytest.mark.parametrize(
    "wrong",
    [
        outcome("equal", detected=True),
        outcome(detected=False),
        outcome("several", named=False),
    ],
)
def test_a_target_that_is_missed(wrong):
    assert not wrong.right
    assert not Score((*RIGHT, wrong)).reached


def test_a_choice_of_cases_may_lack_a_part():
    found = Score(RIGHT[:1])
    assert found.parts["several"] is None
    assert found.reached


def test_a_failed_diagnosis_of_an_equal_pair_is_wrong():
    assert not outcome("equal", error="ValueError: no").right


def test_what_is_printed(capsys):
    missed = outcome(layer=False, named=False, said=("conv.stride at conv1",))
    gates = {"cosine": True, "max 5e-5": True}
    score_table.show(Score((*RIGHT, missed, outcome(gates=gates))))
    printed = capsys.readouterr().out
    assert "planted: conv.padding at conv1 | features.0" in printed
    assert "said:    conv.stride at conv1" in printed
    assert "right cause: 75.0% (at least 95%)" in printed
    rows = [line.split() for line in printed.splitlines()]
    assert ["conv", "3", "3", "2", "2"] in [row[:5] for row in rows]
    assert ["equal", "1", "0", "-", "-"] in [row[:5] for row in rows]
    assert max(map(len, printed.splitlines())) < 160


def test_json_holds_every_outcome():
    content = json.loads(json.dumps(Score(RIGHT).to_dict()))
    assert content["reached"]
    assert [item["cause"] for item in content["outcomes"]] == [x.cause for x in RIGHT]


def test_a_pattern_that_matches_nothing():
    arguments = argparse.Namespace(
        only="bn.nothing*", sample=None, draw=None, list=True, json=None
    )
    with pytest.raises(UsageError, match="no case matches"):
        score.main(arguments)


def test_a_list_of_names(capsys):
    arguments = argparse.Namespace(
        only="bn.*", sample=5, draw=None, list=True, json=None
    )
    assert score.main(arguments) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(names) == 5
    assert all(name.startswith("bn.") for name in names)


def test_a_diagnosis_is_scored():
    from parity import faults

    chosen = [x for x in faults.cases() if x.name.startswith("bn.epsilon/strided")]
    found = score.score(chosen)
    assert len(found.outcomes) == len(chosen) == 2
    assert found.reached, found.outcomes
    assert all(set(x.gates) >= {"cosine", "onnx2tf"} for x in found.outcomes)


def test_importing_the_command_loads_no_framework():
    code = "import sys, parity.score; print({'keras', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
