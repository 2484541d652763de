"""Each search alone: finds what is there, ends where nothing is, and does what its paper says."""

import itertools

import numpy as np
import pytest

from bbox.attacks.alert.bandit import Bandit
from bbox.attacks.alert.beam import Beam, by_statement
from bbox.attacks.alert.genetic import Genetic
from bbox.attacks.alert.greedy import Greedy
from bbox.attacks.alert.labels import Labels
from bbox.attacks.alert.mhm import MHM
from bbox.attacks.alert.prune import prune
from bbox.attacks.alert.space import Choice, Mask, Search, Searcher, Space
from tests.attacks.alert.spaces import NAMES, Victim, space

SEARCHES = [Bandit(), Greedy(), Genetic(children=8), MHM(), MHM(released=True), Beam(), Labels()]
SCORED = [Bandit(), Greedy(), Genetic(children=8), MHM(), Beam()]


def _sum(choice: Choice) -> float:
    """In (0, 1): each slot's last candidate is its best, and only all three of the best are below 0.28."""
    return 0.9 - 0.042 * sum(choice) - 0.001 * choice[0]


def _seeded(search: Searcher, here: Space, seed: int = 0) -> Search[Choice | None]:
    return search.run(here, np.random.default_rng(seed))


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: f"{type(search).__name__}")
def test_a_search_returns_the_row_that_was_adversarial(search: Searcher) -> None:
    here = space()
    victim = Victim(here, _sum, below=0.5)
    found = victim.run(_seeded(search, here))
    if isinstance(search, MHM) and search.released and found is None:
        return
    assert found in victim.asked and found is not None and _sum(found) < 0.5


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: f"{type(search).__name__}")
def test_a_search_ends_where_there_is_nothing_to_find(search: Searcher) -> None:
    here = space()
    assert Victim(here, lambda choice: 1.0, below=0.0).run(_seeded(search, here)) is None
    bare = Space.of(here.site, [[], [], []])
    assert Victim(bare, lambda choice: 1.0).run(_seeded(search, bare)) is None


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: f"{type(search).__name__}")
def test_refused_rows_are_never_built_upon(search: Searcher) -> None:
    here = space()
    victim = Victim(here, lambda choice: np.inf if choice[0] else _sum(choice), below=-1.0)
    assert victim.run(_seeded(search, here)) is None


@pytest.mark.parametrize("search", SCORED, ids=lambda search: f"{type(search).__name__}")
def test_the_same_seed_asks_the_same(search: Searcher) -> None:
    asked = []
    for _ in range(2):
        victim = Victim(space(), _sum, below=0.33)
        victim.run(_seeded(search, victim.space))
        asked.append(victim.asked)
    assert asked[0] == asked[1]


def test_the_bandit_asks_no_row_twice_and_exhausts_a_small_space() -> None:
    here = space()
    victim = Victim(here, _sum, below=-1.0)
    assert victim.run(_seeded(Bandit(), here)) is None
    assert len(set(victim.asked)) == len(victim.asked)
    every = [c for c in itertools.product(range(len(NAMES) + 1), repeat=3) if here.allows(c)]
    assert len(victim.asked) > 0.8 * len(every)


def test_the_bandit_finds_the_best_choice_in_fewer_rows_than_chance() -> None:
    here = space()
    target = min((c for c in itertools.product(range(6), repeat=3) if here.allows(c)), key=_sum)
    asked = []
    for seed in range(10):
        victim = Victim(here, _sum, below=_sum(target) + 1e-9)
        found = victim.run(_seeded(Bandit(), here, seed))
        assert found is not None and _sum(found) == pytest.approx(_sum(target))
        asked.append(len(victim.asked))
    assert np.median(asked) < 40, "chance needs half of the 136 rows"


def test_greedy_masks_every_occurrence_then_takes_the_most_important_first() -> None:
    here = space()
    victim = Victim(here, _sum, below=-1.0)
    victim.run(_seeded(Greedy(), here))
    occurrences = sum(len(slot.occurrences) for slot in here.slots)
    assert victim.asked[0] == here.identity
    assert victim.asked[1 : 1 + occurrences] == [
        Mask(s, o) for s in range(3) for o in range(len(here.slots[s].occurrences))
    ]
    first = victim.asked[1 + occurrences : 1 + occurrences + len(NAMES)]
    assert first == [(0, 0, gene) for gene in range(1, 6)], "the last slot loses 2 per occurrence, so it is first"
    assert victim.asked[1 + occurrences + len(NAMES)][2] == 5, "and its best candidate is kept"  # type: ignore[index]


@pytest.mark.parametrize(("importance", "masks"), [("name", 3), ("none", 0)])
def test_importance_may_cost_less(importance: str, masks: int) -> None:
    victim = Victim(space(), _sum, below=-1.0)
    victim.run(_seeded(Greedy(importance), victim.space))  # type: ignore[arg-type]
    assert sum(isinstance(row, Mask) for row in victim.asked) == masks


@pytest.mark.parametrize("released", [False, True])
def test_mhm_accepts_the_best_candidate_and_the_released_code_the_last(released: bool) -> None:
    site = space().site
    here = Space.of(site, [NAMES, [], []])  # one slot, so that each iteration starts from what was accepted
    victim = Victim(here, lambda choice: 0.9 - 0.01 * choice[0], below=-1.0)
    search = MHM(iterations=2, released=released).run(here, np.random.default_rng(3))
    next(search)
    first = list(search.send([victim.answer(here.identity)]))
    best, last = (5,), first[-1]
    assert last != best, "the seed tells the two apart"
    second = search.send([victim.answer(row) for row in first])
    missing = set(first) - set(second)  # the accepted row is not asked again
    assert missing == {last if released else best}


def test_conditions_come_first_in_the_beam() -> None:
    assert by_statement(space())[0] == 2, "only total stands in an if"


def test_max_renames_holds_in_every_search() -> None:
    for search in SEARCHES:
        here = space(max_renames=1)
        victim = Victim(here, _sum, below=-1.0)
        victim.run(_seeded(search, here))
        assert all(isinstance(row, Mask) or sum(map(bool, row)) <= 1 for row in victim.asked)


@pytest.mark.parametrize("needed", [{0}, {1, 2}, {0, 1, 2}])
def test_pruning_leaves_only_what_is_needed(needed: set[int]) -> None:
    here = space()
    victim = Victim(here, lambda choice: -1.0 if all(choice[slot] for slot in needed) else 1.0)
    kept = victim.run(prune(here, (1, 2, 3)))
    assert kept is not None and {slot for slot, gene in enumerate(kept) if gene} == needed
    assert len(victim.asked) <= 8
