import html
import json
import math
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from bbox.report import render, write_report
from bbox.report.gallery import choose, gallery
from bbox.report.plots import distance_curves
from bbox.results.metrics import summarise
from bbox.results.records import Config, Example
from bbox.results.run import figures
from bbox.results.store import RunFolder, StorageError

BUDGET = 300


def example(index, *, distance=1.5, success=True, reason="budget", **changes):
    trace = () if distance is None else ((7, 4.0 * distance), (60, 2.0 * distance), (240, distance))
    values = {
        "index": index,
        "id": f"image-{index}",
        "label": index % 3,
        "predicted": index % 3,
        "goal_label": index % 3,
        "stop_reason": reason,
        "queries": BUDGET,
        "success": success and distance is not None,
        "adversarial_label": None if distance is None else (index + 1) % 3,
        "distance": distance,
        "png_success": None if distance is None else index % 2 == 0,
        "png_distance": distance,
        "trace": trace,
    }
    return Example(**{**values, **changes})


def wrong(index, **changes):
    return example(index, distance=None, reason="already_wrong", predicted=(index + 1) % 3, queries=0, **changes)


def make_run(path, examples, *, shape=(1, 8, 8), planned=None, arrays=True, names=("a", "b", "c"), **changes):
    run = {
        "schema_version": 1,
        "command": "bbox attack cgba --budget 300",
        "config": Config(budget=BUDGET).to_json(),
        "target": {
            "name": "zoo:tiny",
            "fingerprint": "f" * 64,
            "access": "scores",
            "input_shape": None,
            "num_classes": 3,
        },
        "data": {
            "name": "zoo:tiny-data",
            "fingerprint": "d" * 16,
            "examples": len(examples) if planned is None else planned,
            "shape": list(shape),
            "class_names": None if names is None else list(names),
        },
        "versions": {"bbox": "0.1.0", "torch": "2.99"},
        "hardware": {"machine": "x86_64", "cores": 2, "device": "cpu"},
    }
    for key, value in changes.items():
        run[key] = {**run[key], **value} if isinstance(value, dict) else value
    folder = RunFolder.create(path, run)
    folder.write_examples(dict(enumerate(examples)))
    for e in examples:
        if arrays and e.distance is not None:
            generator = torch.Generator().manual_seed(e.index)
            original = torch.rand(shape, generator=generator) * 0.5 + 0.25
            noise = torch.randn(shape, generator=generator)
            folder.write_array("originals", e.index, original)
            folder.write_array("adversarial", e.index, (original + noise * e.distance / noise.norm()).clamp(0, 1))
    ledger = {"queries": 1234, "calls": 17, "replayed": 5, "invalid": 0}
    folder.write_session(
        {"seconds": 2.5, "attack_seconds": 2.25, "max_batch": 64, "threads": 1, "ledger": {"attack": ledger}}
    )
    return folder


def usual():
    return [*(example(i, distance=0.3 + 0.2 * i) for i in range(10)), wrong(10), example(11, distance=None)]


def text_of(page):
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "run", usual())


@pytest.fixture(scope="module")
def page(folder):
    return render(folder)


