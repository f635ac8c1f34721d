"""The page of `relatum report`: what stands in it, and what a reader's browser makes of it."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from relatum import cli
from relatum.reports import charts
from relatum.reports.page import LIMIT, Cell, Neighbor, Page, png_of
from relatum.reports.records import Record
from relatum.reports.runs import page_of as page_of_runs
from relatum.studies.page import page_of as page_of_study
from test_studies import told


def record(name: str, seed: int, top1: float) -> Record:
    history = [{"epoch": e, "seconds": 2.0, "task": 3.0 / e, "validation_top1": top1 * e / 3} for e in (1, 2, 3)]
    return Record(
        recipe={"name": name, "train": {"seed": seed, "epochs": 3}, "method": {"name": name, "weight": ord(name[0])}},
        seed=seed,
        versions={},
        commit="",
        machine={},
        data={},
        history=history,
        metrics={"top1": top1},
        seconds=60.0 * top1,
    )


GROUPS = {"plain": [record("plain", 0, 40.0), record("plain", 1, 42.0)], "other": [record("other", 0, 50.0)]}


def page() -> Page:
    made = Page("A <question>", "One sentence.")
    rows = [[Cell("ten", 10.0), "b"], [Cell("nine", 9.0, tone="better"), "a"], [Cell("", None), "c"]]
    made.table("Answer", ["number", "word"], rows, note="How it was measured.")
    made.charts("Curves", [charts.curves(GROUPS, "validation_top1", "top-1"), charts.curves(GROUPS, "absent", "x")])
    made.charts("Nothing", [None])
    made.recipes({f"{name} seed {r.seed}": r for name, group in GROUPS.items() for r in group})
    return made


def test_a_page_needs_no_network_and_stays_small():
    text = page().html()
    assert len(text.encode()) < LIMIT
    body = re.sub(r"<script>.*?</script>", "", text, flags=re.S)  # the runtime holds the addresses of its schemas
    assert re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"' >]+""", body) == []
    assert "A &lt;question&gt;" in text
    assert "Nothing" not in body  # a section without a chart is none


def test_text_cannot_become_markup():
    made = Page("t")
    made.recipes({"</script><b>": replace(record("x", 0, 1.0), recipe={"name": "</script><i>"})})
    made.table("T", ["<h>"], [["<cell>"]])
    text = made.html()
    assert "<i>" not in text
    assert "<b>" not in text
    assert "&lt;cell&gt;" in text


def test_a_curve_is_the_mean_of_the_seeds_and_its_band_their_range():
    spec = charts.curves(GROUPS, "validation_top1", "top-1").to_dict()
    points = spec["data"]["values"] if "data" in spec else spec["layer"][0]["data"]["values"]
    values = [point for point in points if point["row"] == "plain" and point["epoch"] == 3]
    assert values == [{"row": "plain", "epoch": 3, "mean": 41.0, "low": 40.0, "high": 42.0, "seeds": 2}]


def test_the_loss_is_the_sum_of_its_terms():
    entry = {"epoch": 1, "seconds": 9.0, "learning_rate": 0.1, "task": 1.5, "kd": 2.0, "validation_top1": 50.0}
    group = {"a": [replace(record("a", 0, 1.0), history=[entry])]}
    assert '"mean": 3.5' in json.dumps(charts.curves(group, "loss", "loss").to_dict())


def test_a_description_says_what_a_chart_shows():
    found = [charts.Difference("kd", 1.5, 0.25, 2.75, 6, True)]
    assert charts.differences(found, "top-1", "supervised").to_dict()["description"] == (
        "kd: +1.50 (+0.25 to +2.75), 6 seeds"
    )
    assert "plain: 41.00 in 41.0 minutes" in charts.cost_against(GROUPS, "top1", "top-1").to_dict()["description"]


