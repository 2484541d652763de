"""The proof of a check: a fall of known size is seen, and an unchanged model is let pass as often as promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bbox import data as data_module
from bbox import targets
from bbox.errors import BboxError, TargetError, UsageError
from bbox.results.baseline import Baseline, Entry, Gates, Outcome, read_baseline, write_baseline
from bbox.results.baseline_runs import make_baseline
from bbox.results.check import CheckFolder, run_check
from bbox.results.check_text import cells, junit, label, markdown
from bbox.results.paired import compare_rates
from bbox.results.records import Config
from bbox.results.store import RunFolder
from bbox.results.verdicts import compare
from tests.results.test_baseline import Failing
from tests.results.weaker import Weaker

CONFIG = Config(limit=64, budget=80, epsilons=(1.5,))
ALPHA = 0.05


def _weaker(factor: float) -> Any:
    return targets.wrap(Weaker(factor).eval(), num_classes=10, input_shape=(1, 28, 28))


@pytest.fixture(scope="module")
def digits() -> Any:
    return data_module.load("zoo:digits")


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory, digits: Any) -> Path:
    path = tmp_path_factory.mktemp("baseline")
    write_baseline(path / "b.json", make_baseline(("cgba",), CONFIG, path / "runs", target=_weaker(1.0), data=digits))
    return path / "b.json"


def test_an_unchanged_model_holds_to_the_last_digit(baseline: Path, tmp_path: Path, digits: Any) -> None:
    found = run_check(baseline, tmp_path / "c", target=_weaker(1.0), data=digits)
    assert found["holds"] and found["same_target"]
    for figure in found["figures"]:
        assert (figure["before"], figure["p"], figure["lost"], figure["gained"]) == (figure["now"], 1.0, 0, 0)
    assert found == json.loads((tmp_path / "c" / "check.json").read_text())


def test_a_model_that_is_less_robust_by_a_known_amount_is_caught(baseline: Path, tmp_path: Path, digits: Any) -> None:
    """Distances fall by 20%, on 64 examples. On all 500 that is 72.8% to 49.0% robust at l2 1.5, 100 queries."""
    found = run_check(baseline, tmp_path / "c", target=_weaker(1.25), data=digits)
    clean, robust, distance = found["figures"]
    assert not found["holds"] and not found["same_target"]
    assert (clean["fell"], robust["fell"], distance["fell"]) == (False, True, True)
    assert distance["effect"] == pytest.approx(0.8, abs=0.02), "the amount that is known"
    assert distance["interval"][0] <= 0.8 <= distance["interval"][1]
    assert robust["effect"] == robust["now"] - robust["before"] < -0.1
    assert len(robust["fallen"]) == robust["lost"] and distance["p_adjusted"] < 1e-9
    with RunFolder.open(tmp_path / "c" / "cgba") as folder:
        examples = {e.index: e for e in folder.examples().values()}
    for fallen in robust["fallen"]:
        assert fallen["now"] == examples[fallen["index"]].distance_at(80) <= 1.5 + 1e-6
        assert fallen["before"] is None or fallen["before"] > 1.5
        assert Path(fallen["file"]) == tmp_path / "c" / "cgba" / "adversarial" / f"{fallen['index']:06d}.png"
        assert Path(fallen["file"]).is_file()
    assert robust["examples_needed"] is None and clean["fallen"] == []
    for text in (markdown(found), junit(found)):
        assert f"example {robust['fallen'][0]['index']} " in text and "FELL" in text


def test_a_fall_within_the_tolerance_is_none(baseline: Path, tmp_path: Path, digits: Any) -> None:
    tolerant = {"tolerance": 0.3, "distance_tolerance": 0.22}
    found = run_check(baseline, tmp_path / "c", target=_weaker(1.25), data=digits, gates=tolerant)
    assert found["holds"] and found["figures"][2]["effect"] < 0.81
    strict = {"tolerance": 0.3, "distance_tolerance": 0.18}
    again = run_check(None, tmp_path / "c", target=_weaker(1.25), data=digits, resume=True)
    assert again == found, "a finished check is judged again without a query"
    with pytest.raises(UsageError, match="exists; choose another"):
        run_check(baseline, tmp_path / "c", target=_weaker(1.25), data=digits, gates=strict)
    found = run_check(baseline, tmp_path / "d", target=_weaker(1.25), data=digits, gates=strict)
    assert [figure["fell"] for figure in found["figures"]] == [False, False, True]


def test_a_better_model_holds_and_can_become_the_baseline(baseline: Path, tmp_path: Path, digits: Any) -> None:
    copy = tmp_path / "b.json"
    copy.write_bytes(baseline.read_bytes())
    found = run_check(copy, tmp_path / "c", target=_weaker(0.8), data=digits)
    assert found["holds"] and found["figures"][2]["effect"] == pytest.approx(1.25, abs=0.03)
    assert copy.read_bytes() == baseline.read_bytes(), "only when asked"
    run_check(None, tmp_path / "c", target=_weaker(0.8), data=digits, resume=True, update=True)
    renewed = read_baseline(copy)
    assert renewed.facts["target"]["fingerprint"] == _weaker(0.8).fingerprint()
    assert not run_check(copy, tmp_path / "d", target=_weaker(1.0), data=digits)["holds"]


@pytest.mark.slow
def test_fifty_unchanged_models_raise_no_more_alarms_than_promised(tmp_path: Path, digits: Any) -> None:
    """Each repeat has a baseline and a check of its own, with different seeds."""
    config, target = replace(CONFIG, limit=24, budget=40, max_batch=64, epsilons=(1.5, 2.0)), targets.load("zoo:digits")

    def run(seed: int) -> Baseline:
        return make_baseline(("cgba",), replace(config, seed=seed), tmp_path / str(seed), target=target, data=digits)

    alarms = differ = 0
    for repeat in range(50):
        figures = compare(run(2 * repeat), run(2 * repeat + 1), Gates(alpha=ALPHA))
        alarms += any(figure.fell for figure in figures)
        differ += any(figure.seen.lost + figure.seen.gained for figure in figures)
    assert differ == 50, "seeds matter, so that there was something to tell apart"
    assert alarms <= stats.binom.ppf(0.99, 50, ALPHA)


def test_alarms_over_all_figures_stay_below_alpha() -> None:
    """The same by simulation, of many more repeats: noisy outcomes around one truth, ten figures."""
    draw, n, alarms, repeats = np.random.default_rng(0), 40, 0, 200
    true = draw.uniform(1, 3, n)
    config = replace(CONFIG, budget=80, checkpoints=(20, 40, 80), epsilons=(1.5, 2.0))

    def outcomes() -> Baseline:
        # Improves from one checkpoint to the next, as traces do.
        reached = np.minimum.accumulate(true[:, None] * np.exp(0.3 * draw.normal(size=(n, 3))), axis=1)
        right = draw.uniform(size=n) < 0.9
        rows = [Outcome(i, str(i), bool(right[i]), tuple(reached[i].tolist()), True, 80) for i in range(n)]
        return Baseline((Entry(_part(config), tuple(rows)),), Gates())

    for _ in range(repeats):
        alarms += any(figure.fell for figure in compare(outcomes(), outcomes(), Gates(alpha=ALPHA)))
    assert alarms <= stats.binom.ppf(0.99, repeats, ALPHA)


def _part(config: Config) -> Any:
    from bbox.results.suite import Part

    return Part("cgba", "cgba", config)


def test_only_examples_that_both_get_right_have_a_distance_to_compare() -> None:
    def of(*rows: tuple[bool, float]) -> Baseline:
        outcomes = tuple(Outcome(i, str(i), right, (d,), True, 80) for i, (right, d) in enumerate(rows))
        return Baseline((Entry(_part(replace(CONFIG, checkpoints=(80,))), outcomes),), Gates())

    inf = float("inf")
    before = of((True, 2.0), (True, 2.0), (False, inf), (True, inf), (True, 1.0))
    now = of((True, 1.0), (False, inf), (True, 3.0), (True, inf), (True, 1.5))
    clean, robust, distance = compare(before, now, Gates())
    assert (clean.seen.n, clean.seen.lost, clean.seen.gained) == (5, 1, 1)
    assert (robust.seen.lost, robust.seen.gained, robust.seen.before, robust.seen.now) == (2, 1, 0.6, 0.4)
    assert (distance.seen.n, distance.seen.lost, distance.seen.gained) == (3, 1, 1)
    assert distance.seen.before == 2.0 and distance.seen.now == 1.5
    assert robust.seen == compare_rates(np.array([1, 1, 0, 1, 0]) > 0, np.array([0, 0, 1, 1, 0]) > 0)
    with pytest.raises(UsageError, match="other examples"):
        compare(before, of((True, 1.0)), Gates())
    assert label(robust.to_json()) == "cgba: robust accuracy at 80 queries, epsilon 1.5"
    assert cells(distance.to_json())[:4] == ["cgba: median l2 at 80 queries", "2.000", "1.500", "x1.000 [-, -]"]


def test_an_attack_within_one_distance_has_no_median(tmp_path: Path, digits: Any) -> None:
    config = replace(CONFIG, limit=4, budget=30, epsilons=(1.5, 2.0), max_batch=32)
    found = make_baseline(("square",), config, tmp_path / "runs", target=targets.load("zoo:digits"), data=digits)
    figures = compare(found, found, Gates())
    assert [(f.attack, f.name, f.epsilon) for f in figures] == [
        (None, "clean accuracy", None),
        ("square@1.5", "robust accuracy", 1.5),
        ("square@2", "robust accuracy", 2.0),
    ]


# --- what stops a check ------------------------------------------------------------------------------------------


def test_other_data_is_refused_before_anything_is_attacked(baseline: Path, tmp_path: Path, digits: Any) -> None:
    target = Failing()
    target.left = 0  # not one row may be asked
    for other, why in (
        (digits.take(range(1, 500)), "is not the data that"),
        (digits.take(range(400)), "beside the attacked examples, not the data"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            run_check(baseline, tmp_path / "c", target=target, data=other)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "c").exists()
    with pytest.raises(UsageError, match="name a baseline"):
        run_check(None, tmp_path / "c")


def test_a_check_goes_on_where_the_target_failed(baseline: Path, tmp_path: Path, digits: Any) -> None:
    target, resume, stops = Failing(), False, 0
    while True:
        target.left = 2000
        try:
            path = None if resume else baseline
            found = run_check(path, tmp_path / "c", target=target, data=digits, resume=resume)
            break
        except TargetError:
            resume, stops = True, stops + 1
    assert stops >= 2 and found["holds"]
    assert found["queries"]["attack"] == 64 * 80, "nothing was asked twice"
    assert found["baseline"] == str(baseline)
    assert CheckFolder.open(tmp_path / "c").gates() == Gates()
    (tmp_path / "c" / "run.json").write_text("{}")
    with pytest.raises(BboxError, match="is not the folder of a check"):
        run_check(None, tmp_path / "c", resume=True)