class TestContent:
    def test_written_into_the_folder(self, folder):
        path = write_report(folder)
        assert path == folder.path / "report.html"
        assert path.read_text(encoding="utf-8") == render(folder)
        assert not list(folder.path.glob(".*.part"))

    def test_the_table_is_the_metrics(self, folder, page):
        text = text_of(page)
        for row in figures(folder)["summary"]["checkpoints"]:
            cells = [f"{row['queries']:,}", str(row["found"])]
            for name in ("median_distance", "mean_distance"):
                low, high = row[f"{name}_interval"]
                cells += [] if row[name] is None else [f"{row[name]:.3f}"]
                cells += [] if low is None else [f"{low:.3f} to {high:.3f}"]
            cells += [f"{100 * c['value']:.1f}%" for key in ("asr", "robust_accuracy") for c in row[key]]
            assert " ".join(cells) in text

    def test_key_figures(self, folder, page):
        text, summary = text_of(page), figures(folder)["summary"]
        assert "Attacked 11 of 12 1 wrong from the start, left out" in text
        assert f"Clean accuracy {100 * summary['clean_accuracy']:.1f}%" in text
        assert "Adversarial found 10 of 11" in text
        assert f"Median l2 {summary['checkpoints'][-1]['median_distance']:.3f}" in text
        assert f"As 8-bit PNG {summary['png']['succeeded']} of {summary['png']['written']}" in text

    def test_costs_reasons_and_origin(self, page):
        text = text_of(page)
        assert "attack 1,234 17 5 0" in text
        assert "budget 11" in text and "already_wrong 1" in text
        assert "bbox attack cgba --budget 300" in text
        assert "f" * 64 in text and "torch 2.99" in text and "machine x86_64" in text
        assert "image-11 300 budget" in text  # nothing was found for it

    def test_gallery_entry(self, page):
        text = text_of(page)
        assert "image-3 no. 3 original change \N{MULTIPLICATION SIGN} " in text
        assert "a → b l2 0.900 queries 300, stopped by budget 8-bit PNG no longer adversarial" in text
        assert page.count("<img ") == 30
        assert page.count('class="triple pixelated"') == 10

    def test_two_drawings_with_a_name(self, folder, page):
        labels = re.findall(r'<svg[^>]*role="img" aria-label="([^"]+)"', page)
        median = figures(folder)["summary"]["checkpoints"][-1]["median_distance"]
        assert len(labels) == 2
        assert f"{median:.3f} at 300 queries" in labels[0]
        assert "<text" in page and "queries</text>" in page

    def test_only_bands_that_are_drawn_are_explained(self, page, tmp_path):
        # One of 11 attacked examples has no adversarial one: the 95% quantile is infinite throughout.
        assert 'class="key inner"' in page and 'class="key outer"' not in page
        whole = render(make_run(tmp_path / "whole", usual()[:10]))
        assert 'class="key inner"' in whole and 'class="key outer"' in whole

    def test_nothing_comes_from_outside(self, page):
        allowed = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert set(re.findall(r"https?://[^\"'\s<>)]+", page)) <= allowed
        assert "<script" not in page and "@import" not in page and "<link" not in page
        for address in re.findall(r'\b(?:src|href)="([^"]*)"', page):
            assert address.startswith(("data:image/png;base64,", "#"))
        for address in re.findall(r"url\(([^)]*)\)", page):
            assert address.startswith("#")

    def test_ids_are_unique_and_references_lead_somewhere(self, page):
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)

    def test_no_colour_is_fixed_in_the_drawings(self, page):
        for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
            assert not re.findall(r"#[0-9a-f]{6}\b", drawing)

    def test_same_run_same_bytes(self, folder, page, tmp_path):
        assert render(folder) == page
        assert render(make_run(tmp_path / "elsewhere", usual())) == page

    def test_matplotlib_settings_are_left_alone(self, folder):
        import matplotlib

        before = dict(matplotlib.rcParams)
        render(folder)
        assert dict(matplotlib.rcParams) == before


class TestEscaping:
    EVIL = "<script>alert('1')</script>\"&"

    def test_everything_that_a_user_names(self, tmp_path):
        evil = self.EVIL
        examples = [example(0, id=evil), example(1, distance=None, id=evil), wrong(2, id=evil)]
        folder = make_run(
            tmp_path / "run",
            examples,
            names=(evil,) * 3,
            command=f"bbox attack {evil}",
            target={"name": evil, "fingerprint": evil, "access": evil},
            data={"name": evil, "fingerprint": evil},
            versions={evil: evil},
            hardware={"device": evil},
            config={"attack": evil, "attack_options": {evil: evil}},
        )
        page = render(folder)
        assert "<script" not in page
        assert text_of(page).count(evil) >= 12
        assert f"original of {html.escape(evil)}".replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page

    def test_a_name_that_is_not_utf8(self, tmp_path):
        folder = make_run(tmp_path / "run", [example(0, id="caf\udce9.png")])
        assert "caf?.png" in write_report(folder).read_text(encoding="utf-8")

    def test_an_address_as_a_target_is_text_only(self, tmp_path):
        folder = make_run(tmp_path / "run", [example(0)], target={"name": "http://localhost:1/predict"})
        page = render(folder)
        assert "http://localhost:1/predict" in text_of(page)
        assert not re.findall(r'(?:src|href)="http', page)


