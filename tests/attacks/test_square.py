"""Square Attack: its rows, recorded one by one, lie in ball and box, never repeat, and depend on no company."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbox.attacks import Square, make_attack
from bbox.attacks.losses import are_probabilities, as_logits, margin, reflected, scale_free
from bbox.attacks.squares import bump, side_of
from bbox.defenses.aaa import AAA
from bbox.domain import ROUNDING, Box
from bbox.errors import UsageError
from tests.toys import CLASSES, Quadratic, attack, examples_of

LINF, L2 = Box(norm="linf"), Box(norm="l2")
BOXES = pytest.mark.parametrize("box", [LINF, L2], ids=["linf", "l2"])


class Recording(Quadratic):
    """Keeps every row it is given."""

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8), access: str = "scores") -> None:
        super().__init__(shape, access=access)
        self.given: list[torch.Tensor] = []

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.given.extend(rows.clone())
        return super().__call__(rows)


class Stubborn(Recording):
    """Scores move, the label never does."""

    def answer(self, rows: torch.Tensor) -> torch.Tensor:
        scores = super().answer(rows)
        scores[:, 0] += 1e18
        return scores


def _rows(
    target: Recording, box: Box, budget: int, *, indices: tuple[int, ...] = (0,), count: int = 5, **options: Any
) -> tuple[torch.Tensor, Any, Any]:
    """The rows asked, the examples and the outcomes."""
    examples = examples_of(target, count)
    if isinstance(target, Stubborn):
        examples.labels[:] = 0
    quantize = "8bit" if box.levels else None
    if quantize:
        examples.inputs[:] = (examples.inputs * 255).round() / 255
    found = attack(Square(**options), target, examples, budget, indices=indices, domain=box, quantize=quantize)
    return torch.stack(target.given), examples, found


# --- rows --------------------------------------------------------------------------------------------------------


@BOXES
@pytest.mark.parametrize("budget", [1, 2, 3, 10, 37, 150])
def test_every_budget_is_exact(box: Box, budget: int) -> None:
    target = Stubborn()
    rows, _, found = _rows(target, box, budget, indices=(0, 1, 2), epsilon=0.3)
    assert len(rows) == 3 * budget
    assert {(o.spent, o.stopped) for o in found.values()} == {(budget, "budget")}


@BOXES
@pytest.mark.parametrize("levels", [0, 255], ids=["exact", "8bit"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 9, 7), (2, 3, 12)])
def test_rows_lie_in_the_ball_and_the_box_and_are_never_asked_twice(
    box: Box, levels: int, shape: tuple[int, ...]
) -> None:
    box = Box(norm=box.norm, levels=levels)
    epsilon = 0.3 if box.norm == "linf" else 0.9
    rows, examples, _ = _rows(Stubborn(shape), box, 150, epsilon=epsilon)
    assert float(rows.min()) >= 0 and float(rows.max()) <= 1
    distance = box.distance(examples.inputs[:1].expand(len(rows), *shape), rows)
    assert float(distance.max()) <= epsilon + (ROUNDING if levels else 0)
    if not levels:
        assert float(distance.max()) >= epsilon * (1 - 1e-5), "the perturbation lies on the surface of the ball"
    every = torch.cat([examples.inputs[:1], rows]).flatten(1)
    assert len(every.unique(dim=0)) == len(every) == 151


def test_a_search_that_has_asked_every_row_ends() -> None:
    """2 x 2 pixels have 16 corners of the linf ball; draws may miss a last one or two."""
    rows, _, found = _rows(Stubborn((1, 2, 2)), LINF, 100, epsilon=0.01, count=4)
    assert 13 <= len(rows) == len(rows.flatten(1).unique(dim=0)) <= 16
    assert (found[0].spent, found[0].stopped) == (len(rows), "start_not_found")


def test_a_ball_without_a_grid_point_is_left_alone() -> None:
    rows_asked = Stubborn()
    examples = examples_of(rows_asked, 1)
    examples.inputs[:] = (examples.inputs * 255).round() / 255
    examples.labels[:] = 0
    box = Box(norm="linf", levels=255)
    found = attack(Square(epsilon=0.4 / 255), rows_asked, examples, 50, domain=box, quantize="8bit")
    assert (rows_asked.rows, found[0].stopped) == (0, "start_not_found")


@BOXES
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
def test_an_example_asks_the_same_alone_and_in_any_company(box: Box, shape: tuple[int, ...]) -> None:
    options: dict[str, Any] = {"epsilon": 0.1 if box.norm == "linf" else 0.5}
    alone = [_rows(Recording(shape), box, 60, indices=(i,), **options) for i in range(5)]
    for order, group, max_batch in (((4, 2, 0, 1, 3), 5, 7), ((0, 3, 1, 4, 2), 2, 64)):
        target = Recording(shape)
        examples = examples_of(target, 5)
        found = attack(
            Square(**options), target, examples, 60, indices=order, group=group, max_batch=max_batch, domain=box
        )
        for i in range(5):
            assert found[i].bits() == alone[i][2][i].bits()
        apart = torch.cat([rows for rows, _, _ in alone]).flatten(1)
        together = torch.stack(target.given).flatten(1)
        assert sorted(map(tuple, apart.tolist())) == sorted(map(tuple, together.tolist()))


def test_the_linf_start_is_vertical_stripes_and_so_is_a_restart() -> None:
    rows, examples, _ = _rows(Stubborn((3, 9, 7)), LINF, 40, epsilon=0.1, restarts=2)
    low, high = LINF.linf_ball(examples.inputs[:1], 0.1)
    for number, row in enumerate(rows):
        assert bool(((row == low) | (row == high)).all())
        up = (row == high[0]).float()
        striped = bool((up == up[:, :1]).all())
        assert striped == (number in (0, 20)), number


def test_a_step_changes_one_square_of_an_earlier_row() -> None:
    """The best row is one of the earlier ones; late squares are single pixels."""
    rows, _, _ = _rows(Stubborn((3, 9, 9)), LINF, 300, epsilon=0.2)
    changed = [int((rows[n] != rows[:n]).any(1).flatten(1).sum(1).min()) for n in range(250, 300)]
    assert max(changed) <= 2 and changed.count(1) >= 45


# --- success -----------------------------------------------------------------------------------------------------


@BOXES
@pytest.mark.parametrize("targeted", [False, True])
def test_success_ends_an_example_and_not_the_others(box: Box, targeted: bool) -> None:
    epsilon = (0.18 if box.norm == "linf" else 1.6) * (1.4 if targeted else 1.0)
    target = Recording()
    examples = examples_of(target, 12)
    found = attack(Square(epsilon=epsilon), target, examples, 150, domain=box, targeted=targeted)
    assert target.rows == sum(o.spent for o in found.values())
    done = [i for i, o in found.items() if o.stopped == "success"]
    assert len(done) >= 4 and len({found[i].spent for i in done}) > 2
    for i, outcome in found.items():
        label = int(target.answer(outcome.best[None]).argmax())
        if i not in done:
            assert (outcome.stopped, outcome.spent, outcome.trace) == ("budget", 150, ())
            continue
        assert outcome.distance <= epsilon and outcome.spent < 150
        assert outcome.trace == ((outcome.spent, outcome.distance),), "the first adversarial row was the last one asked"
        assert label == int(examples.others[i]) if targeted else label != int(examples.labels[i])


def test_a_refused_or_cut_off_row_is_no_improvement() -> None:
    class Shy(Stubborn):
        refuses = True

        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.full((len(rows), CLASSES), torch.nan)

    rows, _, found = _rows(Shy(), LINF, 30, epsilon=0.3)
    assert (found[0].stopped, found[0].spent, found[0].trace) == ("budget", 30, ())
    assert len(rows.flatten(1).unique(dim=0)) == 30

    class Choosy(Recording):
        refuses = True

        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            refused = (rows.flatten(1) * 1e4).long().sum(1) % 3 == 0
            return super().answer(rows).masked_fill(refused[:, None], torch.nan)

    target = Choosy()
    found = attack(Square(epsilon=0.25), target, examples_of(Quadratic(), 8), 200, domain=LINF)
    assert sum(o.stopped == "success" for o in found.values()) >= 6
    for outcome in found.values():
        if outcome.trace:
            assert bool(target.answer(outcome.best[None]).isfinite().all())


def test_labels_only_and_flat_inputs_are_refused_in_one_line() -> None:
    target = Quadratic(access="labels")
    with pytest.raises(UsageError, match="needs scores"):
        attack("square", target, examples_of(target, 1), 5)
    flat = Quadratic((20,))
    with pytest.raises(UsageError, match=r"\(20,\)"):
        attack("square", flat, examples_of(flat, 1), 5)
    target = Quadratic()
    with pytest.raises(UsageError, match="untargeted"):
        attack(Square(loss="reverse"), target, examples_of(target, 1), 5, targeted=True)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"epsilon": -1}, "epsilon is -1"),
        ({"p_init": 0}, "p_init is 0"),
        ({"p_init": 1.5}, "p_init is 1.5"),
        ({"period": 0}, "period is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"loss": "hinge"}, "scale-free"),
    ],
)
def test_options_out_of_range(options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        make_attack("square", options)


# --- losses ------------------------------------------------------------------------------------------------------


def _logits(seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(9, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (9,), generator=generator)


@given(seed=st.integers(0, 500), targeted=st.booleans())
def test_the_margin_is_negative_where_the_goal_is_met_and_the_same_of_probabilities(seed: int, targeted: bool) -> None:
    logits, labels = _logits(seed)
    met = (logits.argmax(1) == labels) == targeted
    found = margin(logits, labels, targeted)
    assert torch.equal(found < 0, met)
    probabilities = logits.softmax(1).float()
    assert bool(are_probabilities(probabilities).all()) and not bool(are_probabilities(logits).any())
    again = as_logits(probabilities, are_probabilities(probabilities))
    assert torch.allclose(margin(again, labels, targeted), found, atol=1e-5)


@given(seed=st.integers(0, 500), scale=st.floats(1e-3, 1e3), shift=st.floats(-50, 50))
def test_scale_free_is_free_of_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    logits, labels = _logits(seed)
    assert torch.allclose(
        scale_free(logits * scale + shift, labels, False), scale_free(logits, labels, False), rtol=1e-6
    )
    tempered = (logits / 7).softmax(1)
    again = as_logits(tempered, are_probabilities(tempered))
    assert torch.allclose(scale_free(again, labels, False), scale_free(logits, labels, False), rtol=1e-6)


def test_masked_and_equal_scores_give_a_finite_scale_free_loss() -> None:
    logits = torch.tensor([[1.0, 0.0, -torch.inf], [2.0, 2.0, 2.0]], dtype=torch.float64)
    assert scale_free(logits, torch.tensor([0, 1]), False).tolist() == [2.0, 0.0]


@given(strength=st.floats(0.05, 1), interval=st.floats(0.5, 8))
@settings(max_examples=30)
def test_reverse_undoes_aaa_at_any_strength(strength: float, interval: float) -> None:
    margins = torch.linspace(0.01, 20, 400, dtype=torch.float64)
    seen = AAA(interval=interval, strength=strength).reversed_margin(margins)
    ordered = reflected(seen, interval)
    edge = ((margins / interval) % 1).sub(0.5).abs() > 0.499
    assert bool((ordered[~edge].diff() > 0).all())
    assert not bool((seen.diff() > 0).all())


def test_each_loss_beats_the_margin_where_it_should() -> None:
    """Queries to break the same images behind a defense that the loss was made for."""

    class Scaling(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            factor = 10.0 ** ((rows.flatten(1) * 1e5).long().sum(1) % 5)
            return super().answer(rows) * factor[:, None]

    plain = Quadratic()
    examples = examples_of(plain, 8)
    spent = {}
    for loss in ("margin", "scale-free"):
        found = attack(Square(epsilon=0.3, loss=loss), Scaling(), examples, 150, domain=LINF)
        spent[loss] = sum(o.spent for o in found.values())
    assert spent["scale-free"] < 0.8 * spent["margin"], spent

    class Small(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            return super().answer(rows) * 2.0**-40  # margins of a few units

    defended = AAA(interval=4.0).wrap(Small())
    for loss in ("margin", "reverse"):
        found = attack(Square(epsilon=0.3, loss=loss), defended, examples, 150, domain=LINF)
        spent[loss] = sum(o.spent for o in found.values())
    assert spent["reverse"] < 0.5 * spent["margin"], spent


# --- windows -----------------------------------------------------------------------------------------------------


def test_the_bump_of_three() -> None:
    """By hand: centre 1 + 1/4, ring 1/4; the upper half is one row, the lower two, each of norm 1/sqrt(2)."""
    upper = torch.tensor([0.25, 1.25, 0.25], dtype=torch.float64)
    lower = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]], dtype=torch.float64)
    expected = torch.cat([(upper / upper.norm())[None], -lower / lower.norm()]) / 2**0.5
    assert torch.allclose(bump(3), expected)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 9, 44])
def test_bumps_have_norm_one_and_fall_off_from_two_centres(side: int) -> None:
    eta = bump(side)
    assert float(eta.norm()) == pytest.approx(1)
    assert bool((eta[: side // 2] > 0).all()) and bool((eta[side // 2 :] < 0).all())
    if side > 4:
        assert eta.argmax() == (side // 2 // 2) * side + side // 2


def test_the_schedule_is_scaled_to_the_budget() -> None:
    for steps in (500, 10_000):
        sides = [side_of(0.8, step, steps, 28, 28) for step in range(steps)]
        assert sides == sorted(sides, reverse=True)
        assert (sides[0], sides[steps // 100], sides[-1]) == (25, 13, 1)
    assert side_of(1.0, 0, 10, 4, 4) == 3
    assert side_of(1.0, 0, 10, 1, 1) == 1
