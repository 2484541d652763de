"""The table beside a prompt: what each row has asked, against a meter; p-values by hand; who is recommended to whom."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bbox.defenses.blackvip import BlackVIP
from bbox.defenses.blackvip.compare import METHODS, mcnemar
from bbox.defenses.books import Journal
from bbox.errors import TargetError, UsageError
from bbox.oracle import Oracle
from bbox.targets.torch_module import TorchTarget
from tests.defenses.blackvip.boxes import QUICK, SHAPE, Meter, fitted, images, labels_of, leaning, quadrants

TRAINING, TEST = images(40), images(60, seed=9)
BUDGET = 900


def _compare(
    defense: BlackVIP,
    target: Any,
    *,
    budget: int = BUDGET,
    max_batch: int = 128,
    journal: Journal | None = None,
    baselines: str | None = None,
) -> tuple[dict[str, Any], Oracle]:
    if baselines is not None:
        defense.baselines = baselines
    oracle = Oracle(target, max_batch=max_batch)
    return defense.compare(oracle, TRAINING, TEST, budget=budget, journal=journal), oracle


def _row(found: dict[str, Any], method: str) -> dict[str, Any]:
    (row,) = (row for row in found["rows"] if row["method"] == method)
    return dict(row)


def _spun(rows: Tensor) -> Tensor:
    """Always right, under the name of the next class: an output adapter needs one look, a prompt has a long way."""
    return 12 * quadrants(rows).roll(1, dims=1)


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch", [128, 13])
def test_every_row_is_there_and_every_query_on_the_right_ledger(max_batch: int) -> None:
    target, defense = Meter(), fitted(baselines="output,local,vp,bar")
    found, oracle = _compare(defense, target, max_batch=max_batch)
    assert [row["method"] for row in found["rows"]] == ["zero-shot", "blackvip", "output", "local", "vp", "bar"]
    assert set(oracle.books) == {"baseline", "evaluate"}
    baseline, evaluate = oracle.books["baseline"], oracle.books["evaluate"]
    assert baseline.queries + evaluate.queries == target.rows
    assert baseline.calls + evaluate.calls == target.calls
    assert evaluate.queries == 4 * len(TEST[0]), "zero-shot, blackvip, vp and bar; the adapters look at what is known"
    spent = {method: _row(found, method)["queries"] for method in ("output", "vp", "bar", "local")}
    assert spent["output"] == len(TRAINING[0]) and spent["local"] == 0
    assert BUDGET // 2 < spent["vp"] <= BUDGET and BUDGET // 2 < spent["bar"] <= BUDGET
    assert sum(spent.values()) == baseline.queries
    assert sum(_row(found, method)["calls"] for method in spent) == baseline.calls
    assert json.loads(json.dumps(found, allow_nan=False)) == found and found["images"] == 60
    assert target.rows <= defense.comparison_queries(BUDGET, len(TRAINING[0]), len(TEST[0])) <= target.rows + 50


def test_rows_are_accuracies_with_their_intervals() -> None:
    target, defense = Meter(), fitted()
    found, _ = _compare(defense, target)
    for method, answers in (("zero-shot", target(TEST[0])), ("blackvip", defense.wrap(target)(TEST[0]))):
        hits = answers.argmax(1) == TEST[1]
        row = _row(found, method)
        assert row["correct"] == "".join(str(int(hit)) for hit in hits.tolist())
        p, n, z = float(hits.float().mean()), len(hits), 1.959963984540054
        assert row["accuracy"] == pytest.approx(p)
        middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))  # Wilson 1927
        scale = 1 + z**2 / n
        assert row["interval"] == pytest.approx([(middle - half) / scale, (middle + half) / scale])
    assert _row(found, "zero-shot")["p_value"] is None


def test_the_prompts_row_says_what_its_fit_has_cost() -> None:
    target, defense = Meter(), BlackVIP(**QUICK)
    defense.fit(Oracle(target), *TRAINING, budget=BUDGET)
    spent = target.rows, target.calls
    row = _row(_compare(defense, target)[0], "blackvip")
    assert (row["queries"], row["calls"]) == spent


@pytest.mark.parametrize("method", ["output", "local", "vp", "bar"])
def test_one_baseline_alone(method: str) -> None:
    target = Meter()
    found, oracle = _compare(fitted(), target, baselines=method)
    assert [row["method"] for row in found["rows"]] == ["zero-shot", "blackvip", method]
    assert target.rows == oracle.books["baseline"].queries + oracle.books["evaluate"].queries


def test_an_identity_prompt_is_zero_shot_and_asks_no_test_image_again() -> None:
    target, defense = Meter(lambda rows: torch.eye(4)[:1].repeat(len(rows), 1)), BlackVIP(**QUICK)
    assert defense.fit(Oracle(target), *TRAINING, budget=BUDGET)["identity"]
    found, oracle = _compare(defense, target)
    assert oracle.books["evaluate"].queries == len(TEST[0])
    assert _row(found, "blackvip")["correct"] == _row(found, "zero-shot")["correct"]
    assert _row(found, "blackvip")["p_value"] == 1.0 and found["improved"] is False


def test_baselines_keep_the_limit_of_calls() -> None:
    defense = fitted(baselines="vp,bar", max_calls=60)
    found, _ = _compare(defense, Meter(), budget=5000, max_batch=32)
    for method in ("vp", "bar"):
        assert 50 < _row(found, method)["calls"] <= 60


def test_labels_alone_can_be_compared() -> None:
    target = Meter(labels_of(leaning), access="labels")
    found, oracle = _compare(fitted(baselines="output,local,vp,bar"), target)
    assert len(found["rows"]) == 6
    assert target.rows == oracle.books["baseline"].queries + oracle.books["evaluate"].queries


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_a_mapped_prompt_is_compared_in_the_datas_classes(access: str) -> None:
    def other(rows: Tensor) -> Tensor:
        scores = torch.full((len(rows), 7), -3.0)
        scores[:, [5, 0, 6, 2]] = 12 * quadrants(rows) + torch.tensor([0.3, 0.0, 0.0, 0.0])
        return scores

    target = Meter(other if access == "scores" else labels_of(other), access=access, classes=7)
    defense = BlackVIP(**{**QUICK, "mapping": "frequency", "baselines": "output,vp,bar"})
    defense.fit(Oracle(target), *TRAINING, budget=BUDGET)
    found, _ = _compare(defense, target)
    plain = other(TEST[0])[:, [5, 0, 6, 2]].argmax(1) if access == "scores" else None
    if plain is not None:
        assert _row(found, "zero-shot")["accuracy"] == pytest.approx(float((plain == TEST[1]).float().mean()))
    assert _row(found, "output")["accuracy"] > 0.4
    assert all(row["accuracy"] > 0.2 for row in found["rows"])


def test_a_comparison_that_is_cut_goes_on_and_pays_no_row_twice(tmp_path: Path) -> None:
    whole, defense = Meter(), fitted(baselines="output,vp,bar")
    undisturbed, _ = _compare(defense, whole, budget=600)
    for fail_at in (1, whole.calls // 2, whole.calls - 1):
        cut, rest = Meter(fail_at=fail_at), Meter()
        with Journal(tmp_path / f"{fail_at}.sqlite") as journal, pytest.raises(TargetError):
            _compare(defense, cut, budget=600, journal=journal)
        with Journal(tmp_path / f"{fail_at}.sqlite") as journal:
            found, _ = _compare(defense, rest, budget=600, journal=journal)
        assert found == undisturbed and cut.rows + rest.rows == whole.rows


# --- p-values and advice ---------------------------------------------------------------------------------------------


def _by_hand(gained: int, lost: int) -> float:
    """Twice the smaller tail of Binomial(n, 1/2), at most 1 (McNemar's exact test)."""
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)