class TestOddRuns:
    def test_no_example_finished(self, tmp_path):
        text = text_of(render(make_run(tmp_path / "run", [], planned=5)))
        assert "not complete" in text and "0 of 5 examples are finished" in text
        assert "There is nothing to draw" in text

    def test_incomplete(self, tmp_path):
        text = text_of(render(make_run(tmp_path / "run", [example(0), example(1)], planned=9)))
        assert "2 of 9 examples are finished" in text

    def test_none_attacked(self, tmp_path):
        page = render(make_run(tmp_path / "run", [wrong(0), wrong(1)]))
        assert "Attacked 0 of 2 2 wrong from the start" in text_of(page)
        assert "<svg" not in page and "<img" not in page

    def test_nothing_found(self, tmp_path):
        examples = [example(i, distance=None, reason="start_not_found") for i in range(30)]
        text = text_of(render(make_run(tmp_path / "run", examples)))
        assert "There is no picture to show: no adversarial example was found." in text
        assert "Nothing found for 30" in text and "and 10 more." in text
        assert "300 0 \N{EN DASH} \N{EN DASH} 0.0%" in text

    def test_found_for_fewer_than_half(self, tmp_path):
        examples = [example(0), *(example(i, distance=None) for i in range(1, 5))]
        page = render(make_run(tmp_path / "run", examples))
        assert "no finite median to draw" in text_of(page)
        assert page.count("<svg") == 1

    def test_searches_that_were_cut_short(self, tmp_path):
        examples = [example(0), example(1, reason="time_limit"), example(2, reason="interrupted")]
        text = text_of(render(make_run(tmp_path / "run", examples)))
        assert "2 searches were cut short by the time limit or an interruption, before 300 queries" in text
        assert "cut short" not in text_of(render(make_run(tmp_path / "other", examples[:1])))

    def test_one_example(self, tmp_path):
        page = render(make_run(tmp_path / "run", [example(0)]))
        assert page.count("<svg") == 2 and page.count("<img ") == 3

    @pytest.mark.parametrize("distance", [0.0, 1e-7, 3e4])
    def test_strange_distances(self, tmp_path, distance):
        page = render(make_run(tmp_path / "run", [example(0, distance=distance), example(1, distance=distance)]))
        assert page.count("<svg") == 2 and page.count("<img ") == 6

    def test_found_at_the_first_of_one_query(self, tmp_path):
        one = example(0, trace=((1, 1.5),), queries=1)
        assert render(make_run(tmp_path / "run", [one], config={"budget": 1})).count("<svg") == 2

    def test_checkpoint_beyond_the_budget(self, tmp_path):
        folder = make_run(tmp_path / "run", [example(0)], config={"checkpoints": [3, 9000]})
        assert render(folder).count("<svg") == 2

    def test_saved_file_that_does_not_verify(self, tmp_path):
        page = render(make_run(tmp_path / "run", [example(0), example(1, success=False)]))
        assert "does not verify; no success" in text_of(page)
        assert page.count("<img ") == 6
        assert render(make_run(tmp_path / "other", [example(1, success=False)])).count("<img ") == 3

    @pytest.mark.parametrize("shape", [(2, 8, 8), (4, 8, 8), (20,), (3, 4, 17, 3)])
    def test_what_is_no_picture(self, tmp_path, shape):
        page = render(make_run(tmp_path / "run", [example(0, png_success=None)], shape=shape))
        assert "are no grayscale or colour pictures" in text_of(page)
        assert "<img" not in page and page.count("<svg") == 2

    def test_targeted_without_class_names(self, tmp_path):
        folder = make_run(tmp_path / "run", [example(0, goal_label=2)], names=None, config={"target_class": "next"})
        text = text_of(render(folder))
        assert "0 → 1 goal: 2" in text and "Goal the next class targeted" in text
        assert "The target answers the goal class" in text

    def test_files_that_are_gone_or_broken(self, tmp_path):
        folder = make_run(tmp_path / "run", [example(0), example(1)])
        folder.array_path("originals", 0).unlink()
        folder.array_path("adversarial", 1).write_bytes(b"no array")
        assert "their pictures cannot be read" in text_of(render(folder))

    def test_a_killed_session(self, tmp_path):
        folder = make_run(tmp_path / "run", [example(0)])
        folder.write_session({"seconds": 0.0})
        text = text_of(render(folder))
        assert "2 (killed)" in text and "writes its ledger every 5 seconds" in text

    def test_huge_run_stays_small(self, tmp_path):
        generator = np.random.default_rng(0)
        examples = [
            example(i, distance=float(d), trace=tuple((j * 3 + i % 3 + 1, d * 100 / (j + 1)) for j in range(99)))
            for i, d in enumerate(generator.uniform(0.5, 9, 1500))
        ]
        folder = make_run(tmp_path / "run", examples, shape=(3, 224, 224), arrays=False)
        for e in choose(examples):
            noise = torch.rand((3, 224, 224), generator=torch.Generator().manual_seed(e.index))
            folder.write_array("originals", e.index, noise)
            folder.write_array("adversarial", e.index, noise.flip(0))
        path = write_report(folder)
        assert path.stat().st_size < 3_000_000
        assert "<img " in path.read_text(encoding="utf-8")

    def test_folder_that_cannot_be_written(self, tmp_path):
        folder = make_run(tmp_path / "run", [example(0)])
        (folder.path / ".report.html.part").mkdir()
        with pytest.raises(StorageError, match="cannot write"):
            write_report(folder)


