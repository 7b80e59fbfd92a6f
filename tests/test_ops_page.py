"""The page of operations: whole, escaped, legible, and alive in a browser."""

import dataclasses
import functools
import html
import importlib.resources
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

import parity.frameworks  # noqa: F401
from parity import rows
from parity.measuring import Error, Measurement
from parity.ops_page import PICTURES, page
from parity.ops_table import Measured
from parity.rows.record import Row, maps

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE = '<script>alert("&")</script>'
ROWS = (
    Row(
        "padding.same",
        "'same' with a stride",
        "padding",
        "other meaning",
        keras="keras.ops.conv(images, kernel, strides=2, padding='same')",
        torch="F.conv2d(F.pad(images, (0, 1, 0, 1)), kernel, stride=2)",
        naive_torch="F.conv2d(images, kernel, stride=2, padding=1)",
        symptom="a grid shifted by one pixel",
        fix="pad (0, 1) by hand",
        operations=("conv2d",),
        inputs={"images": maps(2, 32, 30, 3)},
    ),
    Row(
        "pooling.max",
        HOSTILE,
        "pooling",
        "same",
        keras=f"def pool(x):\n\n    return x  # {HOSTILE}\n\npool(images)",
        torch='F.max_pool2d(images, 2)\n"""of two\nlines"""',
        note=HOSTILE,
    ),
    Row(
        "backends.mean",
        "a mean of two on another backend",
        "backends",
        "other meaning",
        keras="keras.ops.mean(images)",
        naive_keras="keras.ops.sum(images)",
        symptom=HOSTILE,
        fix="the mean",
        backend="torch",
    ),
    Row(
        "numerics.switch",
        "a variable of the process",
        "numerics",
        "other default",
        keras="print(1)",
        naive_keras="print(2)",
        symptom="another number",
        fix="leave it alone",
        process=True,
        environment={"TF_SWITCH": "1"},
    ),
)


def measured(table, device="cpu", **changes) -> Measured:
    """Returns rows with numbers that nobody has measured."""
    found = [invent(row, **changes.get(row.name, {})) for row in table]
    versions = {"keras": "3.15.1", "torch": "2.14.1"}
    return Measured(list(table), found, device, versions, "a machine", "2026-01-31")


def invent(row: Row, **changes) -> Measurement:
    naive = Error(1.4, 4.6) if row.naive else None
    if row.naive and row.shows != "error":
        naive = Error(math.inf, math.inf, f"{row.shows}: {HOSTILE}")
    left = {dtype: Error(2.1e-16, 1.3e-15) for dtype in row.dtypes}
    naives = dict.fromkeys(row.dtypes, naive) if naive else {}
    backends = {"jax": Error(0.0, 0.0), "torch": Error(math.inf, math.inf, "E: no")}
    found = Measurement(row.name, naive, left, backends, naives=naives)
    return dataclasses.replace(found, **changes)


@functools.cache
def whole() -> str:
    return page(measured(rows.ROWS))


