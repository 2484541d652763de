"""CGBA and CGBA-H: the geometry of the paper, the box, and runs that only ever get closer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbox.attacks import CGBA, CGBAH, make_attack
from bbox.attacks.cgba import _Walk
from bbox.domain import Box
from bbox.engine import Problem
from bbox.goal import Goal
from bbox.oracle import Oracle
from bbox.zo import FullSpace, root_keys
from tests.toys import Examples, Quadratic, attack, examples_of, row_hash

KINDS = [("cgba", {}), ("cgba-h", {}), ("cgba", {"preset": "paper"}), ("cgba-h", {"preset": "paper"})]


class _Wide(Box):
    """No bounds, so that the pure geometry can be looked at."""

    def clip(self, rows: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        return rows


def _walk(origin: torch.Tensor, point: torch.Tensor, normal: torch.Tensor, domain: Box | None = None) -> _Walk:
    n, dim = origin.shape
    problem = Problem(
        originals=origin.view(n, 1, 1, dim),
        goal=Goal(torch.zeros(n, dtype=torch.int64)),
        domain=domain or _Wide(),
        keys=root_keys(0, torch.arange(n)),
        budget=10,
        remaining=lambda: torch.full((n,), 10),
    )
    walk = _Walk(problem, FullSpace((1, 1, dim)), point.view(n, 1, 1, dim), torch.arange(n), 0.03)
    walk.set_normal(normal.double())
    return walk


def _random_walk(seed: int, n: int = 6, dim: int = 9) -> tuple[_Walk, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origin, point, normal = torch.randn(3, n, dim, generator=generator)
    return _walk(origin, point, normal), origin.double(), point.double(), normal.double()


# --- geometry ----------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), phi=st.floats(0, math.pi / 2))
def test_x_of_phi_lies_on_the_sphere_with_diameter_x_b_in_the_plane_of_the_normal(seed: int, phi: float) -> None:
    walk, origin, point, normal = _random_walk(seed)
    n = len(walk)
    rows = walk.on_circle(torch.arange(n), torch.full((n,), phi, dtype=torch.float64)).view(n, -1).double()
    d = (point - origin).norm(dim=1)
    centre = (point + origin) / 2
    assert torch.allclose((rows - centre).norm(dim=1), d / 2, rtol=1e-5)
    assert torch.allclose((rows - origin).norm(dim=1), d * math.cos(phi), atol=1e-5 * float(d.max()))
    # Thales: from every point of the semicircle, x and b are seen at a right angle.
    assert (((rows - origin) * (rows - point)).sum(1).abs() < 1e-5 * d.square()).all()
    # In the plane spanned by v and the normal, on the normal's side.
    offset = rows - origin
    plane = torch.linalg.qr(torch.stack([point - origin, normal], 2))[0]
    inside = (plane @ (plane.transpose(1, 2) @ offset[:, :, None]))[:, :, 0]
    assert torch.allclose(inside, offset, atol=2e-5 * float(d.max()))
    assert ((offset * walk.u.view(n, -1).double()).sum(1) >= -1e-5).all()


def test_the_ends_of_the_semicircle() -> None:
    walk, origin, point, _ = _random_walk(3)
    everyone = torch.arange(len(walk))
    start = walk.on_circle(everyone, torch.zeros(6, dtype=torch.float64)).view(6, -1).double()
    end = walk.on_circle(everyone, torch.full((6,), math.pi / 2, dtype=torch.float64)).view(6, -1).double()
    assert torch.allclose(start, point, atol=1e-5)
    assert torch.allclose(end, origin, atol=1e-5)


@given(seed=st.integers(0, 1000), phi=st.floats(0.02, math.pi / 2 - 0.02))
def test_the_closed_form_is_the_papers_zeta(seed: int, phi: float) -> None:
    """The public code walks along zeta = (eta + m v)/|.|, m = sin(theta) cot(phi) - cos(theta), theta = angle(eta, v),
    and takes the distance d cos(phi); our closed form has no acos and is the same point."""
    walk, origin, point, eta = _random_walk(seed)
    eta = torch.nn.functional.normalize(eta)
    v = torch.nn.functional.normalize(point - origin)
    d = (point - origin).norm(dim=1, keepdim=True)
    theta = torch.acos((eta * v).sum(1, keepdim=True))
    m = theta.sin() * (math.cos(phi) / math.sin(phi)) - theta.cos()
    zeta = torch.nn.functional.normalize(eta + m * v)
    expected = origin + d * math.cos(phi) * zeta
    found = walk.on_circle(torch.arange(6), torch.full((6,), phi, dtype=torch.float64)).view(6, -1).double()
    assert torch.allclose(found, expected, atol=1e-4 * float(d.max()))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_normal_along_v_leaves_no_direction_and_no_nan(sign: float) -> None:
    """The public code takes the acos of more than 1 here."""
    generator = torch.Generator().manual_seed(0)
    origin, point = torch.randn(2, 4, 9, generator=generator)
    walk = _walk(origin, point, sign * (point - origin))
    length = walk.set_normal((sign * (point - origin)).double())
    assert (length < 1e-5).all()
    rows = walk.on_circle(torch.arange(4), torch.full((4,), 0.5, dtype=torch.float64))
    assert torch.isfinite(rows).all()


def test_the_circle_is_clipped_to_the_box() -> None:
    walk = _walk(torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([[-9.0, 1.0, 1.0, 1.0]]), Box())
    rows = walk.on_circle(torch.tensor([0]), torch.tensor([0.6], dtype=torch.float64))
    assert float(rows.min()) >= 0 and float(rows.max()) <= 1
    assert walk._measure() is None


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_distance_falls_and_every_query_lies_in_the_box(kind: tuple[str, dict], targeted: bool) -> None:
    class Fenced(Quadratic):
        lowest, highest = 0.0, 1.0

        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            self.lowest, self.highest = (
                min(self.lowest, float(rows.min())),
                max(self.highest, float(rows.max())),
            )
            return super().answer(rows)

    target = Fenced((3, 9, 7))
    examples = examples_of(target, 4)
    examples.inputs[:, :, :3] = examples.inputs[:, :, :3].round()  # pixels at the bounds
    examples = Examples(examples.inputs, target.answer(examples.inputs).argmax(1))
    name, options = kind
    found = attack(name, target, examples, 500, targeted=targeted, options=options, pool=True)
    assert (target.lowest, target.highest) == (0.0, 1.0)
    for i, outcome in found.items():
        distances = [d for _, d in outcome.trace]
        assert distances == sorted(distances, reverse=True)
        assert len(set(distances)) == len(distances) > 3
        # The published step stalls where pixels are saturated and the box is kept.
        assert outcome.distance < (0.95 if options else 0.8) * distances[0], "a walk, not only a start"
        label = int(target.answer(outcome.best[None]).argmax())
        assert label == int(examples.others[i]) if targeted else label != int(examples.labels[i])


@pytest.mark.parametrize("cls", [CGBA, CGBAH])
def test_the_walk_reaches_a_known_optimum(cls: type) -> None:
    """A half space through a smooth direction: the nearest adversarial point is known exactly."""
    normal = torch.ones(1, 8, 8) / 8

    class HalfSpace(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            side = (rows.double() * normal).flatten(1).sum(1) - 4.5
            return torch.stack([-side, side], 1).float()

    target = HalfSpace()
    inputs = 0.5 + 0.05 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    examples = Examples(inputs, torch.zeros(3, dtype=torch.int64))
    best = 4.5 - (inputs.double() * normal).flatten(1).sum(1)
    found = attack(cls(), target, examples, 800, starts=torch.ones_like(inputs))
    for i, outcome in found.items():
        assert float(best[i]) * 0.999 <= outcome.distance <= 1.05 * float(best[i])


@pytest.mark.parametrize("targeted", [False, True])
def test_a_given_start_costs_one_query_and_is_used(targeted: bool) -> None:
    target = Quadratic()
    examples = examples_of(target, 3)
    goal = examples.others if targeted else (examples.labels + 2) % 4
    starts = target.centres[goal]
    found = attack("cgba", target, examples, 40, starts=starts, targeted=targeted)
    for i, outcome in found.items():
        first = outcome.trace[0]
        assert first[0] == 1
        assert first[1] == pytest.approx(float((starts[i] - examples.inputs[i]).double().norm()), rel=1e-6)
    assert [row_hash(row) for row in starts] == target.seen[:3]


def test_a_start_that_is_not_adversarial_is_an_outcome() -> None:
    target = Quadratic()
    examples = examples_of(target, 2)
    found = attack("cgba", target, examples, 40, starts=examples.inputs, options={"start": "image"})
    assert {(o.stopped, o.spent) for o in found.values()} == {("start_not_found", 1)}


def test_a_start_that_fails_falls_back_to_the_pool() -> None:
    target = Quadratic()
    examples = examples_of(target, 8)
    found = attack("cgba", target, examples, 60, starts=examples.inputs, pool=True)
    assert {o.stopped for o in found.values()} == {"budget"}


@pytest.mark.parametrize("start", ["noise", "pool", "auto"])
def test_start_kinds(start: str) -> None:
    target = Quadratic()
    examples = examples_of(target, 8)
    found = attack("cgba", target, examples, 60, pool=True, options={"start": start})
    assert all(o.trace for o in found.values())
    asked = set(target.seen)
    from_pool = any(row_hash(row) in asked for row in examples.inputs)
    assert from_pool == (start == "pool")


@pytest.mark.parametrize("start", ["noise", "auto"])
def test_noise_in_the_full_space_is_the_last_resort(start: str) -> None:
    """A class that coarse noise cannot leave: it is decided by the finest checkerboard alone."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1

    class Checkers(Quadratic):
        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            side = (rows.double() * board).flatten(1).sum(1) - 3
            return torch.stack([-side, side], 1).float()

    target = Checkers()
    examples = Examples(torch.full((3, 1, 8, 8), 0.5), torch.zeros(3, dtype=torch.int64))
    found = attack("cgba", target, examples, 200, options={"start": start})
    assert all(o.trace and o.trace[0][0] > 10 for o in found.values())


