"""The contract of defenses against query attacks: each keeps it alone, with all its options, and inside others."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from bbox.attacks import make_attack
from bbox.defenses import DEFENSES, Defense, make_defense
from bbox.errors import UsageError
from bbox.oracle import Oracle
from bbox.targets import Target
from tests.toys import CLASSES, Answers, Quadratic, attack, examples_of

# Each defense, and per option another value under which it answers differently.
CHANGES: dict[str, dict[str, Any]] = {
    "noise": {"sigma": 0.3, "gate": 0.9, "seed": 1},
    "boundary-noise": {"sigma": 0.3, "threshold": 1.0, "seed": 1},
    "aaa": {"kind": "sine", "interval": 6.0, "strength": 0.7, "temperature": 2.0},
    "coarsen": {"top": 2, "digits": 3},
    "jpeg": {"quality": 50},
    "bit-depth": {"bits": 3},
    "random-resize": {"low": 0.8, "seed": 1},
    "vote": {"sigma": 0.1, "n": 5, "clip": True, "seed": 1},
    "blacklight": {"window": 4, "step": 2, "quantum": 30, "keep": 60, "matches": 20, "memory": 10, "seed": 1},
    "delta-similarity": {"reach": 0.1, "steps": 4, "alike": 2.0, "cosine": 0.8, "memory": 10, "seed": 1},
}
NAMES = list(CHANGES)
RANDOM = {"noise", "boundary-noise", "random-resize", "vote"}
NEEDS_SCORES = {"boundary-noise", "aaa", "coarsen"}
DETECTORS = {"blacklight", "delta-similarity"}
SHAPES = [(1, 8, 8), (3, 9, 7), (1, 5, 13)]
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("noise", {"sigma": 0}),
    ("noise", {"sigma": -1}),
    ("noise", {"gate": 1.1}),
    ("noise", {"gate": -0.1}),
    ("noise", {"seed": 0.5}),
    ("boundary-noise", {"sigma": 0}),
    ("boundary-noise", {"threshold": 0}),
    ("boundary-noise", {"threshold": 1.5}),
    ("aaa", {"kind": "cosine"}),
    ("aaa", {"interval": 0}),
    ("aaa", {"strength": 0}),
    ("aaa", {"strength": 1.1}),
    ("aaa", {"temperature": 0}),
    ("coarsen", {"top": -1}),
    ("coarsen", {"digits": 7}),
    ("coarsen", {"digits": -1}),
    ("coarsen", {"top": 0, "digits": 0}),
    ("jpeg", {"quality": 0}),
    ("jpeg", {"quality": 96}),
    ("bit-depth", {"bits": 0}),
    ("bit-depth", {"bits": 9}),
    ("random-resize", {"low": 1}),
    ("random-resize", {"low": 0.05}),
    ("vote", {"sigma": 0}),
    ("vote", {"n": 0}),
    ("vote", {"clip": "maybe"}),
    ("blacklight", {"window": 0}),
    ("blacklight", {"step": 0}),
    ("blacklight", {"quantum": 0}),
    ("blacklight", {"quantum": 256}),
    ("blacklight", {"keep": 0}),
    ("blacklight", {"matches": 0}),
    ("blacklight", {"matches": 51}),
    ("blacklight", {"memory": -1}),
    ("delta-similarity", {"reach": 0}),
    ("delta-similarity", {"reach": 1.5}),
    ("delta-similarity", {"steps": 0}),
    ("delta-similarity", {"alike": 1}),
    ("delta-similarity", {"cosine": 0}),
    ("delta-similarity", {"memory": 0}),
]


class Soft(Quadratic):
    """Like ``Quadratic``, with scores of the size of logits, so that its confidence varies."""

    def answer(self, rows: Tensor) -> Tensor:
        return super().answer(rows) / float(1 << 40)


def rows_of(shape: tuple[int, ...] = (1, 8, 8), count: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def same(a: Tensor, b: Tensor) -> bool:
    return bool(torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)))


def test_the_registry_names_all_of_these() -> None:
    assert set(NAMES) <= set(DEFENSES.names())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_answers_have_the_targets_shape_and_the_rows_stay(name: str, shape: tuple[int, ...]) -> None:
    target = Soft(shape)
    wrapped = make_defense(name).wrap(target)
    rows = rows_of(shape)
    before = rows.clone()
    answers = wrapped(rows)
    assert answers.shape == (len(rows), CLASSES) and answers.dtype == torch.float32
    assert torch.equal(rows, before)
    assert (wrapped.input_shape, wrapped.num_classes, wrapped.device) == (shape, CLASSES, target.device)
    assert wrapped.access == "scores" and target.name in wrapped.name
    assert torch.isfinite(answers).all()  # distinct random rows: nothing to refuse
    assert wrapped(rows[:0]).shape == (0, CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_label_targets_stay_label_targets_or_are_refused(name: str) -> None:
    target = Soft(access="labels")
    if name in NEEDS_SCORES:
        with pytest.raises(UsageError, match="answers labels only"):
            make_defense(name).wrap(target)
        return
    wrapped = make_defense(name).wrap(target)
    answers = Oracle(wrapped).ask(rows_of())
    assert (answers.labels >= 0).all()
    assert wrapped.access == ("scores" if name == "vote" else "labels")


@pytest.mark.parametrize("name", NAMES)
def test_the_description_and_the_fingerprint_change_with_every_option(name: str) -> None:
    cls = DEFENSES.get(name)
    assert set(CHANGES[name]) == {f.name for f in fields(cls) if f.init}
    target = Soft()
    prints = {make_defense(name, {option: value}).wrap(target).fingerprint() for option, value in CHANGES[name].items()}
    prints |= {make_defense(name).wrap(target).fingerprint(), target.fingerprint()}
    assert len(prints) == len(CHANGES[name]) + 2
    assert make_defense(name).wrap(target).fingerprint() in prints


@pytest.mark.parametrize(("name", "options"), WRONG)
def test_every_option_has_a_range(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        make_defense(name, options)
    assert "\n" not in str(error.value) and str(next(iter(options.values()))) in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_options_are_read_from_text_and_unknown_ones_refused(name: str) -> None:
    as_text = {option: str(value) for option, value in CHANGES[name].items()}
    assert make_defense(name, as_text) == make_defense(name, CHANGES[name])
    with pytest.raises(UsageError, match="no option 'strenght'"):
        make_defense(name, {"strenght": 1})


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_needs_costs_and_falls_to(name: str) -> None:
    cls: type[Defense] = DEFENSES.get(name)
    assert cls.summary and cls.cost and cls.weakness and cls.__doc__ and "Queries:" in cls.__doc__
    assert set(cls.needs) <= {"input", "scores", "state"} and not cls.trained
    assert set(cls.adaptations) <= {"average", "scale-free", "reverse", "resample", "large-steps"}
    assert ("state" in cls.needs) == (name in DETECTORS)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_answered_alike_alone_and_in_any_company(name: str) -> None:
    defense = make_defense(name)
    rows = rows_of()
    whole = defense.wrap(Soft())(rows)
    one_by_one = defense.wrap(Soft())
    assert same(torch.cat([one_by_one(row[None]) for row in rows]), whole)
    if name not in DETECTORS:  # those judge a row by what came before it
        order = torch.arange(len(rows)).flip(0)
        assert same(defense.wrap(Soft())(rows[order])[order], whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_determinism_flag_is_true(name: str) -> None:
    # Rows between two centres, where noise on unconfident answers shows too.
    target = Soft()
    middle = target.centres.mean(0, keepdim=True).repeat(8, 1, 1, 1) + 0.05 * rows_of(count=8)
    wrapped = make_defense(name, {"threshold": 1.0} if name == "boundary-noise" else {}).wrap(target)
    assert wrapped.deterministic == (name not in RANDOM)
    first, again = wrapped(middle), wrapped(middle)
    if name not in DETECTORS:
        assert same(first, again) == wrapped.deterministic
    assert same(wrapped.fresh()(middle), first) == wrapped.deterministic


@pytest.mark.parametrize("name", NAMES)
def test_only_detectors_refuse_and_only_they_have_a_fresh_twin(name: str) -> None:
    wrapped = make_defense(name).wrap(Soft())
    assert wrapped.refuses == (name in DETECTORS)
    assert (wrapped.fresh() is wrapped) == (name not in DETECTORS)


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_runs_on_each_within_its_budget(name: str) -> None:
    target = Quadratic((1, 8, 8))
    examples = examples_of(target, 4)
    wrapped = make_defense(name, {"n": 3} if name == "vote" else {}).wrap(target)
    found = attack("cgba", wrapped, examples, 60)
    assert all(outcome.spent <= 60 for outcome in found.values())
    assert target.rows <= 4 * 60 * wrapped.rows_per_query


@pytest.mark.parametrize("name", ["jpeg", "random-resize"])
def test_what_is_no_image_is_refused(name: str) -> None:
    shape = (4, 8, 8) if name == "jpeg" else (64,)
    with pytest.raises(UsageError, match="images"):
        make_defense(name).wrap(Quadratic(shape))


def test_jpeg_refuses_at_the_first_query_where_the_target_says_no_shape() -> None:
    target = Soft((2, 8, 8))
    target.input_shape = None  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"\(2, 8, 8\)"):
        make_defense("jpeg").wrap(target)(rows_of((2, 8, 8)))


def seen_by(name: str, rows: Tensor, **options: Any) -> Tensor:
    """What the inner target is asked."""
    seen: list[Tensor] = []

    def look(asked: Tensor) -> Tensor:
        seen.append(asked.clone())
        return torch.zeros(len(asked), CLASSES)

    make_defense(name, options).wrap(Answers(look))(rows)
    return torch.cat(seen)


def test_noise_has_its_sigma_and_stays_in_range() -> None:
    rows = torch.full((50, 1, 16, 16), 0.5)
    added = seen_by("noise", rows, sigma=0.05) - rows
    assert added.std().item() == pytest.approx(0.05, rel=0.02) and abs(added.mean().item()) < 1e-3
    edge = seen_by("noise", torch.ones(5, 1, 8, 8), sigma=0.5)
    assert edge.min() >= 0 and edge.max() == 1


def test_the_gate_sends_unconfident_rows_only() -> None:
    asked: list[int] = []

    def answer(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        sure = (rows.flatten(1).mean(1) > 0.5).float()[:, None]
        return torch.tensor([[5.0, 0, 0, 0]]) * sure

    wrapped = make_defense("noise", {"gate": 0.9, "sigma": 0.01}).wrap(Answers(answer))
    rows = torch.cat([torch.full((3, 1, 8, 8), 0.9), torch.full((2, 1, 8, 8), 0.1)])
    wrapped(rows)
    assert asked == [5, 2] and wrapped.rows_per_query == 2
    wrapped(rows[:3])
    assert asked == [5, 2, 3]
    with pytest.raises(UsageError, match="answers labels only"):
        make_defense("noise", {"gate": 0.9}).wrap(Soft(access="labels"))


def test_boundary_noise_leaves_confident_answers_and_keeps_probabilities() -> None:
    scores = torch.tensor([[3.0, 0, 0, 0], [0.1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    wrapped = make_defense("boundary-noise").wrap(Answers(lambda rows: scores.clone()))
    answers = wrapped(rows_of(count=3))
    assert torch.equal(answers[0], scores[0])
    assert not torch.equal(answers[1], scores[1]) and not torch.equal(answers[2], scores[2])
    assert answers[2].sum().item() == pytest.approx(1, abs=1e-6)
    repeats = torch.stack([wrapped(rows_of(count=3))[1] for _ in range(300)])
    assert (repeats - scores[1]).std().item() == pytest.approx(0.1, rel=0.1)


def test_bit_depth_leaves_that_many_levels() -> None:
    rows = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    for bits in (1, 3):
        levels = seen_by("bit-depth", rows, bits=bits).unique()
        assert len(levels) == 2**bits and levels[0] == 0 and levels[-1] == 1
    assert torch.equal(
        seen_by("bit-depth", torch.arange(256).view(1, 1, 16, 16) / 255, bits=8) * 255,
        torch.arange(256).view(1, 1, 16, 16).float(),
    )


@pytest.mark.parametrize("shape", [(1, 17, 23), (3, 17, 23)])
def test_jpeg_is_near_for_smooth_images_and_coarser_for_less_quality(shape: tuple[int, ...]) -> None:
    ramp = torch.linspace(0, 1, shape[-1]).expand(2, *shape).contiguous()
    fine, coarse = (seen_by("jpeg", ramp, quality=q) for q in (95, 5))
    assert fine.shape == ramp.shape
    assert (fine - ramp).abs().max() < 0.03 < (coarse - ramp).abs().max()


def test_random_resize_shrinks_moves_and_keeps_the_picture_inside() -> None:
    rows = torch.ones(200, 1, 20, 31)
    seen = seen_by("random-resize", rows.contiguous(), low=0.5)
    # Each row repeats the one before, so each draws another place: mass tells the factor, first moments the place.
    mass = seen.mean((1, 2, 3)).sqrt()
    assert mass.min() > 0.48 and mass.max() < 1.0001 and mass.std() > 0.1
    across = (seen * torch.arange(31)).sum((1, 2, 3)) / seen.sum((1, 2, 3))
    assert across.min() < 12 < 18 < across.max()
    nearly = seen_by("random-resize", rows_of((3, 9, 9)), low=0.999)
    assert (nearly - rows_of((3, 9, 9))).abs().max() < 0.05


def test_coarsen_rounds_keeps_the_best_and_never_moves_the_label() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = 2 * torch.randn(5000, 7, generator=generator)
    scores[:1000] = scores[:1000].mul(0.01)  # near ties, which rounding joins
    scores[1000:2000] = scores[1000:2000].round()  # exact ties
    scores[2000:3000] = scores[2000:3000].softmax(1)
    for options in ({"digits": 1}, {"digits": 2, "top": 3}, {"digits": 0, "top": 2}, {"digits": 6}):
        inner = Answers(lambda rows: scores.clone(), classes=7)
        answers = make_defense("coarsen", options).wrap(inner)(rows_of(count=5000, shape=(1, 1, 1)))
        assert torch.equal(answers.argmax(1), scores.argmax(1))
        if options.get("digits"):
            scaled = answers.double() * 10 ** options["digits"]
            assert (scaled - scaled.round()).abs().max() < (0.1 if options["digits"] == 6 else 1e-3)
        if "top" in options:
            assert ((answers > 0).sum(1) <= options["top"]).all()
    assert torch.equal(answers[2500].round(decimals=5), scores[2500].round(decimals=5))  # probabilities stay


def test_top_one_answers_labels_alone() -> None:
    target = Soft()
    wrapped = make_defense("coarsen", {"top": 1}).wrap(target)
    assert wrapped.access == "labels"
    assert torch.equal(wrapped(rows_of()), target.answer(rows_of()).argmax(1))
    with pytest.raises(UsageError, match="answers labels only"):
        make_defense("aaa").wrap(wrapped)


def stack(target: Target, *names: str) -> Target:
    for name in names:
        target = make_defense(name, {"top": 1, "digits": 0} if name == "coarsen" else {}).wrap(target)
    return target


def test_defenses_compose_in_either_order() -> None:
    target = Soft()
    inner_first = stack(target, "jpeg", "noise")
    assert inner_first.name == "noise(jpeg(Soft))" and not inner_first.deterministic
    assert inner_first.fingerprint() != stack(target, "noise", "jpeg").fingerprint()
    assert not same(inner_first(rows_of()), stack(target, "noise", "jpeg")(rows_of()))
    voted = stack(target, "coarsen", "vote")
    assert voted.access == "scores" and voted.rows_per_query == 32
    assert voted(rows_of()).sum(1).tolist() == pytest.approx([1.0] * 12)
    assert stack(target, "vote", "coarsen").access == "labels"
    assert stack(target, "vote", "vote").rows_per_query == 32 * 32


def test_refusals_pass_through_what_lies_around_a_detector() -> None:
    repeats = rows_of((1, 16, 16), count=1).repeat(12, 1, 1, 1)
    for names in (("aaa",), ("boundary-noise",), ("coarsen",), ("jpeg", "aaa"), ("noise",)):  # noisy repeats too
        wrapped = stack(Soft((1, 16, 16)), "delta-similarity", *names)
        answers = Oracle(wrapped).ask(repeats)
        refused = answers.labels == -2
        assert wrapped.refuses and refused[9:].all() and not refused[:8].any()
    topped = make_defense("coarsen", {"top": 2}).wrap(stack(Soft((1, 16, 16)), "delta-similarity"))
    assert (Oracle(topped).ask(repeats).labels == -2).any()


def test_fresh_goes_through_a_stack_and_keeps_the_count_of_repeats() -> None:
    wrapped = stack(Soft((1, 16, 16)), "blacklight", "noise")
    rows = rows_of((1, 16, 16))
    first = wrapped(rows)
    assert torch.isfinite(first).all()
    twin = wrapped.fresh()
    assert twin is not wrapped and twin.name == wrapped.name and twin.fingerprint() == wrapped.fingerprint()
    again = twin(rows)
    assert torch.isfinite(again).all() and not same(again, first)


def test_a_decision_attack_goes_the_same_way_under_aaa() -> None:
    target = Quadratic((1, 8, 8))
    examples = examples_of(target, 3)
    plain = attack(make_attack("cgba"), target, examples, 80)
    defended = attack(make_attack("cgba"), make_defense("aaa").wrap(target), examples, 80)
    assert {i: o.bits() for i, o in plain.items()} == {i: o.bits() for i, o in defended.items()}
