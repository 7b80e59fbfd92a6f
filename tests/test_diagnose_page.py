"""A diagnosis as text, HTML, JSON and scripts that reproduce it."""

import contextlib
import html.parser
import io
import json
import math
import os
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from parity.frameworks import keras, torch
from parity import faults
from parity.diagnosis import page
from parity.diagnosis.diagnose import diagnose
from parity.diagnosis.findings import Diagnosis, Finding, Match
from parity.diagnosis.repro.scripts import write_repros

CASES = {case.name: case for case in faults.cases()}
# Planted at layers of every kind; the scripts of these are all run.
PLANTED = (
    "conv.padding", "conv.stride", "conv.dilation", "conv.groups", "conv.kernel_size",
    "conv.transposed_padding", "conv.stride_placement", "weights.flipped",
    "weights.transposed", "weights.not_copied", "bias.missing", "bias.different",
    "flatten.order", "reshape.order", "pool.kind", "pool.size", "pool.stride",
    "pool.padding", "pool.count_padding", "pool.border", "pool.ceil_mode", "bn.epsilon",
    "bn.statistics_swapped", "bn.training_mode", "bn.affine", "bn.missing", "lrn.alpha",
    "lrn.size", "ln.epsilon", "ln.axes", "activation.missing", "activation.kind",
    "activation.twice", "gelu.approximation", "leaky.slope", "softmax.twice",
    "softmax.axis", "dropout.active", "merge.order", "merge.kind", "shortcut.missing",
    "pad.missing", "pad.amount", "pad.value", "scale.missing", "resize.method",
    "resize.grid", "nan.first", "layer.missing", "operation.different", "input.scale",
    "input.channel_order",
)  # fmt: skip


def first(cause: str) -> str:
    return next(name for name, case in CASES.items() if case.cause == cause)


def diagnosed(name: str) -> Diagnosis:
    pair = CASES[name].make()
    return diagnose(
        pair.keras_model,
        pair.torch_model,
        pair.images,
        labels=pair.labels,
        level=pair.level,
        weights=pair.weights,
        **pair.arguments,
    )


def finding(**changes) -> Finding:
    fields = {
        "cause": "conv.padding",
        "keras_name": "stem",
        "torch_name": "features.0",
        "error_before": 0.31,
        "error_after": 3e-16,
        "fix": "pad by one",
        "keras_fix": "pad by none",
        "values": {"keras": ((0, 1), (0, 1)), "torch": None},
    }
    return Finding(**fields | changes)


def rows(count: int, *different: int) -> tuple[Match, ...]:
    return tuple(
        Match(
            f"layer{i}",
            f"block.{i}",
            "conv",
            0.5,
            0.25 if i in different else 2e-16,
            "different" if i in different else "equal",
            ((f"layer{i}.kernel", f"block.{i}.weight"),),
        )
        for i in range(count)
    )


def different(*findings: Finding, **changes) -> Diagnosis:
    fields = {"alignment": rows(3, 1), "findings": findings or (finding(),)}
    fields = {"verdict": "different", "level": "forward", "error": 0.4} | fields
    return Diagnosis(**{"weights": "copy"} | fields | changes)


# --- text


def test_the_first_line_is_the_verdict():
    lines = page.text(different()).splitlines()
    assert lines[0] == (
        "different: 1 cause; outputs differ by 4.0e-01 (relative L2, float64)"
    )
    assert "level forward" in lines[1]
    assert "weights copy" in lines[1]


def test_what_a_finding_says():
    text = page.text(different(finding(ties=("pad.missing",))))
    assert "1  conv.padding  padding of a convolution" in text
    assert re.search(r"keras \| torch +stem \| features\.0\n", text)
    assert re.search(r"error +3\.1e-01 -> 3\.0e-16\n", text)
    assert re.search(r"in PyTorch +pad by one\n", text)
    assert re.search(r"or, in Keras +pad by none\n", text)
    assert re.search(r"or it is +pad\.missing\n", text)
    assert "level  " not in text


