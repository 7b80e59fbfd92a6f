"""Names the cause of a culprit by experiment."""

from parity.diagnosis.explaining.between import explain_before, explain_between_both
from parity.diagnosis.explaining.explanation import Explanation, not_finite, values_of
from parity.diagnosis.explaining.pair import explain_step
from parity.diagnosis.locate import Culprit


def explain(culprit: Culprit, context: dict) -> list[Explanation]:
    """Returns every cause of a culprit; one that is "unexplained" where none fits.

    Args:
        culprit: from `locate`.
        context: "keras" and "torch", the two graphs.
    """
    if culprit.kind == "formula":
        found = not_finite(culprit) or explain_between_both(culprit)
    elif culprit.kind == "before":
        found = explain_before(culprit, context)
    else:
        found = explain_step(culprit, context)
    if not found:
        k, t = culprit.keras_step, culprit.torch_step
        words = (k.operation, t.operation) if k and t else ("a value", "another")
        found = [Explanation("unexplained", culprit.error, None, values_of(*words))]
    for explanation in found:
        if explanation.keras_step is None:
            explanation.keras_step = culprit.keras_step
        if explanation.torch_step is None:
            explanation.torch_step = culprit.torch_step
    return found
