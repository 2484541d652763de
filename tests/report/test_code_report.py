import re
import shutil

import pytest

from bbox.code import Program
from bbox.code.equivalence import compare
from bbox.report import render, write_report
from bbox.report.diff import TINTS, shown, side_by_side
from bbox.results.records import Example
from bbox.results.run import figures
from bbox.results.saved import SavedPrograms
from bbox.results.session import describe_run
from bbox.results.store import RunFolder
from tests.report.test_report import TestBrowser as _Browser
from tests.report.test_report import chromium, text_of
from tests.results.code_runs import LONG, Greedy, plan, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run(tmp_path_factory.mktemp("report") / "run", Greedy(careless=True))


@pytest.fixture(scope="module")
def page(folder):
    return render(folder)


def finished(path, pairs, **changes):
    """A run of pairs (original, adversarial) as records say that an attack left it."""
    made = plan()
    described = describe_run(made, "")
    described["data"]["examples"] = len(pairs)
    folder = RunFolder.create(path, described)
    for index, (original, adversarial) in enumerate(pairs):
        SavedPrograms(folder).write(index, original, adversarial)
        values = {
            "label": 1,
            "predicted": 1,
            "goal_label": 1,
            "stop_reason": "converged",
            "queries": 5,
            "success": True,
        }
        values |= {"adversarial_label": 0, "distance": 1.0, "trace": ((3, 1.0),), "first_adversarial": 3}
        folder.write_examples({index: Example(index=index, id=f"p{index}", **{**values, **changes})})
    return folder