def test_what_was_not_undone():
    unexplained = finding(cause="unexplained", error_after=None, keras_name=None)
    text = page.text(different(unexplained, finding()))
    assert text.startswith("different: 2 causes, 1 of them unexplained; ")
    assert "3.1e-01, and no change was found that takes it away" in text
    assert "- | features.0" in text
    alone = page.text(different(unexplained))
    assert alone.startswith("different: 1 cause, unexplained; ")


def test_an_infinite_error():
    text = page.text(different(error=math.inf))
    assert "outputs differ in shape, or in where they are not finite" in text


def test_equal_outputs_and_a_cause_in_training():
    training = finding(cause="optimizer.betas", level="training")
    text = page.text(different(training, level="training", error=2e-16))
    assert "different: 1 cause; outputs agree up to 2.0e-16" in text
    assert re.search(r"level +training\n", text)


def test_equal_says_up_to_which_error():
    same = Diagnosis("equal", "forward", "copy", 7e-16, rows(3))
    line = page.text(same).splitlines()[0]
    assert line.startswith("equal: outputs agree up to 7.0e-16 (relative L2, float64)")
    assert line.endswith("no layer introduces more than 2.0e-16")


def test_rounding_shows_its_evidence():
    near = Match("gelu", "act", "activation", 0.0, 3e-9, "rounding")
    diagnosis = Diagnosis("rounding", "forward", "as_is", 1e-9, (*rows(2), near))
    lines = page.text(diagnosis).splitlines()
    assert lines[0] == (
        "rounding: outputs differ by 1.0e-09 (relative L2, float64); no layer "
        "introduces more than 3.0e-09 (gelu | act)"
    )
    assert "rounds to float32" in lines[1]


def test_notes_stand_before_the_alignment():
    text = page.text(different(notes=("conv.bias was not copied",)))
    note = text.index("note: conv.bias was not copied")
    assert text.index("or, in Keras") < note < text.index("inherited")


def test_a_layer_without_a_partner_has_no_errors():
    alone = Match(None, "act", "activation", verdict="only in torch")
    line = page.text(different(alignment=(alone,))).splitlines()[-1]
    assert line.split() == ["-", "act", "activation", "-", "-", "only", "in", "torch"]


def test_what_differs_before_a_pair():
    before = Match("fc", "fc", "dense", 0.5, 1e-16, "different")
    assert "different before" in page.text(different(alignment=(before,)))


@pytest.mark.parametrize(
    ("marked", "wanted"),
    [
        ((), [0, 1, 2, 97, 98, 99]),
        ((50,), [48, 49, 50, 51, 52]),
        ((0, 99), [0, 1, 2, 97, 98, 99]),
    ],
)
def test_long_alignments_are_shown_around_what_differs(marked, wanted):
    assert page.chosen(rows(100, *marked)) == wanted


def test_many_rows_that_differ_are_not_all_shown():
    assert len(page.chosen(rows(100, *range(60)))) == page.LONGEST
    assert page.chosen(rows(page.LONGEST)) == list(range(page.LONGEST))


def test_how_many_rows_are_left_out():
    lines = page.text(different(alignment=rows(100, 50))).splitlines()
    assert "95 of 100 rows are left out" in lines[-1]
    assert [x for x in lines if x.startswith("...")] == ["... 48 rows", "... 47 rows"]
    assert "left out" not in page.text(different())


