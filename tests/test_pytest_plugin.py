"""The pytest plugin, in suites of its own: what passes, what fails, and what a failure says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

# Imported here, since an inner run forgets what it was the first to import, and torchvision cannot be loaded twice.
import bbox.results.check
import bbox.results.floor
import bbox.results.session  # noqa: F401
from tests.results import weaker

SUITE = """
import pytest
import bbox
from plugin_models import model

digits = bbox.data.load("zoo:digits").select(limit=24)

@pytest.mark.bbox(attack="cgba", budget=60, epsilon=1.5)
def test_robust(bbox_check):
    bbox_check(model({factor}), digits.inputs, digits.labels, {what})
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in ("CI", "BUILD_NUMBER"):  # with these pytest prints a failure's text a second time, in its summary
        monkeypatch.delenv(name, raising=False)
    shutil.copy(weaker.__file__, pytester.path / "plugin_models.py")
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error")
    return pytester


def _text(result: pytest.RunResult) -> str:
    return "\n".join(result.outlines)


def test_a_floor_that_holds_and_one_that_does_not(suite: pytest.Pytester) -> None:
    suite.makepyfile(SUITE.format(factor=1.0, what="robust_accuracy=0.5"))
    suite.runpytest_inprocess().assert_outcomes(passed=1)
    suite.makepyfile(SUITE.format(factor=2.0, what="robust_accuracy=0.8"))
    failed = suite.runpytest_inprocess("--bbox-out=kept")
    failed.assert_outcomes(failed=1)
    text = _text(failed)
    assert "floor 80.0%; upper bound" in text and "Clopper-Pearson" in text and "Traceback" not in text
    files = re.findall(r"example (\d+) \(\d+\): broken at [\d.]+  (\S+\.png)", text)
    assert len(files) == 10 and "  and " in text
    for index, file in files:
        assert (suite.path / file).is_file() and Path(file).name == f"{int(index):06d}.png"
        assert file.startswith("kept/test_a_floor_that_holds_and_one_that_does_not")


def test_a_baseline_is_written_when_asked_and_then_holds_or_not(suite: pytest.Pytester) -> None:
    what = 'baseline="robustness.json"'
    suite.makepyfile(SUITE.format(factor=1.0, what=what))
    missing = suite.runpytest_inprocess()
    missing.assert_outcomes(failed=1)
    assert "robustness.json: no such file; write it with  pytest --bbox-update" in _text(missing)
    suite.runpytest_inprocess("--bbox-update").assert_outcomes(passed=1)
    content = json.loads((suite.path / "robustness.json").read_text())
    assert len(content["attacks"][0]["examples"]) == 24
    suite.runpytest_inprocess().assert_outcomes(passed=1)

    suite.makepyfile(SUITE.format(factor=1.4, what=what))
    failed = suite.runpytest_inprocess("--junitxml=out.xml")
    failed.assert_outcomes(failed=1)
    text = _text(failed)
    assert "cgba: median l2 at 60 queries: " in text and "examples are worse, p " in text
    (first, *_) = re.findall(r"example \d+ \(\d+\): distance [\d.]+ -> [\d.]+  (\S+\.png)", text)
    assert Path(first).is_file(), "in the test's tmp_path"
    assert 'name="bbox" value="' in (suite.path / "out.xml").read_text()
    tolerant = SUITE.format(factor=1.4, what=what + ", tolerance=0.9, distance_tolerance=0.6")
    suite.makepyfile(tolerant)
    suite.runpytest_inprocess().assert_outcomes(passed=1)

    suite.makepyfile(SUITE.format(factor=1.0, what=what + ", budget=90"))
    other = suite.runpytest_inprocess()
    other.assert_outcomes(failed=1)
    assert "has budget 60, the test 90; write it anew with  pytest --bbox-update" in _text(other)


def test_specs_several_attacks_and_the_closest_marker(suite: pytest.Pytester) -> None:
    suite.makepyfile("""
    import pytest

    pytestmark = pytest.mark.bbox(attack="nothing", budget=40, epsilon=1.5, limit=6)

    @pytest.mark.bbox(attack=("cgba", "square:p-init=0.3"))
    def test_robust(bbox_check):
        found = bbox_check("zoo:digits", data="zoo:digits", robust_accuracy=0.5)
        assert found["n"] == 6 and found["attacks"] == ["cgba", "square:p-init=0.3"] and found["holds"]
        again = bbox_check("zoo:digits", data="zoo:digits", robust_accuracy=0.5, budget=20)
        assert again["budget"] == 20 and again["robust_accuracy"] >= found["robust_accuracy"]
    """)
    suite.runpytest_inprocess().assert_outcomes(passed=1)


