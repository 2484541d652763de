"""The whole fit: exact budgets against an independent meter, resume, honest refusals, every kind of black box."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bbox.defenses import make_defense
from bbox.defenses.blackvip import BlackVIP
from bbox.defenses.books import Journal
from bbox.errors import InputError, TargetError, UsageError
from bbox.oracle import Oracle
from tests.defenses.blackvip.boxes import QUICK, SHAPE, Meter, images, labels_of, leaning, quadrants

BUDGET = 1500
IMAGES, LABELS = images(40)


def _fit(
    target: Meter, budget: int = BUDGET, *, max_batch: int = 128, journal: Journal | None = None, **options: Any
) -> tuple[BlackVIP, dict[str, Any], Oracle]:
    defense = BlackVIP(**{**QUICK, **options})
    oracle = Oracle(target, max_batch=max_batch)
    return defense, defense.fit(oracle, IMAGES, LABELS, budget=budget, journal=journal), oracle


def _weights(defense: BlackVIP) -> Tensor:
    assert defense.prompt is not None
    return defense.prompt.weights


def _accuracy(target: Any, rows: Tensor, labels: Tensor) -> float:
    answers = target(rows)
    return float(((answers.argmax(1) if answers.ndim == 2 else answers) == labels).float().mean())


def _shares(rows: Tensor) -> Tensor:
    return leaning(rows).softmax(1)


def _rounded(decimals: int) -> Any:
    return lambda rows: (_shares(rows) * 10**decimals).round() / 10**decimals


def _best_two(rows: Tensor) -> Tensor:
    scores = leaning(rows)
    return scores.masked_fill(scores.topk(2, dim=1).values[:, -1:] > scores, -torch.inf)


# --- it learns -------------------------------------------------------------------------------------------------------


def test_a_prompt_sets_a_leaning_black_box_right_on_images_it_has_not_seen() -> None:
    target = Meter()
    tests, truth = images(200, seed=9)
    bare = _accuracy(target, tests, truth)
    defense, found, _ = _fit(target, 6000)
    assert not found["identity"] and found["notes"] == []
    assert bare < 0.5
    assert _accuracy(defense.wrap(target), tests, truth) > bare + 0.25
    assert found["held_out_loss"][str(found["chosen_step"])] < found["held_out_loss"]["0"]


@pytest.mark.parametrize(
    ("answer", "access", "told"),
    [
        (leaning, "scores", "logits"),
        (_shares, "scores", "probabilities"),
        (_rounded(3), "scores", "probabilities, 3 decimals"),
        (_rounded(2), "scores", "probabilities, 2 decimals"),
        (_rounded(1), "scores", "probabilities, 1 decimals"),
        (_best_two, "scores", "logits"),
        (labels_of(leaning), "labels", "labels"),
    ],
    ids=["logits", "shares", "3", "2", "1", "masked", "labels"],
)
def test_every_kind_of_answer_is_told_and_learned_from(answer: Any, access: str, told: str) -> None:
    target = Meter(answer, access=access)
    defense, found, _ = _fit(target, 4000, c=0.1)
    assert found["answers"].startswith(told)
    assert all(math.isfinite(value) for value in found["running_loss"])
    assert not found["identity"], found["held_out_loss"]
    assert any("labels alone" in note for note in found["notes"]) == (access == "labels")
    tests, truth = images(100, seed=9)
    assert _accuracy(defense.wrap(target), tests, truth) > _accuracy(target, tests, truth)


@pytest.mark.parametrize(
    "options",
    [
        {"sides": 2},
        {"law": "segmented", "sides": 2},
        {"optimizer": "spsa"},
        {"optimizer": "adam"},
        {"optimizer": "cma-es", "c": 0.02},
        {"norm": "batch"},
        {"norm": "none"},
        {"init": "random"},
        {"norm": "batch", "init": "random", "clip": False, "a": 1e-3},
        {"backend": "loop"},
        {"backend": "vmap"},
        {"c": 0.0},
        {"guard": 0.0, "averaging": 0.0},
        {"batch": 1000},
    ],
    ids=str,
)
def test_every_variant_keeps_the_budget_and_wraps_the_black_box(options: dict[str, Any]) -> None:
    target = Meter()
    defense, found, oracle = _fit(target, **options)
    assert BUDGET // 2 < target.rows <= BUDGET, "most of the budget should be spent"
    assert target.rows == sum(ledger.queries for ledger in oracle.books.values()) == sum(found["queries"].values())
    assert found["steps"] > 0 and json.loads(json.dumps(found, allow_nan=False)) == found
    assert defense.wrap(target)(IMAGES[:3]).shape == (3, 4)


def test_figures_say_what_was_done() -> None:
    target = Meter()
    defense, found, oracle = _fit(target, c=0.0)
    assert found["parameters"] == len(_weights(defense))
    assert found["images"] == {"training": 30, "held_out": 10}
    assert found["evaluations_a_step"] == 5 and len(found["running_loss"]) == found["steps"]
    assert found["calls"] == target.calls and found["c"] in (0.01, 0.03, 0.1) and len(found["slopes_agree"]) == 2
    assert {purpose: ledger.queries for purpose, ledger in oracle.books.items()} == found["queries"]
    assert set(found["queries"]) == {"fit", "select", "probe"}
    assert found["queries"]["select"] == 5 * 10, "a first look, and four checkpoints"


def test_progress_is_reported() -> None:
    told: list[tuple[str, int, int]] = []
    defense = BlackVIP(**QUICK)
    found = defense.fit(Oracle(Meter()), IMAGES, LABELS, budget=BUDGET, report=lambda *part: told.append(part))
    trained = [part for part in told if part[0] == "train"]
    assert trained == [("train", step, found["steps"]) for step in range(1, found["steps"] + 1)]


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    assert torch.equal(_weights(_fit(Meter())[0]), _weights(_fit(Meter())[0]))
    defense = BlackVIP(**QUICK)
    defense.fit(Oracle(Meter()), IMAGES, LABELS, budget=BUDGET, seed=1)
    assert not torch.equal(_weights(defense), _weights(_fit(Meter())[0]))


def test_the_weights_do_not_depend_on_how_many_rows_a_call_takes() -> None:
    assert torch.allclose(_weights(_fit(Meter())[0]), _weights(_fit(Meter(), max_batch=11)[0]), atol=1e-3)


def test_images_are_asked_clean_once_and_test_images_never() -> None:
    target = Meter()
    _fit(target, init="random")
    seen = torch.cat(target.seen)
    counts = [int((seen == image).flatten(1).all(1).sum()) for image in IMAGES]
    assert counts == [1] * len(IMAGES)


def test_step_zero_is_the_black_box_as_it_is() -> None:
    """With a zero start a one-sided step first asks its images as they are."""
    target = Meter()
    _, found, _ = _fit(target)
    first = torch.cat(target.seen)[len(IMAGES) + found["queries"]["probe"] :][: found["images_a_step"]]
    which = torch.cdist(first.flatten(1), IMAGES.flatten(1)).argmin(1)
    assert torch.equal(first, IMAGES[which]) and len(set(which.tolist())) == len(first)
    zero_shot = F.cross_entropy(leaning(IMAGES[which]), LABELS[which])
    assert found["running_loss"][0] == pytest.approx(float(zero_shot), abs=1e-4)


def test_features_are_computed_once_and_not_again_each_step() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = 0

        def forward(self, rows: Tensor) -> Tensor:
            self.rows += len(rows)
            return quadrants(rows)

    counts = []
    for budget in (1000, 4000):
        encoder = Encoder()
        _fit(Meter(), budget, encoder=encoder)
        counts.append(encoder.rows)
    assert counts[0] == counts[1], "the encoder was asked again in the steps"
    # Each image once, and one or two to learn how many features there are.
    assert counts[0] <= len(IMAGES) + 2


# --- budgets ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    budget=st.integers(350, 1500),
    max_batch=st.integers(5, 200),
    k=st.integers(1, 6),
    sides=st.sampled_from([1, 2]),
    batch=st.integers(1, 60),
    c=st.sampled_from([0.0, 0.05]),
    mapping=st.sampled_from(["identity", "frequency", "iterative"]),
    norm=st.sampled_from(["group", "batch"]),
)
def test_no_budget_is_ever_passed(budget: int, max_batch: int, **options: Any) -> None:
    target = Meter()
    try:
        _, found, oracle = _fit(target, budget, max_batch=max_batch, **options)
    except UsageError as error:
        assert "budget" in str(error) and target.rows == 0, "refused before the first query"
        return
    assert target.rows <= budget
    assert target.rows == sum(ledger.queries for ledger in oracle.books.values()) == sum(found["queries"].values())
    assert target.calls == sum(ledger.calls for ledger in oracle.books.values()) == found["calls"]
    assert found["steps"] >= 1
    if found["steps"] >= 4:  # with fewer there are fewer checkpoints, whose looks nobody else may spend
        assert budget - target.rows < found["evaluations_a_step"], "less than what one image more would take"
    assert max(target.batches) <= max_batch


@settings(max_examples=20)
@given(
    max_calls=st.integers(10, 150),
    max_batch=st.integers(7, 150),
    k=st.integers(1, 6),
    batch=st.integers(1, 40),
    c=st.sampled_from([0.0, 0.05]),
    mapping=st.sampled_from(["identity", "iterative"]),
)
def test_no_limit_of_calls_is_ever_passed(max_calls: int, max_batch: int, **options: Any) -> None:
    target = Meter()
    try:
        _, found, _ = _fit(target, 1500, max_batch=max_batch, max_calls=max_calls, **options)
    except UsageError as error:
        assert "max_calls" in str(error) and target.rows == 0, "refused before the first query"
        return
    assert target.calls <= max_calls and target.calls == found["calls"]
    assert target.rows <= 1500
    assert found["steps"] >= 1 and len(found["held_out_loss"]) >= 2


@pytest.mark.parametrize(("mapping", "max_batch"), [("identity", 31), ("iterative", 31), ("iterative", 8)])
def test_whatever_the_limit_of_calls_is_it_is_refused_or_enough_to_the_end(mapping: str, max_batch: int) -> None:
    """Wherever it ends the training, the looks and the mappings that are to come are paid for."""
    whole = Meter()
    options: dict[str, Any] = {"mapping": mapping, "batch": 4, "max_batch": max_batch}
    _fit(whole, 700, **options)
    enough = []
    for max_calls in range(1, whole.calls + 2):
        target = Meter()
        try:
            _, found, _ = _fit(target, 700, max_calls=max_calls, **options)
        except UsageError as error:
            assert f"max_calls is {max_calls}" in str(error) and target.rows == 0
            continue
        assert found["steps"] >= 1 and target.calls <= max_calls
        assert str(found["steps"]) in found["held_out_loss"]
        enough.append(max_calls)
    assert enough == list(range(enough[0], whole.calls + 2)) and 20 < enough[0] < whole.calls


def test_a_limit_of_calls_that_ends_the_training_still_judges_the_last_weights() -> None:
    target = Meter()
    _, found, _ = _fit(target, 20_000, max_calls=100)
    assert 90 <= target.calls <= 100
    assert str(found["steps"]) in found["held_out_loss"]


def test_the_smallest_budget_makes_a_step_and_one_less_is_refused() -> None:
    def steps(budget: int) -> int:
        target = Meter()
        try:
            return int(_fit(target, budget)[1]["steps"])
        except UsageError as error:
            assert str(budget) in str(error) and "too little" in str(error) and target.rows == 0
            return 0

    least = next(budget for budget in range(40, 2000) if steps(budget))
    assert [steps(budget) for budget in (1, least - 1)] == [0, 0]
    assert all(steps(budget) >= 1 for budget in (least, least + 1, least + 10))


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"c": 0.0}, {"mapping": "iterative", "norm": "batch", "averaging": 0.0}], ids=str)
def test_a_fit_that_is_cut_anywhere_goes_on_to_the_same_weights_and_pays_no_row_twice(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = Meter()
    undisturbed, figures, _ = _fit(whole, 1200, max_batch=64, **options)
    for fail_at in range(0, whole.calls, max(1, whole.calls // 5)):
        path = tmp_path / f"{fail_at}.sqlite"
        cut, rest = Meter(fail_at=fail_at), Meter()
        with Journal(path) as journal, pytest.raises(TargetError, match="gone"):
            _fit(cut, 1200, max_batch=64, journal=journal, **options)
        with Journal(path) as journal:
            defense, found, oracle = _fit(rest, 1200, max_batch=64, journal=journal, **options)
        assert cut.calls == fail_at and cut.rows + rest.rows == whole.rows
        assert sum(ledger.replayed for ledger in oracle.books.values()) == cut.rows
        assert torch.equal(_weights(defense), _weights(undisturbed)) and found == figures
        assert torch.equal(torch.cat([*cut.seen, *rest.seen]), torch.cat(whole.seen)), "the same rows, each once"


def test_a_fit_can_be_cut_many_times(tmp_path: Path) -> None:
    whole = Meter()
    undisturbed, _, _ = _fit(whole, 900)
    parts = []
    for _ in range(100):
        part = Meter(fail_at=5)
        parts.append(part)
        with Journal(tmp_path / "a.sqlite") as journal:
            try:
                defense, _, _ = _fit(part, 900, journal=journal)
            except TargetError:
                continue
        break
    assert len(parts) == -(-whole.calls // 5)
    assert sum(part.rows for part in parts) == whole.rows
    assert torch.equal(_weights(defense), _weights(undisturbed))


def test_a_journal_of_another_seed_is_not_used(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.sqlite") as journal:
        _fit(Meter(), journal=journal)
    whole, target = Meter(), Meter()
    alone, fresh = BlackVIP(**QUICK), BlackVIP(**QUICK)
    alone.fit(Oracle(whole), IMAGES, LABELS, budget=BUDGET, seed=3)
    with Journal(tmp_path / "a.sqlite") as journal:
        fresh.fit(Oracle(target), IMAGES, LABELS, budget=BUDGET, seed=3, journal=journal)
    assert target.rows == whole.rows and torch.equal(_weights(fresh), _weights(alone))


# --- honesty ---------------------------------------------------------------------------------------------------------


def _hostile(rows: Tensor) -> Tensor:
    """Right about the labelled images as they are, and the less sure the further an image is from all of them."""
    distance, which = torch.cdist(rows.flatten(1), IMAGES.flatten(1)).min(1)
    return torch.eye(4)[LABELS[which]] * (20 - 20 * distance[:, None])


@pytest.mark.parametrize(
    ("answer", "access"),
    [
        (lambda rows: torch.eye(4)[:1].repeat(len(rows), 1), "scores"),
        (lambda rows: torch.zeros(len(rows), dtype=torch.int64), "labels"),
        (_hostile, "scores"),
    ],
    ids=["constant", "constant label", "hostile"],
)
def test_where_no_prompt_can_help_it_is_the_identity_and_says_so(answer: Any, access: str) -> None:
    target = Meter(answer, access=access)
    defense, found, _ = _fit(target)
    assert found["identity"] and found["chosen_step"] == 0 and found["steps"] > 0
    assert any("the prompt is the identity" in note for note in found["notes"])
    tests, _ = images(20, seed=3)
    assert torch.equal(defense.wrap(target)(tests), target(tests))
    assert torch.equal(target.seen[-2], tests), "the images go through untouched"


def test_a_diverging_setting_is_rolled_back_and_said_so() -> None:
    wild: dict[str, Any] = {"a": 5.0, "averaging": 0.0, "scale": 5.0}
    _, free, _ = _fit(Meter(), 3000, guard=0.0, **wild)
    defense, found, _ = _fit(Meter(), 3000, guard=1.2, **wild)
    assert free["rollbacks"] == 0 and max(free["running_loss"]) > 2 * free["held_out_loss"]["0"]
    assert found["rollbacks"] > 0
    assert any("went back" in note for note in found["notes"])
    target = Meter()
    tests, truth = images(100, seed=9)
    assert _accuracy(defense.wrap(target), tests, truth) >= _accuracy(target, tests, truth) - 0.05


def test_rows_that_are_not_answered_are_left_out() -> None:
    def holes(rows: Tensor) -> Tensor:
        scores = leaning(rows)
        scores[::7] = torch.nan
        return scores

    target = Meter(holes)
    _, found, oracle = _fit(target)
    assert all(math.isfinite(value) for value in found["running_loss"])
    assert sum(ledger.invalid for ledger in oracle.books.values()) > 100
    assert target.rows <= BUDGET


@pytest.mark.parametrize(
    ("answer", "access"),
    [
        (lambda rows: torch.full((len(rows), 4), torch.nan), "scores"),
        (lambda rows: torch.full((len(rows),), -1), "labels"),
    ],
)
def test_a_black_box_that_answers_nothing_usable_is_refused_after_the_first_look(answer: Any, access: str) -> None:
    target = Meter(answer, access=access)
    with pytest.raises(InputError, match="no usable answer"):
        _fit(target)
    assert target.rows <= len(IMAGES)


def test_a_model_of_fewer_classes_than_the_labels_is_refused() -> None:
    target = Meter(lambda rows: leaning(rows)[:, :3], classes=3)
    with pytest.raises(InputError, match="labels reach 3, and the model has 3 classes"):
        _fit(target)
    assert target.rows <= len(IMAGES)


def test_images_without_labels_and_too_few_images_are_refused() -> None:
    target = Meter()
    with pytest.raises(UsageError, match="labelled images"):
        BlackVIP(**QUICK).fit(Oracle(target), IMAGES, budget=BUDGET)
    with pytest.raises(UsageError, match="9 labelled images are too few"):
        BlackVIP(**QUICK).fit(Oracle(target), IMAGES[:9], LABELS[:9], budget=BUDGET)
    assert target.rows == 0


@pytest.mark.parametrize("selection", [0.001, 0.999])
@pytest.mark.parametrize("count", [10, 11, 40])
def test_there_are_always_images_that_train_and_images_that_choose(count: int, selection: float) -> None:
    target = Meter()
    defense = BlackVIP(**{**QUICK, "selection": selection})
    found = defense.fit(Oracle(target), IMAGES[:count], LABELS[:count], budget=BUDGET)
    assert found["images"]["training"] >= 2 and found["images"]["held_out"] >= 2
    assert sum(found["images"].values()) == count and target.rows <= BUDGET


# --- other classes ---------------------------------------------------------------------------------------------------


def _other_classes(rows: Tensor) -> Tensor:
    """Seven classes: the quadrants are 5, 0, 6 and 2 of them, the others answer little."""
    scores = torch.full((len(rows), 7), -3.0)
    scores[:, [5, 0, 6, 2]] = 12 * quadrants(rows) + torch.tensor([0.3, 0.0, 0.0, 0.0])
    return scores


@pytest.mark.parametrize("mapping", ["frequency", "iterative"])
@pytest.mark.parametrize("access", ["scores", "labels"])
def test_a_model_of_other_classes_is_mapped(access: str, mapping: str) -> None:
    target = Meter(_other_classes if access == "scores" else labels_of(_other_classes), access=access, classes=7)
    defense, found, _ = _fit(target, 4000, mapping=mapping, c=0.1)
    assert target.rows <= 4000
    assert defense.prompt is not None and defense.prompt.mapping is not None
    assert defense.prompt.mapping.sources == (5, 0, 6, 2) and defense.prompt.mapping.num_source == 7
    wrapped = defense.wrap(target)
    assert wrapped.num_classes == 4
    tests, truth = images(100, seed=9)
    answers = Oracle(wrapped).ask(tests, "evaluate")
    assert float((answers.labels == truth).float().mean()) > 0.6
    again = mapping == "iterative"
    assert found["queries"]["fit"] >= 30 + (3 * 30 if again else 0)


def test_a_mapping_of_labels_needs_to_know_how_many_classes_there_are() -> None:
    target = Meter(labels_of(_other_classes), access="labels", classes=None)
    with pytest.raises(UsageError, match="does not say how many classes"):
        _fit(target, mapping="frequency")


# --- options ---------------------------------------------------------------------------------------------------------


def test_the_published_preset_has_the_published_settings_and_runs() -> None:
    defense = make_defense("blackvip", {"preset": "cvpr23", "encoder": "pca:6", "batch": "16"})
    assert isinstance(defense, BlackVIP)
    published = {"a": 0.01, "c": 0.01, "k": 5, "sides": 2, "law": "segmented", "norm": "batch", "init": "random"}
    assert {name: getattr(defense, name) for name in published} == published
    assert (defense.clip, defense.guard, defense.averaging, defense.trigger_scale) == (False, 0.0, 0.0, 1.0)
    assert (defense.momentum, defense.alpha, defense.gamma, defense.optimizer) == (0.9, 0.4, 0.1, "spsa-gc")
    assert BlackVIP.presets["cvpr23"]["batch"] == 128
    schedule = defense.schedule()
    assert schedule.spsa.evaluations == 10 and schedule.gains.offset == 1
    target = Meter()
    found = defense.fit(Oracle(target), IMAGES, LABELS, budget=BUDGET)
    assert target.rows <= BUDGET and found["steps"] > 5 and found["c"] == 0.01
    assert "probe" not in found["queries"] and found["loss_scale"] == 1.0
    prompt = defense.prompt
    assert prompt is not None and prompt.coordinator.center is None
    assert prompt.identity or (prompt.statistics is not None and len(prompt.statistics) == 1)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("k", "0", "k is 0"),
        ("batch", "-1", "batch is -1"),
        ("sides", "3", "sides is 3"),
        ("a", "0", "a is 0"),
        ("a", "nan", "a is 'nan'"),
        ("c", "-1", "c is -1"),
        ("scale", "0", "scale is 0"),
        ("momentum", "1", "momentum is 1"),
        ("averaging", "-0.1", "averaging is -0.1"),
        ("selection", "0", "selection is 0"),
        ("selection", "1", "selection is 1"),
        ("max_calls", "-5", "max_calls is -5"),
        ("workers", "-1", "workers is -1"),
        ("law", "gaussian", "law is 'gaussian'"),
        ("norm", "layer", "norm is 'layer'"),
        ("mapping", "magic", "mapping is 'magic'"),
        ("backend", "einsum", "backend is 'einsum'"),
        ("optimizer", "sgd", "optimizer is 'sgd'"),
        ("baselines", "vp,magic", "baselines names 'magic'"),
        ("preset", "cvpr24", "no preset 'cvpr24'"),
        ("batchs", "3", "did you mean 'batch'"),
    ],
)
def test_options_are_checked(option: str, value: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make_defense("blackvip", {option: value})


def test_cma_es_needs_points_enough_and_one_process() -> None:
    with pytest.raises(UsageError, match="cma-es"):
        BlackVIP(optimizer="cma-es", k=2, sides=1)
    with pytest.raises(UsageError, match="cma-es"):
        BlackVIP(optimizer="cma-es", workers=2)


def test_an_unfitted_defense_wraps_and_compares_nothing() -> None:
    with pytest.raises(UsageError, match="must be fitted first"):
        BlackVIP().wrap(Meter())
    with pytest.raises(UsageError, match="must be fitted"):
        BlackVIP().compare(Oracle(Meter()), (IMAGES, LABELS), (IMAGES, LABELS), budget=BUDGET)


@pytest.mark.parametrize(
    ("text", "methods"), [("none", ()), ("", ()), ("vp, bar", ("vp", "bar")), ("output", ("output",))]
)
def test_baselines_are_read(text: str, methods: tuple[str, ...]) -> None:
    assert BlackVIP(baselines=text).methods() == methods


def test_shapes_of_other_channels_are_served() -> None:
    rows = IMAGES.repeat(1, 3, 1, 1)
    target = Meter(lambda rows: leaning(rows.mean(1, keepdim=True)))
    defense = BlackVIP(**QUICK)
    found = defense.fit(Oracle(target), rows, LABELS, budget=BUDGET)
    assert target.rows <= BUDGET and defense.prompt is not None and defense.prompt.shape == (3, *SHAPE[1:])
    assert found["parameters"] == len(defense.prompt.weights)