class Reader(HTMLParser):
    """Holds tags to each other; keeps ids, links and what is read."""

    EMPTY = frozenset({"meta", "input", "br", "hr", "img", "link"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.ids, self.links, self.attributes = [], [], set()
        self.hidden = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(values)
        self.hidden += [tag] if "hidden" in values else []
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[x] for x in ("href", "src") if x in values]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_of_the_whole_table_holds_every_row():
    reader = read(whole())
    assert len(set(reader.ids)) == len(reader.ids)
    text = " ".join(reader.text.split())
    for row in rows.ROWS:
        assert row.name in reader.ids
        for part in (row.what, row.symptom, row.fix, row.note):
            assert " ".join(part.split()) in text
        for code in (row.keras, row.torch, row.naive):
            assert "\n".join(code.splitlines()) in reader.text


def test_the_whole_table_is_json():
    text = json.dumps(measured(rows.ROWS).to_dict(), allow_nan=False)
    found = json.loads(text)["rows"]
    assert [row["name"] for row in found] == [row.name for row in rows.ROWS]


def test_nothing_is_loaded():
    reader = read(whole())
    anchors = {link[1:] for link in reader.links}
    assert all(link.startswith("#") for link in reader.links)
    assert anchors <= set(reader.ids)
    assert not {"link", "img", "iframe"} & set(reader.tags)
    style = re.search("<style>(.*?)</style>", whole(), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    script = re.search("<script>(.*?)</script>", whole(), re.DOTALL)[1]
    assert "fetch" not in script
    assert "http" not in style + script


def test_what_rows_say_is_escaped():
    text = page(measured(ROWS))
    reader = read(text)
    assert reader.tags.count("script") == 1
    assert reader.text.count(HOSTILE) == 4
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert "TF_SWITCH=1: <" not in text
    assert "naive port with TF_SWITCH=1" in text


def test_the_same_numbers_make_the_same_page():
    assert page(measured(ROWS)) == page(measured(ROWS))


def test_without_a_script_all_is_there():
    reader = read(page(measured(ROWS)))
    assert reader.hidden == ["form", "p"]  # the search, and that nothing was found
    assert reader.tags.count("details") == len(ROWS)


def test_problems_stand_at_the_head():
    text = page(measured(ROWS, **{"pooling.max": {"problem": f"no more {HOSTILE}"}}))
    assert '<a href="#pooling.max">' in text.split("<main>")[0]
    assert f"no more {HOSTILE}" in read(text).text
    assert '<details class="row problem" id="pooling.max"' in text
    assert "Not as the table says" not in page(measured(ROWS))


def test_a_row_that_was_not_measured():
    changes = {"naive": None, "left": {}, "naives": {}, "skipped": "needs a GPU"}
    text = page(measured(ROWS, **{"padding.same": changes}))
    assert "Not measured: needs a GPU." in text
    assert "Of 4 rows 3 have been run, the others could not here" in text
    assert "Every row has been run" in page(measured(ROWS))
    assert "1.4" not in text.split('id="padding.same"')[1].split("</details>")[0]


def test_columns_are_those_that_were_measured():
    cpu, gpu = page(measured(ROWS)), page(measured(ROWS, device="gpu"))
    assert "<span>tf32</span>" not in cpu
    assert "<span>tf32</span>" in gpu
    assert "<span>jax</span>" in cpu
    alone = page(measured(ROWS, **{row.name: {"backends": {}} for row in ROWS}))
    assert "<span>jax</span>" not in alone
    assert "backends what" not in alone


def test_what_the_naive_port_changes_is_marked():
    text = page(measured(ROWS[:1]))
    naive = text.split('<figure class="code naive torch">')[1].split("</figure>")[0]
    marked = re.findall(r'<span class="[^"]*changed">([^<]*)', naive)
    assert "padding" in marked
    assert "1" in marked
    assert "conv2d" not in marked


def test_pictures_stand_in_their_sections():
    text = page(measured(ROWS))
    for section in ("padding", "pooling"):
        part = text.split(f'<section id="{section}"')[1].split("</section>")[0]
        assert f"{PICTURES[section][1]()}" in part
    assert text.count("<svg") == 2
    assert whole().count("<svg") == 3


def template() -> str:
    return (importlib.resources.files("parity") / "ops_page.html").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_of_text(scheme):
    light, dark = re.findall(r":root \{([^}]*--page[^}]*)\}", template())
    block = {"light": light, "dark": dark}[scheme]
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block))
    pairs = [
        (ink, ground)
        for ink in ("ink", "muted", "accent", "wrong", "right")
        for ground in ("page", "soft")
    ]
    pairs += [
        (ink, ground)
        for ink in ("ink", "keyword", "string", "number", "comment", "builtin")
        for ground in ("code", "naive")
    ]
    pairs += [("page", "accent")]  # a chip that is on
    low = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}