class TestCurves:
    def test_median_is_the_one_of_the_metrics(self):
        examples = usual()
        curves = distance_curves(examples, BUDGET)
        rows = summarise(examples, checkpoints=curves.queries.tolist(), epsilons=(1.0,))["checkpoints"]
        expected = [math.inf if row["median_distance"] is None else row["median_distance"] for row in rows]
        assert curves.median.tolist() == expected
        assert curves.queries.tolist() == [7, 60, 240, BUDGET]

    def test_bands_are_ordered_and_infinite_where_nothing_is_found(self):
        (low, high), (inner_low, inner_high) = distance_curves(usual(), BUDGET).bands
        assert (low <= inner_low).all() and (inner_low <= inner_high).all() and (inner_high <= high).all()
        assert np.isinf(high).all()  # 1 of 11 attacked examples has no adversarial one

    def test_nothing_verified_gives_no_curve(self):
        assert distance_curves([example(0, success=False), wrong(1)], BUDGET) is None
        assert distance_curves([], BUDGET) is None

    def test_many_query_counts_are_thinned(self):
        long = example(0, trace=tuple((n, 10.0 / n) for n in range(1, 5001)))
        curves = distance_curves([long], 6000)
        assert len(curves.queries) <= 401
        assert curves.queries[-1] == 6000 and curves.median[-1] == 10.0 / 5000

    def test_checkpoints_are_exact_where_the_grid_is_thinned(self):
        long = example(0, trace=tuple((n, 10.0 / n) for n in range(1, 5001)))
        curves = distance_curves([long], 6000, (4321, 9999))
        assert curves.median[curves.queries.tolist().index(4321)] == 10.0 / 4321
        assert curves.queries[-1] == 6000


class TestGallery:
    def test_spread_over_the_distances_and_some_that_failed(self):
        good = [example(i, distance=1.0 + i) for i in range(100)]
        bad = [example(100 + i, distance=5.0, success=False) for i in range(9)]
        chosen = choose(good + bad)
        assert len(chosen) == 24
        assert [e.success for e in chosen] == [True] * 20 + [False] * 4
        assert (chosen[0].distance, chosen[19].distance) == (1.0, 100.0)
        assert len({e.index for e in chosen}) == 24

    def test_the_change_is_scaled_as_stated(self, tmp_path):
        import base64
        import io

        from PIL import Image

        folder = make_run(tmp_path / "run", [example(0)], arrays=False)
        original = torch.full((1, 8, 8), 0.5)
        changed = original.clone()
        changed[0, 2, 3] += 0.125
        changed[0, 5, 6] -= 0.0625
        folder.write_array("originals", 0, original)
        folder.write_array("adversarial", 0, changed)
        (entry,) = gallery(folder, [example(0)])
        assert entry.factor == 4.0
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(entry.perturbation.split(",")[1]))))
        assert pixels[2, 3] == 255 and pixels[5, 6] == 64
        assert (np.delete(pixels.ravel(), [19, 46]) == 128).all()