@given(both=st.integers(0, 5), gained=st.integers(0, 30), lost=st.integers(0, 30), neither=st.integers(0, 5))
def test_mcnemar_is_the_exact_sign_test_of_the_images_that_changed(
    both: int, gained: int, lost: int, neither: int
) -> None:
    before = "1" * both + "0" * gained + "1" * lost + "0" * neither
    after = "1" * both + "1" * gained + "0" * lost + "0" * neither
    assert mcnemar(before, after) == pytest.approx(_by_hand(gained, lost))
    assert mcnemar(after, before) == mcnemar(before, after)


def test_mcnemar_of_known_counts() -> None:
    assert mcnemar("0" * 6, "1" * 6) == pytest.approx(2 / 64)
    assert mcnemar("0101", "0101") == 1.0
    with pytest.raises(ValueError, match="zip"):
        mcnemar("01", "011")


def test_where_the_prompt_is_best_it_is_recommended() -> None:
    target, defense = Meter(), BlackVIP(**QUICK)
    defense.fit(Oracle(target), *TRAINING, budget=4000)
    found, _ = _compare(defense, target)
    assert found["improved"] and found["recommended"] == "blackvip"
    zero, prompt = _row(found, "zero-shot"), _row(found, "blackvip")
    assert prompt["p_value"] < 0.05 and prompt["accuracy"] > zero["accuracy"] + 0.2
    (line,) = found["advice"]
    assert line.startswith("the prompt is better than no prompt")
    assert f"{100 * prompt['accuracy']:.1f}%" in line and f"{100 * zero['accuracy']:.1f}%" in line


def test_where_an_output_adapter_wins_it_is_said_and_for_whom_a_prompt_is_still_right() -> None:
    target = Meter(_spun)
    found, _ = _compare(fitted(), target, baselines="output")
    assert found["recommended"] == "output" and _row(found, "output")["accuracy"] > 0.9
    text = " ".join(found["advice"])
    assert "not improved" in text and "output adapter is best on these images" in text
    assert "image-in, prediction-out endpoint" in text