class TestContent:
    def test_key_figures(self, page):
        text = text_of(page)
        assert "Attacked 4 of 5 1 wrong from the start, left out" in text
        assert "Valid ASR 75.0% 3 of 4 attacked: fooled, and means the same" in text
        assert "Raw ASR 75.0% 3 of 4 attacked: fooled, whatever it means" in text
        assert "Queries to success 4 median; mean 4.3" in text

    def test_checkpoints_and_measures(self, folder, page):
        text = text_of(page)
        for row in figures(folder)["code"]["checkpoints"]:
            assert (
                f"{row['queries']} {100 * row['valid_asr']:.1f}% {100 * row['raw_asr']:.1f}% {row['found']} 2" in text
            )
        assert (
            "valid ASR, where there are names 100.0% valid successes over the attacked programs without the 1" in text
        )
        assert "bytecode 2 of 3" in text and "positions 3 of 3" in text
        assert "names in at least 3 of the data's 5 programs" in text

    def test_a_card(self, page):
        text = text_of(page)
        assert "program-0 no. 0 numbers → text queries 4 to success, 8 in all, stopped by converged" in text
        assert "score of numbers: 0.999 → 0.269 validity equivalent, checked by positions, bytecode" in text
        assert "renamed width → name \N{MULTIPLICATION SIGN} 2 height → text \N{MULTIPLICATION SIGN} 2" in text

    def test_every_occurrence_is_marked_on_both_sides(self, page):
        diff = page[page.index('<div class="diff">') :]
        diff = diff[: diff.index("</details>")]
        for name in ("width", "name"):
            assert diff.count(f'<mark class="t0" title="width → name">{name}</mark>') == 2
        for name in ("height", "text"):
            assert diff.count(f'<mark class="t1" title="height → text">{name}</mark>') == 2

    def test_far_lines_are_folded(self, page):
        assert '<details class="fold"><summary>34 unchanged lines</summary>' in page

    def test_what_was_not_broken(self, page):
        text = text_of(page)
        assert "Not broken: 1" in text and "program-4 0 no_identifiers" in text
        assert "no_identifiers 1 the program has no identifier that may be renamed" in text

    def test_raw_success_alone_is_said(self, tmp_path):
        original = Program("def f(a):\n    return a\n", "python")
        folder = finished(tmp_path / "run", [(original, original)], success=False, distance=None, trace=())
        text = text_of(render(folder))
        assert "p0 5 converged fooled the target at query 3, by a program that is not equivalent" in text
        assert "Raw ASR 100.0%" in text and "Valid ASR 0.0%" in text

    def test_drawings_have_a_name(self, page):
        labels = re.findall(r'<svg[^>]*role="img" aria-label="([^"]+)"', page)
        assert labels == [
            "Valid ASR: 75.0% at 50 queries, 75.0% at 60 queries.",
            "Identifiers renamed in 3 successes: median 2.",
        ]

    def test_nothing_of_pixels(self, page):
        text = text_of(page)
        assert not any(word in text for word in ("epsilon", "ε", "8-bit", "Robust accuracy", "saved float"))

    def test_offline_without_scripts_and_the_same_bytes(self, folder, page):
        assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in page
        assert "<script" not in page and "<link" not in page and "@import" not in page
        assert set(re.findall(r"https?://[^\"'\s<>)]+", page)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        assert all(address.startswith("#") for address in re.findall(r'\b(?:src|href)="([^"]*)"', page))
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert render(folder) == page == write_report(folder).read_text(encoding="utf-8")


class TestEscaping:
    EVIL = "<script>alert('1')</script>\"&"

    def test_programs_names_and_classes(self, tmp_path):
        code = f"def f(a):\n    # {self.EVIL}\n    return '</span></details>' + a\n"
        pair = Program(code, "python"), Program(code.replace("(a)", "(b)").replace("+ a", "+ b"), "python")
        folder = finished(tmp_path / "run", [pair])
        run = folder.run()
        folder.write_json("run.json", {**run, "data": {**run["data"], "class_names": [self.EVIL] * 2}})
        page = render(folder)
        assert "<script" not in page and "</span></details>'" not in page
        shown_lines = text_of(page)
        assert shown_lines.count(f"# {self.EVIL}") == 2 and f"{self.EVIL} → {self.EVIL}" in shown_lines

    def test_names_of_other_scripts_and_surrogates(self, tmp_path):
        code = "def f(größe):\n    return größe + '\udce9'\n"
        pair = Program(code, "python"), Program(code.replace("größe", "wert"), "python")
        page = render(finished(tmp_path / "run", [pair]))
        assert 'title="größe → wert">größe</mark>' in page


class TestDiff:
    def rows(self, original, adversarial, language="python"):
        pair = Program(original, language), Program(adversarial, language)
        return side_by_side(*pair, equivalent=compare(*pair).equivalent)

    def test_lines_and_numbers(self):
        (part,) = self.rows("def f(a):\n    return a\n\n\n", "def f(b):\n    return b\n\n\n")
        assert [(row.left.number, row.right.number, row.changed) for row in part.rows] == [
            (1, 1, True),
            (2, 2, True),
            (3, 3, False),
            (4, 4, False),
        ]
        assert part.rows[1].left.html == '    return <mark class="t0" title="a → b">a</mark>'

    def test_two_variables_of_one_name_have_two_tints(self):
        before = "def f(a):\n    return a\ndef g(a):\n    return a\n"
        (part,) = self.rows(before, "def f(b):\n    return b\ndef g(c):\n    return c\n")
        text = "".join(row.left.html for row in part.rows)
        assert text.count('class="t0" title="a → b"') == 2 and text.count('class="t1" title="a → c"') == 2

    def test_tints_start_over(self):
        names = [f"v{i}" for i in range(TINTS + 1)]
        code = f"def f({', '.join(names)}):\n    pass\n"
        (part,) = self.rows(code, code.replace("v", "w"))
        assert f'class="t0" title="v{TINTS} → w{TINTS}"' in part.rows[0].right.html

    def test_every_line_is_there_once(self):
        parts = self.rows(LONG, LONG.replace("count", "amount"), "c")
        lines = LONG.removesuffix("\n").split("\n")
        assert [row.left.number for part in parts for row in part.rows] == list(range(1, len(lines) + 1))
        assert [part.folded for part in parts] == [True, False]

    def test_what_is_not_equivalent_is_aligned_without_tints(self):
        (part,) = self.rows("def f(a):\n    return a\n", "def f(a):\n    x = 1\n    return a\n")
        assert [(row.left and row.left.number, row.right and row.right.number) for row in part.rows] == [
            (1, 1),
            (None, 2),
            (2, 3),
        ]
        assert not any("<mark" in row.right.html for row in part.rows)

    def test_line_ends_and_control_characters(self):
        (part,) = self.rows("def f(a):\r\n    return '\x0c\r' + a\r\n", "def f(b):\r\n    return '\x0c\r' + b\r\n")
        assert len(part.rows) == 2 and part.rows[1].left.html.startswith("    return &#39;␌␍&#39; + ")
        assert shown("a\tb\n\x00\x7f") == "a\tb\n␀␡"


class TestOddRuns:
    def test_nothing_finished(self, tmp_path):
        made = plan()
        with RunFolder.create(tmp_path / "run", describe_run(made, "")) as folder:
            text = text_of(render(folder))
        assert "0 of 5 examples are finished" in text and "There is nothing to draw" in text
        assert "There is no program to show" in text

    def test_files_that_are_gone(self, folder, tmp_path):
        copy = tmp_path / "run"
        shutil.copytree(folder.path, copy)
        for path in (copy / "adversarial").iterdir():
            path.unlink()
        with RunFolder.open(copy) as broken:
            text = text_of(render(broken))
        assert "3 adversarial programs are on record, but they cannot be read" in text
        assert "3 saved adversarial programs are missing" in text and "Valid ASR 0.0%" in text

    def test_a_file_that_was_changed(self, folder, tmp_path):
        copy = tmp_path / "run"
        shutil.copytree(folder.path, copy)
        path = copy / "adversarial" / "000000.py"
        path.write_text(path.read_text() + "print(1)\n")
        with RunFolder.open(copy) as broken:
            text = text_of(render(broken))
        assert "not equivalent: " in text and "1 saved adversarial program is missing" in text

    def test_pairs(self, tmp_path):
        pair = [Program(f"def f({name}):\n    return {name}\n", "python", "<other>\n") for name in "ab"]
        page = render(finished(tmp_path / "run", [pair]))
        assert "second program of the pair, unchanged" in page and "<code>&lt;other&gt;\n</code>" in page
        assert "1 pair of programs" in text_of(page)

    def test_long_programs_stay_small(self, tmp_path):
        body = "".join(f"    call({i}, '{'<' * 60}')\n" for i in range(400))
        pair = [Program(f"def f({name}):\n{body}    return {name}\n", "python") for name in "ab"]
        page = render(finished(tmp_path / "run", [pair]))
        assert "Too long to show here" in text_of(page) and len(page) < 100_000


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium")
class TestCodeInABrowser:
    @pytest.mark.parametrize("kind", ["usual", "long words"])
    def test_is_drawn_whole_in_a_wide_and_a_narrow_window(self, tmp_path, folder, kind):
        page = render(folder)
        if kind == "long words":
            word = "a_very_long_name_without_a_space_" * 9
            code = f"def f(a, {word}):\n    return a + {word}, '{'x' * 500}'\n"
            pair = Program(code, "python"), Program(code.replace(word, word + "2"), "python")
            page = render(finished(tmp_path / "run", [pair]))
        seen = _Browser().look(tmp_path, page)
        for window in seen.values():
            assert window["page"] <= window["width"] and window["drawings"] == 2
            assert (window["broken"], window["empty"], window["cut"], window["outside"]) == (0, 0, 0, 0), window
        assert seen["wide"]["column"] <= 1320