def test_values_over_a_decade_are_drawn_on_a_logarithmic_axis():
    def scale(points):
        return charts.sensitivity(points, "alpha", "top-1").to_dict()["layer"][1]["encoding"]["x"]["scale"]

    assert scale({0.01: [1.0], 0.1: [2.0]}) == {"type": "log"}
    assert scale({0.0: [1.0], 0.1: [2.0]}) == {"zero": False}
    assert scale({0.5: [1.0], 1.0: [2.0]}) == {"zero": False}


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row has 1 cells and the table 2 columns"):
        Page("t").table("T", ["a", "b"], [["x"]])


def test_a_page_that_grows_too_large_is_refused():
    made = Page("t")
    made.text("Much", ["x" * LIMIT])
    with pytest.raises(ValueError, match="'Much' takes"):
        made.html()


def test_the_page_of_runs_shows_what_they_measured(tmp_path):
    runs = {tmp_path / f"{r.seed}-{name}": r for name, group in GROUPS.items() for r in group}
    text = page_of_runs(runs, {}).html()
    assert '<td data-value="42">42.00</td>' in text
    assert "plain seed 0 and plain seed 1 and 1 more" in text


def test_the_page_of_a_study_shows_its_differences(tmp_path):
    made = told(tmp_path, (50.0, 51.0, 49.0, 50.5, 50.0, 49.5), (52.1, 53.0, 51.2, 52.4, 52.0, 51.6))
    text = page_of_study(made).html()
    assert "smooth: +2.05 (+1.94 to +2.16), 6 seeds" in text
    assert "<td class=better>better</td>" in text


def test_a_study_without_a_run_has_no_page(tmp_path):
    with pytest.raises(ValueError, match="relatum study small --scale cpu"):
        page_of_study(told(tmp_path, (), ()))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["runs/none"], "there is no study and no run 'runs/none'"),
        (["jacard-2"], "did you mean jaccard-2"),
        (["jaccard-2", "--out", "page.md"], "a page is written as .html"),
        ([], "needs a study or runs"),
    ],
)
def test_what_is_no_report_is_refused(monkeypatch, capsys, tmp_path, args, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["relatum", "report", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("view", ["desk", "dark", "phone"])
def test_in_a_browser(browser, tmp_path, view):
    import numpy as np

    made = page()
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    made.neighbors("Neighbors", [[Neighbor(png_of(pixels), "cat"), Neighbor(png_of(pixels), "dog", 0.5)]])
    (tmp_path / "page.html").write_text(made.html(), encoding="utf-8")
    settings = {
        "desk": {"viewport": {"width": 1280, "height": 900}},
        "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
        "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    }[view]
    context = browser.new_context(**settings)
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("requestfailed", lambda request: complaints.append(request.url))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("body[data-drawn]")

    def column(number: int) -> list[str]:
        return tab.eval_on_selector_all(
            f"table.sortable tbody td:nth-child({number})", "c => c.map(x => x.textContent)"
        )

    assert column(1) == ["ten", "nine", ""]
    tab.click("table.sortable th:first-child button")
    assert column(1) == ["ten", "nine", ""]  # the largest first
    tab.click("table.sortable th:first-child button")
    assert column(1) == ["nine", "ten", ""]  # by value, the empty cell last
    tab.click("table.sortable th:nth-child(2) button")
    assert column(2) == ["c", "b", "a"]

    assert tab.locator(".chart svg").count() == 1
    tab.locator(".chart .mark-symbol path").nth(2).hover(force=True)
    tab.wait_for_selector("#vg-tooltip-element.visible")
    assert "mean" in tab.inner_text("#vg-tooltip-element")

    tab.select_option("#compare label:nth-child(2) select", "other seed 0")
    fields = tab.eval_on_selector_all("#compare tbody td:first-child", "c => c.map(x => x.textContent)")
    assert fields == ["name", "method.name", "method.weight"]

    assert tab.evaluate("document.documentElement.scrollWidth") <= settings["viewport"]["width"]
    assert complaints == []
    context.close()
