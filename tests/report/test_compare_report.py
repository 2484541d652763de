"""The page of a comparison: its figures, its pictures, its curves, and where it may be written."""

import base64
import html
import io
import re

import numpy as np
import pytest
from motion_browser import Browser
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from bbox.errors import UsageError
from bbox.report.compare import comparison_page, write_comparison
from bbox.report.compare_plots import _clopper_pearson
from bbox.report.compare_tables import cell_text, grids, notes
from bbox.results.compare import compare, comparison
from bbox.results.compared import load_runs
from bbox.results.records import Config
from tests.report.test_report import BUDGET, chromium, example, make_run, text_of, wrong
from tests.results import code_runs

DASH = "\N{EN DASH}"
EVIL = '<img src=x onerror="hacked=1"><script>hacked=1</script>'


def made(path, distances, **changes):
    """A run whose examples have these distances; ``None`` where nothing was found, 0 where it was wrong at first."""
    examples = [wrong(i) if d == 0 else example(i, distance=d) for i, d in enumerate(distances)]
    make_run(path, examples, **changes).close()
    return path


FIRST = [0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, None, 0.9, 0, 2.0]
SECOND = [0.4, 0.7, 0.4, 0.9, 1.1, 0.2, 1.5, None, 1.0, 0, 0.3, 1.9]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    second = Config(budget=BUDGET, attack="square", attack_options={"epsilon": 2.0}, seed=3).to_json()
    return load_runs(
        [
            made(place / "one", FIRST),
            made(place / "two", SECOND, config={"seed": 7}),
            made(place / "three", FIRST, config=second),
        ]
    )


@pytest.fixture(scope="module")
def page(runs):
    return comparison_page(comparison(runs), runs)


def test_one_file_without_script_or_network(page, runs):
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in page and "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:image/png|#)[^"]*"', page.replace("xlink:href", "href"))
    assert comparison_page(comparison(runs), runs) == page


def test_what_differs_and_the_tables_stand_there(page, runs):
    found, text = comparison(runs), text_of(page)
    assert "one , two and three" in text and "12 images of zoo:tiny-data, paired by example" in text
    assert "seed 0 7 3" in text and f"attack option epsilon {DASH} {DASH} 2" in text and "data name" not in text
    # Ratios of the 10 examples that both attacked: 0.8, 1.17, 0.5, 0.9, 0.92, 0.14, 0.94, inf, 0, 0.95
    row = found["runs"][1]["against"]["at"][-1]["distance"]
    assert (row["n"], row["closer"], row["ties"], row["farther"]) == (10, 8, 0, 2)
    assert row["ratio"] == pytest.approx((0.9 + 11 / 12) / 2)
    each, paired, whole = grids(found)
    at_end = [cells for group, number, cells in paired.rows if (group, number) == ("300", 1)]
    assert cell_text(at_end[0][0]).splitlines() == ["0.908", "0.143 to 1.167", "p 1"]
    assert cell_text(at_end[0][1]) == "8 / 0 / 2"
    told = " ".join(notes(found))
    assert (
        "three stays within a fixed epsilon and minimises no l2: no ratio is taken. It has not looked further" in told
    )
    for grid in (each, paired, whole):
        for _, _, cells in grid.rows:
            assert all(html.escape(cell.text) in page for cell in cells)
    assert [cell_text(cells[1]) for _, _, cells in whole.rows] == ["91.7%", *["91.7%\nchange 0.0\np 1"] * 2]


def test_curves_have_a_colour_and_a_name_each(page):
    plots = re.findall(r"<figure class=\"plot\">.*?</figure>", page, re.DOTALL)
    assert [text_of(plot).split(" Band")[0].split(" Median of")[0] for plot in plots] == [
        "Median l2 against queries",
        "l2 over that of one, example by example",
        *(f"Robust accuracy at epsilon {e}, against queries" for e in ("1", "1.5", "2")),
        "Robust accuracy at 300 queries, against epsilon",
    ]
    for number, plot in enumerate(plots):
        drawn = set(re.findall(r"stroke: var\(--run-(\d)\)", plot))
        assert drawn == ({"2"} if number == 1 else {"1", "2", "3"})
        assert 'role="img"' in plot and "#0102" not in plot
    assert "one: 1.200 at 300 queries; two: 0.900 at 300 queries" in page


def test_bands_of_a_proportion():
    share = np.arange(8) / 7
    low, high = _clopper_pearson(share, 7)
    for k in range(8):
        assert (low[k], high[k]) == pytest.approx(proportion_confint(k, 7, method="beta"))


