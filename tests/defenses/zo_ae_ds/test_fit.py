"""The whole fit: variants, budgets against an independent meter, honest refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bbox.defenses import make_defense, noise_accuracy
from bbox.defenses.books import Journal
from bbox.defenses.zo_ae_ds import ZOAEDS
from bbox.errors import InputError, TargetError, UsageError
from bbox.oracle import Oracle
from bbox.targets.callables import CallableTarget
from tests.defenses.zo_ae_ds.boxes import Meter, images

QUICK: dict[str, Any] = {
    "denoiser": "dncnn",
    "dim": 8,
    "warmup": 100,
    "first": 20,
    "student": 30,
    "rounds": 2,
    "sigma": 0.5,
    "selection": 0.15,
}
BUDGET = 4000


def _fit(target: Meter, budget: int = BUDGET, **options: Any) -> tuple[ZOAEDS, dict[str, Any]]:
    defense = ZOAEDS(**{**QUICK, **options})
    return defense, defense.fit(Oracle(target, max_batch=128), images(200), budget=budget)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient": "surrogate", "space": "ae"},
        {"gradient": "hybrid"},
        {"gradient": "zo"},
        {"gradient": "zo", "estimator": "cge", "side": "central", "screen": -1.0, "init": "scratch", "step": 0.3},
        {"gradient": "zo", "space": "image", "estimator": "sphere"},
        {"gradient": "zo", "space": "dct", "dim": 16, "denoiser": "unet"},
        {"gradient": "none"},
        {"gradient": "zo", "task": "reconstruction"},
    ],
    ids=str,
)
def test_every_variant_keeps_the_budget_and_wraps_the_black_box(options: dict[str, Any]) -> None:
    target = Meter()
    defense, found = _fit(target, **options)
    oracle_rows = target.rows
    assert oracle_rows <= BUDGET
    if options.get("gradient") != "none":
        assert oracle_rows > BUDGET // 2, "most of the budget should be spent on training"
    defended = defense.wrap(target)
    answer = defended(images(3))
    assert answer.shape == (3, 4)
    assert found["rows"]["undefended"] is not None and found["chosen"] in found["rows"]


def test_each_distinct_image_is_asked_clean_once() -> None:
    target = Meter()
    _fit(target, gradient="zo")
    seen = torch.cat(target.seen)
    clean = images(200)
    counts = [int((seen == image).flatten(1).all(1).sum()) for image in clean]
    assert counts == [1] * 200


def test_a_defense_helps_under_noise() -> None:
    target = Meter(reach=1)
    tests = images(200, seed=9)
    truth = target(tests).argmax(1)
    bare = noise_accuracy(Oracle(target), tests, truth, sigma=0.5, draws=2).value
    defense, found = _fit(target, warmup=200)
    ours = noise_accuracy(Oracle(defense.wrap(target)), tests, truth, sigma=0.5, draws=2).value
    assert ours > bare + 0.1
    assert found["rows"][found["chosen"]] > found["rows"]["undefended"]


def test_first_order_training_is_marked_as_white_box() -> None:
    _, found = _fit(Meter(), gradient="first-order")
    assert any("white-box" in note for note in found["notes"])


def test_queries_that_bought_nothing_are_said_so() -> None:
    _, found = _fit(Meter(), gradient="zo", space="dct", dim=16, rate=1e-9)
    assert any("bought little" in note for note in found["notes"])


def test_probabilities_are_understood() -> None:
    target = Meter(probabilities=True)
    _, found = _fit(target, gradient="zo")
    assert found["steps"]["zeroth order"] > 0


def test_the_same_seed_gives_the_same_weights() -> None:
    first, _ = _fit(Meter(), gradient="zo")
    second, _ = _fit(Meter(), gradient="zo")
    assert all(torch.equal(a, b) for a, b in zip(first.state()[1].values(), second.state()[1].values(), strict=True))


@pytest.mark.parametrize("after", [150, 900, 3300])
def test_a_fit_that_was_cut_off_goes_on_and_pays_no_row_twice(tmp_path: Path, after: int) -> None:
    whole = Meter()
    undisturbed, _ = _fit(whole, gradient="hybrid")
    cut = Meter(fail_after=after)
    defense = ZOAEDS(**{**QUICK, "gradient": "hybrid"})
    with Journal(tmp_path / "a.sqlite") as journal, pytest.raises(TargetError, match="gone"):
        defense.fit(Oracle(cut, max_batch=128), images(200), budget=BUDGET, journal=journal)
    rest = Meter()
    with Journal(tmp_path / "a.sqlite") as journal:
        defense.fit(Oracle(rest, max_batch=128), images(200), budget=BUDGET, journal=journal)
    assert cut.rows + rest.rows == whole.rows
    for name, tensor in undisturbed.state()[1].items():
        assert torch.equal(tensor, defense.state()[1][name]), name


def test_a_collapsed_autoencoder_is_refused() -> None:
    with pytest.raises(InputError, match=r"collapsed|went through the autoencoder"):
        _fit(Meter(), gradient="zo", warmup=1)


def test_labels_alone_are_refused() -> None:
    target = CallableTarget(lambda rows: torch.zeros(len(rows), dtype=torch.int64), name="labels", access="labels")
    with pytest.raises(UsageError, match="answers labels only"):
        ZOAEDS(**QUICK).fit(Oracle(target), images(200), budget=BUDGET)


def test_too_small_a_budget_is_refused_with_what_it_leaves() -> None:
    with pytest.raises(UsageError, match="too little"):
        _fit(Meter(), budget=60)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UsageError, match="5 images are too few"):
        ZOAEDS(**QUICK).fit(Oracle(Meter()), images(5), budget=BUDGET)


def test_a_model_that_is_no_torch_module_has_no_first_order() -> None:
    target = CallableTarget(lambda rows: Meter()(rows), name="far away", num_classes=4)
    with pytest.raises(UsageError, match="no torch module"):
        ZOAEDS(**{**QUICK, "gradient": "first-order"}).fit(Oracle(target), images(200), budget=BUDGET)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("sigma", "0", "sigma is 0"),
        ("sigma", "127", "pixels are in"),
        ("dim", "0", "dim is 0"),
        ("rate", "-1", "rate is -1"),
        ("share", "1", "share is 1"),
        ("selection", "0", "selection is 0"),
        ("gradient", "magic", "gradient is 'magic'"),
        ("batch", "-3", "batch is -3"),
        ("sigmaa", "1", "did you mean 'sigma'"),
    ],
)
def test_options_are_checked(option: str, value: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make_defense("zo-ae-ds", {option: value})


def test_an_unfitted_defense_wraps_nothing() -> None:
    with pytest.raises(UsageError, match="must be fitted first"):
        ZOAEDS().wrap(Meter())


def test_a_lesson_that_does_not_fit_in_memory_is_cut_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from bbox.defenses.zo_ae_ds import fit

    monkeypatch.setattr(fit, "_LESSON_BYTES", 300 * 4 * 64)
    target = Meter()
    _, found = _fit(target)
    assert any("cut from" in note and "to 300" in note for note in found["notes"])
    assert target.rows < 1500