PROBE = """<script>
addEventListener("load", () => {
  const broken = [...document.images].filter((i) => !i.complete || !(i.naturalWidth > 0)).length;
  const empty = [...document.querySelectorAll("svg")].filter((s) => {
    const box = s.getBBox(), shown = s.getBoundingClientRect();
    return !(box.width > 50 && box.height > 50 && shown.width > 200 && shown.height > 100);
  }).length;
  const words = [...document.querySelectorAll("svg text")].map((t) => t.getBoundingClientRect());
  const frames = [...document.querySelectorAll("svg")].map((s) => s.getBoundingClientRect());
  const cut = words.filter((w) => !frames.some((f) => w.left >= f.left - 1 && w.right <= f.right + 1
    && w.top >= f.top - 1 && w.bottom <= f.bottom + 1)).length;
  const root = document.documentElement;
  const outside = [...document.querySelectorAll("main *")].filter((e) =>
    !e.closest(".scroll table, svg") && e.getBoundingClientRect().right > root.clientWidth + 0.5).length;
  parent.postMessage({name: window.name, width: root.clientWidth, page: root.scrollWidth, broken, empty, cut, outside,
    images: document.images.length, drawings: frames.length,
    column: document.querySelector("main").getBoundingClientRect().width,
    scrolls: [...document.querySelectorAll(".scroll")].some((s) => s.scrollWidth > s.clientWidth)}, "*");
});
</script>"""

COLLECT = """<!DOCTYPE html><body><script>
const seen = {};
addEventListener("message", (event) => {
  seen[event.data.name] = event.data;
  document.body.setAttribute("data-findings", JSON.stringify(seen));
});
</script>
<iframe name="wide" src="copy.html" style="width:1280px;height:900px;border:0"></iframe>
<iframe name="narrow" src="copy.html" style="width:390px;height:900px;border:0"></iframe>"""


def chromium():
    return os.environ.get("CHROME") or shutil.which("chromium")


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium")
class TestBrowser:
    def look(self, tmp_path, page):
        """Open a copy of the page, with a probe in it, in a wide and a narrow frame."""
        copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', PROBE, page)
        assert copy != page
        (tmp_path / "copy.html").write_text(copy, encoding="utf-8")
        (tmp_path / "frames.html").write_text(COLLECT, encoding="utf-8")
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-component-update"
        flags += " --disable-background-networking --disable-sync --hide-scrollbars --virtual-time-budget=10000"
        done = subprocess.run(
            [
                chromium(),
                *flags.split(),
                f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=1400,1000",
                "--dump-dom",
                (tmp_path / "frames.html").as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        found = re.search(r'data-findings="([^"]*)"', done.stdout)
        assert found, done.stderr[-2000:]
        return json.loads(html.unescape(found.group(1)))

    @pytest.mark.parametrize("kind", ["usual", "color", "long names", "nothing found"])
    def test_is_drawn_whole_in_a_wide_and_a_narrow_window(self, tmp_path, kind):
        long = "a-very-long-name-without-any-space_" * 8
        if kind == "usual":
            folder, images, drawings = make_run(tmp_path / "run", usual()), 30, 2
        elif kind == "color":
            folder, images, drawings = make_run(tmp_path / "run", usual(), shape=(3, 120, 150)), 30, 2
        elif kind == "long names":
            examples = [example(0, id=long), example(1, id=long), example(2, id=long, distance=None)]
            folder = make_run(
                tmp_path / "run",
                examples,
                names=(long,) * 3,
                command=long,
                target={"name": long},
                data={"name": long},
                config={"attack": long, "epsilons": [0.5, 1, 1.5, 2, 2.5, 3, 4, 5], "max_queries": 10**12},
            )
            images, drawings = 6, 2
        else:
            folder, images, drawings = make_run(tmp_path / "run", [example(0, distance=None)]), 0, 0
        seen = self.look(tmp_path, render(folder))
        assert set(seen) == {"wide", "narrow"}
        assert (seen["wide"]["width"], seen["narrow"]["width"]) == (1280, 390)
        assert seen["wide"]["column"] <= 1100
        for window in seen.values():
            assert window["page"] <= window["width"]
            assert (window["images"], window["drawings"]) == (images, drawings)
            assert (window["broken"], window["empty"], window["cut"], window["outside"]) == (0, 0, 0, 0), window
        if kind != "nothing found":
            assert seen["narrow"]["scrolls"]  # the table of checkpoints, inside its own container