def contrast(first: str, second: str) -> float:
    """Returns the contrast ratio of WCAG 2.2."""
    lighter, darker = sorted(map(luminance, (first, second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
    ]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_contrasts_are_those_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


# In a browser. The page is looked at through a frame, which may be as narrow as a
# phone, and a script at its end reports to the document around it.

FRAME = """<!doctype html><body>
<script>
onmessage = (event) => {
  document.documentElement.dataset.result = event.data;
  document.querySelector("iframe").remove();
};
</script>
<iframe src="page.html#FRAGMENT" style="width: WIDTHpx; height: 800px"></iframe>
"""
FIRST = """<script>
const failures = [];
addEventListener("error", (event) => failures.push(String(event.message)));
addEventListener("unhandledrejection", (event) => failures.push(String(event.reason)));
for (const name of ["error", "warn"]) {
  console[name] = (...parts) => failures.push(parts.join(" "));
}
</script>
"""
LAST = """<script>
const shownRows = () =>
  [...document.querySelectorAll(".row:not([hidden])")].map((row) => row.id);
const openRows = () =>
  [...document.querySelectorAll(".row[open]")].map((row) => row.id);
const type = (text) => {
  search.value = text;
  search.dispatchEvent(new Event("input", {bubbles: true}));
};
addEventListener("load", () => setTimeout(async () => {
  let result;
  try {
    result = await (async () => { STEPS })();
  } catch (error) {
    failures.push(String(error));
  }
  parent.postMessage(JSON.stringify({result, failures}), "*");
}, 50));
</script>
"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"no browser: {', '.join(BROWSERS)}")
    return found


@pytest.fixture
def visit(browser, tmp_path):
    """Gives what runs steps in the page and returns what these return."""

    def run(steps, text=None, fragment="", width=1280, dark=False):
        text = page(measured(ROWS)) if text is None else text
        text = text.replace("<head>", f"<head>{FIRST}")
        text = text.replace("</body>", LAST.replace("STEPS", steps) + "</body>")
        (tmp_path / "page.html").write_text(text, "utf-8")
        frame = FRAME.replace("FRAGMENT", fragment).replace("WIDTH", str(width))
        (tmp_path / "frame.html").write_text(frame, "utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        command += ["--virtual-time-budget=5000", "--window-size=1400,900"]
        command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        done = subprocess.run(
            [*command, (tmp_path / "frame.html").as_uri()],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        answer = re.search(r'data-result="([^"]*)"', done.stdout)
        assert answer, done.stderr[-2000:]
        answer = json.loads(html.unescape(answer[1]))
        assert answer["failures"] == []
        return answer.get("result")

    return run


def test_the_page_of_the_whole_table_in_a_browser(visit):
    steps = """
      const before = [shown.value, form.hidden, openRows().length];
      openAll.click();
      await new Promise((done) => setTimeout(done, 100));
      return [...before, openRows().length, openAll.textContent];
    """
    count = len(rows.ROWS)
    found = visit(steps, whole())
    assert found == [f"{count} rows", False, 0, count, "Close all"]


def test_searching(visit):
    steps = """
      const found = [];
      for (const text of ["STRIDE", "pool2d images", "shifted", "of two", "nowhere"]) {
        type(text);
        found.push(shownRows());
      }
      const nothing = !document.getElementById("nothing").hidden;
      const sections = document.querySelectorAll("section:not([hidden])").length;
      const count = shown.value;
      document.getElementById("clear").click();
      return [found, nothing, sections, count, shown.value, location.hash];
    """
    found, *rest = visit(steps)
    assert found == [
        ["padding.same"],
        ["pooling.max"],
        ["padding.same"],
        ["pooling.max", "backends.mean"],
        [],
    ]
    assert rest == [True, 0, "0 of 4 rows", "4 rows", ""]


def test_choosing_a_category_and_a_section(visit):
    steps = """
      const chip = (text) => chips.find((chip) => chip.value === text).click();
      chip("other meaning");
      const one = shownRows();
      chip("same");
      const two = shownRows();
      section.value = "pooling";
      section.dispatchEvent(new Event("input", {bubbles: true}));
      return [one, two, shownRows(), location.hash];
    """
    one, two, three, hash_ = visit(steps)
    assert one == ["padding.same", "backends.mean"]
    assert two == ["padding.same", "pooling.max", "backends.mean"]
    assert three == ["pooling.max"]
    assert hash_ == "#section=pooling&category=same&category=other+meaning"


def test_opening_a_row_is_kept_in_the_address(visit):
    steps = """
      type("images");
      const summary = document.getElementById("pooling.max").firstElementChild;
      summary.click();
      const opened = [openRows(), location.hash];
      summary.click();
      return [...opened, openRows(), location.hash];
    """
    assert visit(steps) == [
        ["pooling.max"],
        "#q=images&row=pooling.max",
        [],
        "#q=images",
    ]


@pytest.mark.parametrize(
    ("fragment", "state"),
    [
        ("q=two&row=backends.mean", ["two", ["pooling.max", "backends.mean"]]),
        ("backends.mean", ["", [row.name for row in ROWS]]),
    ],
)
def test_an_address_brings_the_view_back(visit, fragment, state):
    steps = """
      const top = document.getElementById("backends.mean").getBoundingClientRect().top;
      const inside = top >= form.getBoundingClientRect().bottom && top < innerHeight;
      return [search.value, shownRows(), openRows(), inside];
    """
    assert visit(steps, fragment=fragment) == [*state, ["backends.mean"], True]


def test_an_address_that_is_followed_later(visit):
    steps = """
      type("nowhere");
      location.hash = "pooling.max";
      await new Promise((done) => setTimeout(done, 100));
      return [search.value, openRows()];
    """
    assert visit(steps) == ["", ["pooling.max"]]


def test_keys(visit):
    steps = """
      const press = (target, key) => target.dispatchEvent(
        new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
      const typed = press(document.body, "/");
      const focused = document.activeElement === search;
      const inside = press(search, "/");
      type("two");
      press(search, "Escape");
      return [typed, focused, inside, search.value, shownRows().length];
    """
    assert visit(steps) == [False, True, True, "", len(ROWS)]


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_the_page_is_as_wide_as_the_screen(visit, width):
    steps = """
      openAll.click();
      const wide = [...document.querySelectorAll("pre, table, svg, dd, summary, h1")]
        .filter((part) => part.getBoundingClientRect().right > innerWidth);
      const codes = [...document.querySelectorAll(".row .codes")].slice(0, 20);
      const tops = (codes) => [...codes.querySelectorAll(".code:not(.naive)")]
        .map((code) => Math.round(code.getBoundingClientRect().top));
      const beside = codes.map(tops).filter((y) => y.length === 2 && y[0] === y[1]);
      const fits = document.documentElement.scrollWidth <= innerWidth;
      return [innerWidth, fits, wide.length, beside.length > 0];
    """
    assert visit(steps, whole(), width=width) == [width, True, 0, width > 640]


def test_light_and_dark(visit):
    steps = "return getComputedStyle(document.body).backgroundColor;"
    light, dark = (visit(steps, dark=dark) for dark in (False, True))
    assert [sum(map(int, re.findall(r"\d+", x))) > 384 for x in (light, dark)] == [
        True,
        False,
    ]


def test_a_failure_in_the_page_is_seen(visit):
    with pytest.raises(AssertionError, match="nobody"):
        visit("nobody();")