def test_names_and_orders_of_other_peoples_tests(suite: pytest.Pytester) -> None:
    suite.makepyfile("""
    import unittest
    import pytest

    pytestmark = pytest.mark.bbox(budget=20, limit=6, epsilon=1.0)

    @pytest.mark.parametrize("case", [pytest.param(1, id="\u00fc" * 300)])
    def test_of_a_long_name(bbox_check, case):
        bbox_check("zoo:digits", data="zoo:digits", robust_accuracy=0.5)

    def test_checkpoints_in_any_order(bbox_check):
        bbox_check("zoo:digits", data="zoo:digits", baseline="b.json", checkpoints=(20, 10))

    class TestUnit(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def _check(self, bbox_check):
            self.check = bbox_check

        def test_it(self):
            self.check("zoo:digits", data="zoo:digits", robust_accuracy=0.5)

    @pytest.mark.bbox("square")
    def test_positional(bbox_check):
        bbox_check("zoo:digits", data="zoo:digits", robust_accuracy=0.5)
    """)
    for words in (("--bbox-update",), ()):
        result = suite.runpytest_inprocess("--bbox-out=kept", *words)
        result.assert_outcomes(passed=3, failed=1)
        assert "bbox: the marker bbox takes names, got 'square'; write bbox(attack=...)" in _text(result)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("'zoo:digits', data='zoo:digits'", "needs either robust_accuracy=FLOOR or baseline=FILE"),
        ("'zoo:digits', robust_accuracy=0.5", "needs images and labels, or data=SPEC"),
        ("'zoo:digits', data='zoo:digits', robust_accuracy=2, epsilon=1.0, limit=2", "robust accuracy is 2"),
        ("'zoo:digits', data='zoo:digits', robust_accuracy=0.5, limit=2", "needs one"),
        ("'zoo:digits', data='zoo:digits', robust_acuracy=0.5", "did you mean 'robust_accuracy'"),
        ("'zoo:digits', data='zoo:digits', robust_accuracy=0.5, budget=0", "budget is 0"),
        ("'zoo:digits', data='zoo:digits', robust_accuracy=0.5, epsilon=1.0, attack='cgbo', limit=9", "cgba"),
        ("'zoo:digits', [[[[0.5]]]], robust_accuracy=0.5", "has no labels"),
        ("'zoo:digits', data='zoo:digits', robust_accuracy=0.5, epsilon=1.0, limit=4", "give at least 5"),
        ("lambda rows: 1 / 0, data='zoo:digits', robust_accuracy=0.9, epsilon=1.0, limit=2", "division by zero"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(call: str, told: str, suite: pytest.Pytester) -> None:
    suite.makepyfile(f"def test_it(bbox_check):\n    bbox_check({call})")
    result = suite.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    assert told in _text(result)
    said = [line for line in result.outlines if line.startswith("bbox: ")]
    assert len(said) == 1 and "Traceback" not in _text(result)


def test_a_mistake_is_one_exception_in_every_style_of_traceback(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_it(bbox_check):\n    bbox_check('zoo:digits', data='zoo:digits')")
    for style in ("line", "long", "native"):
        text = _text(suite.runpytest_inprocess(f"--tb={style}"))
        assert "bbox: bbox_check needs either" in text and "During handling" not in text


def test_it_comes_with_the_package_and_costs_other_suites_no_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
    import sys

    def test_it(request):
        assert request.config.pluginmanager.has_plugin("bbox")
        assert "bbox.pytest_plugin" in sys.modules
        assert not {"torch", "numpy", "scipy", "transformers", "bbox.errors"} & sys.modules.keys()
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    told = pytester.runpytest_subprocess("--help")
    told.stdout.fnmatch_lines(["*--bbox-out=DIR*", "*--bbox-update*"])
    pytester.runpytest_subprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.bbox(attack, data, baseline*"])