def test_where_nothing_helps_no_prompt_is_recommended_and_it_is_not_improved() -> None:
    def perfect(rows: Tensor) -> Tensor:
        return 40 * quadrants(rows)

    target = Meter(perfect)
    found, _ = _compare(fitted(scale=4.0), target)
    assert _row(found, "blackvip")["accuracy"] < _row(found, "zero-shot")["accuracy"]
    assert found["recommended"] == "zero-shot" and not found["improved"]
    (line,) = found["advice"]
    assert line.startswith("not improved") and "p = " in line


def test_a_gain_that_chance_explains_is_no_improvement() -> None:
    """Better on one image of a few."""
    target, defense = Meter(), BlackVIP(**QUICK)
    defense.fit(Oracle(target), *TRAINING, budget=4000)
    before, after = (answer.argmax(1) == TEST[1] for answer in (target(TEST[0]), defense.wrap(target)(TEST[0])))
    gained = (after & ~before).nonzero().flatten()[:3].tolist()
    same = (after & before).nonzero().flatten()[:7].tolist()
    some = torch.tensor(gained + same)
    found = defense.compare(Oracle(target), TRAINING, (TEST[0][some], TEST[1][some]), budget=BUDGET)
    prompt = _row(found, "blackvip")
    assert prompt["accuracy"] == 1.0 and prompt["p_value"] == pytest.approx(0.25)
    assert not found["improved"] and found["recommended"] == "blackvip"
    assert found["advice"][0].startswith("not improved")


# --- white box -------------------------------------------------------------------------------------------------------


class _Leaning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lean = nn.Parameter(torch.tensor([0.3, 0.0, 0.0, 0.0]))

    def forward(self, rows: Tensor) -> Tensor:
        return 12 * (quadrants(rows) + self.lean)


def test_white_boxes_are_the_ceiling_ask_nothing_and_are_never_recommended() -> None:
    target = TorchTarget(_Leaning(), name="leaning", num_classes=4, input_shape=SHAPE, device="cpu")
    found, oracle = _compare(fitted(), target, baselines="white-box,vp-white-box")
    assert "baseline" not in oracle.books and oracle.books["evaluate"].queries == 2 * len(TEST[0])
    for method in ("white-box", "vp-white-box"):
        row = _row(found, method)
        assert row["accuracy"] > _row(found, "zero-shot")["accuracy"] + 0.3
        assert row["queries"] is None and row["calls"] is None
    assert found["recommended"] in ("zero-shot", "blackvip")


def test_the_white_box_prompt_is_plain_adam_on_the_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's own optimiser, from the same batches."""
    # The package has a function of the same name as the module.
    monkeypatch.setattr(import_module("bbox.defenses.blackvip.compare"), "_WHITE_STEPS", 80)
    target = TorchTarget(_Leaning(), name="leaning", num_classes=4, input_shape=SHAPE, device="cpu")
    found, _ = _compare(fitted(), target, baselines="vp-white-box")
    order = torch.randperm(len(TRAINING[0]), generator=torch.Generator().manual_seed(0))
    rows, labels = TRAINING[0][order], TRAINING[1][order]
    prompt = torch.zeros(SHAPE, requires_grad=True)
    optimiser = torch.optim.Adam([prompt], lr=0.01, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / 80)
    module, generator = _Leaning(), torch.Generator().manual_seed(0)
    for _ in range(80):
        place = torch.randperm(len(rows), generator=generator)[:64]
        optimiser.zero_grad()
        F.cross_entropy(module((rows[place] + prompt).clamp(0, 1)), labels[place]).backward()
        optimiser.step()
        falling.step()
    hits = module((TEST[0] + prompt.detach()).clamp(0, 1)).argmax(1) == TEST[1]
    assert _row(found, "vp-white-box")["correct"] == "".join(str(int(hit)) for hit in hits.tolist())


@pytest.mark.parametrize("method", ["white-box", "vp-white-box"])
def test_a_black_box_has_no_white_one(method: str) -> None:
    with pytest.raises(UsageError, match="no torch module"):
        _compare(fitted(), Meter(), baselines=method)


@pytest.mark.parametrize(("options", "text"), [({}, "no torch module"), ({"mapping": "frequency"}, "label mapping")])
def test_a_white_box_that_cannot_be_is_refused_before_anything_is_paid(options: dict[str, str], text: str) -> None:
    meter = Meter()
    target = TorchTarget(_Leaning(), name="leaning", device="cpu") if options else meter
    oracle = Oracle(target)
    with pytest.raises(UsageError, match=text):
        BlackVIP(baselines="vp,white-box", **options).fit(oracle, *TEST, budget=2000)  # type: ignore[arg-type]
    assert not oracle.books and meter.rows == 0


def test_all_methods_can_be_named() -> None:
    assert BlackVIP(baselines=",".join(METHODS)).methods() == METHODS