def test_the_pool_start_is_the_best_of_its_candidates() -> None:
    """More candidates cost more queries and never start further away."""
    target = Quadratic()
    examples = examples_of(target, 16)
    starts = {}
    for candidates in (1, 4):
        options = {"start": "pool", "start_candidates": candidates}
        found = attack("cgba", target, examples, 13 * candidates, options=options, targeted=True)
        starts[candidates] = [o.distance for o in found.values()]
    assert all(many <= one * 1.02 for one, many in zip(starts[1], starts[4], strict=True))
    assert any(many < 0.98 * one for one, many in zip(starts[1], starts[4], strict=True))


def test_targeted_without_any_start_is_an_outcome() -> None:
    target = Quadratic()
    examples = examples_of(target, 1)  # its pool holds no image of another class
    found = attack("cgba-h", target, examples, 50, targeted=True)
    assert (found[0].stopped, found[0].spent) == ("start_not_found", 0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_8_bit_rows_lie_on_the_grid_and_the_walk_still_works(kind: tuple[str, dict]) -> None:
    levels = torch.arange(256, dtype=torch.float32) / 255

    class Grid(Quadratic):
        off = 0

        def answer(self, rows: torch.Tensor) -> torch.Tensor:
            self.off += int((~torch.isin(rows, levels)).sum())
            return super().answer(rows)

    target = Grid((3, 9, 7))
    examples = examples_of(target, 3)
    target.off = 0
    name, options = kind
    found = attack(name, target, examples, 400, quantize="8bit", options=options)
    assert target.off == 0
    assert all(torch.isin(o.best, levels).all() for o in found.values())
    if not options:
        free = attack(name, target, examples, 400, options=options)
        assert all(found[i].distance < 1.25 * free[i].distance for i in free), "8 bits cost little"


# --- options -----------------------------------------------------------------------------------------------------


def test_presets_are_the_published_constants_and_can_be_overridden() -> None:
    paper: Any = make_attack("cgba", {"preset": "paper"})
    assert (paper.initial_queries, paper.subspace_factor) == (30, 4.0)
    assert paper.absolute_step == pytest.approx(2e-4 * 0.226)
    assert (paper.tangent, paper.center, paper.steer) == (False, False, False)
    mixed: Any = make_attack("cgba-h", {"preset": "paper", "initial_queries": "10"})
    assert (mixed.initial_queries, mixed.tangent) == (10, False)
    assert isinstance(mixed, CGBAH)


def test_the_schedule_of_the_paper() -> None:
    """Iteration t asks int(N0 sqrt(t)) signs: whole forwards of that size with one example."""
    target = Quadratic()
    attack("cgba", target, examples_of(target, 1), 400, max_batch=1000, options={"preset": "paper"})
    large = [size for size in target.batches if size > 1]
    assert large[:4] == [30, 42, 51, 60]


def test_an_oracle_that_only_gives_labels_is_enough() -> None:
    scores, labels = Quadratic(), Quadratic(access="labels")
    examples = examples_of(scores, 2)
    first = attack("cgba", scores, examples, 100)
    second = attack("cgba", labels, examples, 100, oracle=Oracle(labels, max_batch=16))
    assert {i: o.bits() for i, o in first.items()} == {i: o.bits() for i, o in second.items()}
