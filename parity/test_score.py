"""The published score: a fixed sample of the ports, and all of them where slow."""

from dataclasses import fields

import numpy as np
import pytest

from parity import faults, score
from parity.diagnosis.explaining import pair as explaining
from parity.score import Outcome, Score

SAMPLE = score.sample(faults.cases(), 132)


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_fault_is_still_named_and_an_equal_pair_is_not_accused(case):
    outcome = score.judge(case)
    assert outcome.right, (outcome.expected, outcome.said, outcome.error)


@pytest.mark.slow
def test_the_targets_are_reached():
    found = score.score(faults.cases())
    assert found.reached, [x.name for x in found.outcomes if not x.right]


def case_of(name):
    return next(case for case in faults.cases() if case.name.startswith(name))


def test_a_cause_that_is_named_wrongly_is_a_miss(monkeypatch):
    monkeypatch.setitem(explaining.CAUSES, ("batch_norm", "epsilon"), "bn.momentum")
    outcome = score.judge(case_of("bn.epsilon/"))
    assert outcome.detected
    assert outcome.layer
    assert not outcome.named
    assert not outcome.right


def test_a_diagnosis_that_fails_is_a_miss(monkeypatch):
    def fail(*arguments, **settings):
        raise RuntimeError("no")

    monkeypatch.setattr("parity.diagnosis.diagnose.diagnose", fail)
    outcome = score.judge(case_of("bn.epsilon/"))
    assert outcome.error == "RuntimeError: no"
    assert not outcome.right


def outcome(cause, *, detected=True, layer=True, named=True):
    plain = dict.fromkeys((field.name for field in fields(Outcome)), 0)
    given = {"cause": cause, "group": cause.split(".")[0], "error": ""}
    found = {"detected": detected, "layer": layer, "named": named}
    return Outcome(**(plain | given | found))


@pytest.mark.parametrize(
    "wrong",
    [
        [outcome("bn.epsilon", detected=False)],
        [outcome("bn.epsilon", layer=False)] * 3,
        [outcome("bn.epsilon", named=False)] * 6,
        [outcome("several", named=False)] * 2,
        [outcome("equal", detected=True)],
    ],
)
def test_a_target_that_is_missed_fails_the_score(wrong):
    right = [outcome("bn.epsilon")] * 97 + [outcome("several")] * 9
    right += [outcome("equal", detected=False)] * 5
    assert Score(tuple(right)).reached
    assert not Score((*right, *wrong)).reached


def test_the_sample_holds_every_cause_and_a_quarter_of_equal_pairs():
    causes = [case.cause for case in SAMPLE]
    assert set(causes) == {case.cause for case in faults.cases()}
    assert np.isclose(causes.count("equal") / len(causes), 0.25)


def test_drawn_pairs_are_the_same_every_time_and_named():
    cases, again = (list(faults.drawn.cases(0, 10)) for _ in range(2))
    assert [case.name for case in cases] == [case.name for case in again]
    assert sum(case.cause == "equal" for case in cases) == 2
    assert sum(case.cause == "several" for case in cases) == 2
    outcomes = [score.judge(case) for case in cases]
    assert all(outcome.right for outcome in outcomes), [
        (outcome.expected, outcome.said) for outcome in outcomes if not outcome.right
    ]
