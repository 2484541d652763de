"""ALERT: natural renaming attacks on models of code (Yang, Shi, He, Lo; ICSE 2022; arXiv 2201.08698)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch

from bbox.attacks.alert.bandit import Bandit
from bbox.attacks.alert.beam import Beam
from bbox.attacks.alert.driver import Example, together
from bbox.attacks.alert.genetic import Genetic
from bbox.attacks.alert.greedy import Greedy, Importance
from bbox.attacks.alert.labels import Labels
from bbox.attacks.alert.mhm import MHM
from bbox.attacks.alert.objective import Objective
from bbox.attacks.alert.prune import prune
from bbox.attacks.alert.space import Choice, Search, Searcher, Space
from bbox.attacks.base import Attack, Problem, Run
from bbox.code.site import site_of
from bbox.code.substitutes import Corpus, Provider, load_provider
from bbox.errors import UsageError
from bbox.problem import Pool

__all__ = ["Alert"]

SearchName = Literal["bandit", "greedy", "genetic", "mhm", "mhm-released", "beam", "labels"]


@dataclass(frozen=True)
class Alert(Attack):
    """Rename identifiers, by safe renames to natural names, until the class changes; then rename as few as possible.

    Args:
        search: bandit (default); greedy = Greedy-Attack; genetic = Greedy-Attack, then GA-Attack (the paper's); mhm =
            Metropolis-Hastings, mhm-released = as its released code behaves; beam; labels = for targets that
            answer labels only (experimental).
        substitutes: provider of new names, for example corpus, mlm:PATH, file:PATH.jsonl.
        candidates: most new names for an identifier, 0 = all.
        objective: margin (log-odds) or probability (the paper's).
        prune: take back, after success, the renames that are not needed.
        functions: rename also what the program itself defines: functions, methods, variables of the module level.
        max_renames: most identifiers renamed at once, 0 = any number.
        pull: rows a step, for bandit and labels.
        moves: most identifiers in which a row of bandit differs from the best one so far.
        importance: how greedy and genetic order identifiers: each occurrence masked, each name masked, or none.
        children: of a generation, for genetic.
        width: of the beam.

    Queries: an identical program is asked once; the bound of each search stands with its class.
    """

    search: SearchName = "bandit"
    substitutes: str = "corpus"
    candidates: int = 0
    objective: Objective = "margin"
    prune: bool = True
    functions: bool = False
    max_renames: int = 0
    pull: int = 4
    moves: int = 3
    importance: Importance = "occurrence"
    children: int = 64
    width: int = 2
    _provider: Provider | None = field(default=None, init=False, repr=False, compare=False)

    takes: ClassVar = "code"
    access: ClassVar = "scores"
    norms: ClassVar[tuple[str, ...]] = ("names",)
    summary: ClassVar[str] = "natural renaming of identifiers in code, score-based (ALERT, ICSE 2022)"
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"search": "genetic", "objective": "probability", "prune": False},
    }

    def __post_init__(self) -> None:
        for name, least in (
            ("candidates", 0),
            ("max_renames", 0),
            ("pull", 1),
            ("moves", 1),
            ("children", 1),
            ("width", 1),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.search == "labels":
            object.__setattr__(self, "access", "label")

    def searcher(self) -> Searcher:
        """The search that the options name."""
        made: dict[SearchName, Any] = {
            "bandit": lambda: Bandit(self.pull, self.moves),
            "greedy": lambda: Greedy(self.importance),
            "genetic": lambda: Genetic(self.children, importance=self.importance),
            "mhm": lambda: MHM(objective=self.objective),
            "mhm-released": lambda: MHM(objective=self.objective, released=True),
            "beam": lambda: Beam(self.width),
            "labels": lambda: Labels(self.pull),
        }
        found: Searcher = made[self.search]()
        return found

    def ready(self, pool: Pool | None, device: torch.device) -> None:
        corpus = None if pool is None else Corpus(pool.inputs, pool.labels)
        gpu = device if device.type == "cuda" else None  # a target on the CPU does not keep a language model there
        object.__setattr__(self, "_provider", load_provider(self.substitutes, corpus=corpus, device=gpu))

    def run(self, problem: Problem) -> Run:
        if self._provider is None:
            self.ready(problem.pool, torch.device("cpu"))
        provider, goal = cast("Provider", self._provider), problem.goal
        examples = []
        parts = zip(problem.programs, goal.labels.tolist(), problem.keys.tolist(), strict=True)
        for number, (program, label, key) in enumerate(parts):
            site = site_of(program, functions=self.functions)
            if not site.bindings:
                problem.stop(number, "no_identifiers")
            role = {"wanted": label} if goal.targeted else {"avoid": label}
            names = provider.suggest(site, **role)
            space = Space.of(site, names, limit=self.candidates, max_renames=self.max_renames)
            examples.append(Example(space, self._search(space, np.random.default_rng(key % 2**64), goal.targeted)))
        yield from together(problem, examples, self.objective)
        problem.finish(float("inf"))
        for number in problem.remaining().nonzero()[:, 0].tolist():
            problem.stop(number, "converged")  # no name is left to try

    def _search(self, space: Space, rng: np.random.Generator, targeted: bool) -> Search[Choice | None]:
        if targeted and (yield [space.identity])[0].adversarial:
            return space.identity  # it is of that class already
        found = yield from self.searcher().run(space, rng)
        if found is not None and self.prune:
            return (yield from prune(space, found))
        return found