def test_colours_are_for_terminals(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    diagnosis = different(finding(fix="set [bold]this[/bold]"))
    assert "\x1b[" in page.text(diagnosis, terminal=True)
    plain = page.text(diagnosis)
    assert "\x1b" not in plain
    assert "set [bold]this[/bold]" in plain
    monkeypatch.setenv("COLUMNS", "60")
    wide = page.text(diagnosis, terminal=True)
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", x)) for x in wide.splitlines()) <= 60


# --- HTML


class Reader(html.parser.HTMLParser):
    """Collects tags that are not closed, addresses, ids and text."""

    VOID = ("meta", "input", "br", "link", "img")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.links, self.ids, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[x] for x in ("href", "src") if x in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_needs_no_network():
    there = finding(keras_name="layer1", torch_name="block.1", ties=("pad.missing",))
    diagnosis = different(there, notes=("a note",))
    text = page.html(diagnosis)
    reader = Reader(text)
    assert not reader.open
    assert len(set(reader.ids)) == len(reader.ids)
    assert all(link.startswith("#") for link in reader.links)
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert {"#row-1", "#finding-1"} == set(reader.links)
    assert "http" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in text
    words = " ".join(reader.words)
    for wanted in ("different", "conv.padding", "pad by one", "pad by none", "a note"):
        assert wanted in words
    assert page.html(diagnosis) == text


def test_the_page_has_the_whole_alignment():
    text = page.html(different(alignment=rows(300, 150)))
    assert text.count('<tr id="row-') == 300
    assert "300 rows, 299 equal" in text
    assert "kernel &rarr; weight" in text


def test_the_page_escapes_everything():
    bad = '<script>alert("$x")</script>'
    fields = ("cause", "keras_name", "torch_name", "fix", "keras_fix")
    everywhere = finding(
        **dict.fromkeys(fields, bad), values={bad: bad, "torch": bad}, ties=(bad,)
    )
    row = Match(bad, bad, bad, 0, 1, bad, ((bad, bad),))
    text = page.html(different(everywhere, alignment=(row,), notes=(bad,)))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 12
    assert not Reader(text).open


def test_the_page_of_an_equal_pair():
    text = page.html(Diagnosis("equal", "forward", "copy", 0.0, rows(1)))
    assert '<h1 class="equal">' in text
    assert 'id="causes"' not in text
    assert "Notes" not in text


# --- JSON


def test_json_has_the_documented_fields(tmp_path):
    diagnosis = different(
        finding(error_before=math.inf), error=math.inf, culprits=(object(),)
    )
    path = tmp_path / "diagnosis.json"
    diagnosis.to_json(path)
    found = json.loads(path.read_text("utf-8"))
    assert found["schema"] == 1
    assert found["error"] == found["findings"][0]["error_before"] == "Infinity"
    assert found["findings"][0]["values"] == {
        "keras": [[0, 1], [0, 1]],
        "torch": None,
    }
    assert found["alignment"][1]["copied"] == [["layer1.kernel", "block.1.weight"]]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with open(os.path.join(root, "docs", "diagnosis.md"), encoding="utf-8") as file:
        documented = set(re.findall(r"^\| `(\w+)` \|", file.read(), re.MULTILINE))
    written = {*found, *found["alignment"][0], *found["findings"][0]}
    assert written == documented


# --- scripts


@pytest.fixture
def run_script():
    """Gives what runs a script in this process: what it prints, and its error."""

    def run(path) -> tuple[str, AssertionError | None]:
        printed = io.StringIO()
        policy = keras.config.dtype_policy()
        try:
            with contextlib.redirect_stdout(printed):
                runpy.run_path(str(path), run_name="__main__")
        except AssertionError as error:
            return printed.getvalue(), error
        finally:
            keras.config.set_dtype_policy(policy)
        return printed.getvalue(), None

    return run


@pytest.mark.parametrize("cause", PLANTED)
def test_every_script_fails(cause, tmp_path, run_script):
    policy = keras.config.dtype_policy()
    diagnosis = diagnosed(first(cause))
    paths = write_repros(diagnosis, tmp_path / "new" / "folder")
    assert keras.config.dtype_policy() is policy
    assert paths
    assert sorted(tmp_path.rglob("*.py")) == paths
    written = " ".join(path.read_text("utf-8") for path in paths)
    for found in diagnosis.findings:
        assert f"{found.cause} at " in written or f"{found.cause} and" in written
    for path in paths:
        printed, error = run_script(path)
        assert re.fullmatch(r"the two sides differ by \S+", str(error))
        kept = re.findall(r"(\w+) gives what it gave .* within (\S+)", printed)
        assert [side for side, _ in kept] == ["keras", "torch"]
        assert all(float(left) <= 1e-6 for _, left in kept)
        assert "in PyTorch: " in printed
        assert "or, in Keras: " in printed
        assert "relative L2 error: " in printed


def test_scripts_run_alone(tmp_path):
    name = first("bn.epsilon")
    (path,) = write_repros(diagnosed(name), tmp_path)
    assert re.fullmatch(r"01_bn_epsilon_\w+\.py", path.name)
    assert path.with_suffix(".npz").exists()
    text = path.read_text("utf-8")
    assert "parity" not in text
    assert max(map(len, text.split("keras_output =")[0].splitlines())) <= 88
    done = subprocess.run(
        [sys.executable, path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "AssertionError: the two sides differ by" in done.stderr
    assert "bn.epsilon" in done.stdout


def test_a_script_passes_once_the_fault_is_removed(tmp_path, run_script):
    diagnosis = diagnosed(first("bn.epsilon"))
    (path,) = write_repros(diagnosis, tmp_path)
    ours, theirs = (diagnosis.findings[0].values[x] for x in ("keras", "torch"))
    text = path.read_text("utf-8")
    assert f"eps={theirs!r}" in text
    path.write_text(text.replace(f"eps={theirs!r}", f"eps={ours!r}"), "utf-8")
    printed, error = run_script(path)
    assert error is None
    assert "the two sides agree" in printed


def test_a_script_is_of_layers_that_one_would_write(tmp_path):
    (path,) = write_repros(diagnosed(first("conv.padding")), tmp_path)
    text = path.read_text("utf-8")
    assert "keras.layers.Conv2D(" in text
    assert "F.conv2d(" in text
    assert 'data["weight"].transpose(2, 3, 1, 0)' in text
    assert "(0, 2, 3, 1)" in text
    with np.load(path.with_suffix(".npz")) as arrays:
        assert {"input", "weight", "keras_output", "torch_output"} <= set(arrays)
        assert all(arrays[name].dtype == np.float64 for name in arrays)


class Strange(torch.nn.Module):
    """Rolls an image, which no known operation does."""

    def forward(self, images):
        return torch.relu(torch.roll(images, 1, 3))


def test_an_opaque_operation_compares_what_was_captured(tmp_path, run_script):
    inputs = keras.Input((5, 6, 3))
    turned = keras.layers.Lambda(lambda x: keras.ops.roll(x, 2, 2))(inputs)
    model = keras.Model(inputs, keras.layers.ReLU()(turned))
    diagnosis = diagnose(model, Strange().eval())
    assert diagnosis.verdict == "different"
    paths = write_repros(diagnosis, tmp_path)
    assert paths
    text = paths[0].read_text("utf-8")
    assert 'return data["keras_output"]' in text
    assert 'return tensors["torch_output"]' in text
    _, error = run_script(paths[0])
    assert error is not None


@pytest.mark.parametrize("cause", ["equal", "optimizer.betas", "loss.reduction"])
def test_no_culprit_no_script(cause, tmp_path):
    assert write_repros(diagnosed(first(cause)), tmp_path / "folder") == []
    assert not (tmp_path / "folder").exists()


def test_names_that_no_file_may_have(tmp_path):
    diagnosis = diagnosed(first("bn.epsilon"))
    (found,) = diagnosis.findings
    (culprit,) = diagnosis.culprits
    name = '../a "b"\\'
    culprit.torch_step.name = name
    renamed = Diagnosis(
        "different",
        "forward",
        "copy",
        1.0,
        findings=(Finding(**vars(found) | {"torch_name": name, "fix": '"""\\'}),),
        culprits=(culprit,),
    )
    (path,) = write_repros(renamed, tmp_path)
    assert path.parent == tmp_path
    compile(path.read_text("utf-8"), str(path), "exec")