def test_pictures_of_where_they_differ_most(page, runs):
    cards = re.findall(r'<article class="card">.*?</article>', page, re.DOTALL)
    shown = [int(re.search(r"no\. (\d+)", card)[1]) for card in cards]
    # Those that not all runs broke, then by the ratio of farthest and closest; 9 and 10 are not attacked in all.
    assert shown == [7, 8, 5, 2, 0, 1, 3, 4]
    assert "not found" in text_of(cards[0]) and "two a, l2 0.200" not in text_of(cards[0])
    assert "two a, l2 0.200" in text_of(cards[2]) and "one a, l2 1.400" in text_of(cards[2])
    addresses = re.findall(r'src="data:image/png;base64,([^"]*)"', cards[2])
    saved = [runs[0].path / "originals", *(run.path / "adversarial" for run in runs)]
    for address, folder in zip(addresses, saved, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(address))))
        assert np.abs(pixels / 255 - np.load(folder / "000005.npy")[0]).max() <= 0.5 / 255 + 1e-6


def test_nothing_found_and_nothing_finished(tmp_path):
    nothing = [None] * 4
    loaded = load_runs([made(tmp_path / "a", nothing), made(tmp_path / "b", nothing, planned=9)])
    page = text_of(comparison_page(comparison(loaded), loaded))
    assert "Median l2 against queries" not in page and "Robust accuracy at 300 queries" in page
    assert "There is no picture to show" in page and "b is not complete" in page and "nan" not in page


def test_wrong_in_one_run_throughout(tmp_path):
    loaded = load_runs([made(tmp_path / "a", [0.5, 0.7, 0.9]), made(tmp_path / "b", [0, 0, 0])])
    found = comparison(loaded)
    assert found["runs"][1]["against"]["at"][0]["distance"]["n"] == 0
    assert "nan" not in text_of(comparison_page(found, loaded))


def test_names_are_text(tmp_path):
    folder = tmp_path / "<b>bold<"
    loaded = load_runs([made(tmp_path / "a", FIRST, names=(EVIL,) * 3), made(folder, SECOND, command=EVIL)])
    page = comparison_page(comparison(loaded), loaded)
    assert EVIL not in page and html.escape(EVIL, quote=False).replace('"', "&#34;") in page
    assert "<b>bold" not in page and "&lt;b&gt;bold&lt;" in page


def test_inputs_that_are_no_pictures(tmp_path):
    loaded = load_runs([made(tmp_path / name, [0.5, 0.6], shape=(4, 5), arrays=False) for name in "ab"])
    assert "Only pictures are shown here" in comparison_page(comparison(loaded), loaded)


def test_programs(tmp_path):
    for name, careless in (("one", False), ("two", True)):
        code_runs.run(tmp_path / name, code_runs.Greedy(careless=careless)).close()
    loaded = load_runs([tmp_path / "one", tmp_path / "two"])
    page = text_of(comparison_page(comparison(loaded), loaded))
    assert "5 programs of toy" in page and "median names" in page and "Only pictures are shown here" in page


class TestPlace:
    def test_an_earlier_page_is_written_over(self, runs, page, tmp_path):
        path = tmp_path / "compare.html"
        write_comparison(path, compare([run.path for run in runs[:2]]), runs[:2])
        write_comparison(path, comparison(runs), runs)
        assert path.read_text(encoding="utf-8") == page and list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("content", ["", "mine", "<title>cgba on x · bbox report</title>"])
    def test_no_other_file_is(self, runs, tmp_path, content):
        path = tmp_path / "compare.html"
        path.write_text(content)
        with pytest.raises(UsageError, match=r"compare.html exists; choose another --out$"):
            write_comparison(path, comparison(runs), runs)
        assert path.read_text() == content

    def test_no_folder(self, runs, tmp_path):
        with pytest.raises(UsageError, match="is a folder; name a file"):
            write_comparison(tmp_path, comparison(runs), runs)
        with pytest.raises(UsageError, match=r"there is no folder .*none$"):
            write_comparison(tmp_path / "none" / "c.html", comparison(runs), runs)


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium")
def test_fits_the_window(runs, page, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    inside = """[document.documentElement.scrollWidth <= innerWidth,
      [...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll *, svg *")
        && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map((e) => e.outerHTML),
      [...document.images].every((e) => e.naturalWidth > 0)]"""
    try:
        for width, dark in ((1280, False), (1280, True), (400, False)):
            browser.look(width, dark=dark)
            browser.open(tmp_path / "page.html")
            assert browser.run(inside) == [True, [], True] and browser.faults() == []
            line = browser.run("getComputedStyle(document.querySelector('.stroke line')).stroke")
            assert line == ("rgb(131, 170, 245)" if dark else "rgb(43, 95, 199)")
    finally:
        browser.close()
