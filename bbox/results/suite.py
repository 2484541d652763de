"""Several attacks on one target and one data set, each an ordinary run in a folder of its own.

run.json     what kind of suite it is, what was asked, fingerprints
ATTACK/      the run folder of an attack

Killed at any moment, it can go on: a finished run is not asked again, an unfinished one is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from bbox import data as data_module
from bbox.attacks import make_attack
from bbox.attacks.options import takes
from bbox.data.base import Examples
from bbox.errors import InputError, UsageError
from bbox.results.costs import total_ledger
from bbox.results.matrix import cell_folder
from bbox.results.matrix_figures import finished
from bbox.results.matrix_plan import columns_of, read_attack, slug
from bbox.results.metrics import default_epsilons
from bbox.results.plain_folder import PlainFolder
from bbox.results.plan import Plan, prepare
from bbox.results.records import Config
from bbox.results.run import Progress, execute
from bbox.results.session import describe_data, describe_machine, load_target
from bbox.results.store import RunFolder
from bbox.targets.base import Target

__all__ = [
    "Part",
    "SuiteFolder",
    "Watch",
    "describe_suite",
    "execute_suite",
    "load_suite",
    "plan_parts",
    "selected",
    "spent",
]


@dataclass(frozen=True)
class Part:
    """One attack of a suite.

    Attributes:
        name: as it was given, such as ``square:p-init=0.3``; folder: its run folder within the suite's.
        config: everything it depends on, epsilons and checkpoints resolved.
    """

    name: str
    folder: str
    config: Config

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "folder": self.folder, "config": self.config.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(str(data["name"]), str(data["folder"]), Config.from_json(data["config"]))


Watch = Callable[[Part], AbstractContextManager[Callable[[Progress], None]]]


class SuiteFolder(PlainFolder):
    """The folder of a suite; ``parts`` in its run.json says what it runs."""

    kind: ClassVar[str] = "suite"
    noun: ClassVar[str] = "suite"

    def check(self) -> None:
        self.parts()

    def parts(self) -> tuple[Part, ...]:
        return tuple(Part.from_json(part) for part in self.run()["parts"])

    def same(self, target: Target, data: Examples) -> None:
        """Refuse to go on with another target or other data than the suite began with.

        Raises:
            InputError: a fingerprint differs.
        """
        run = self.run()
        for what, key, now in (
            (target.name, "target", target.fingerprint()),
            (data.name, "data", data.fingerprint()),
        ):
            if run[key]["fingerprint"] != now:
                raise InputError(f"{what} has changed since {self.path} began; start a new {self.noun}")


def plan_parts(attacks: Sequence[str], config: Config, data: Examples) -> tuple[Part, ...]:
    """One part an attack; an attack within one distance (square) has one for each epsilon. Asks nothing.

    Args:
        attacks: names with options, such as ``"square:p-init=0.3"``; config: everything else.

    Raises:
        UsageError: a name, an option or a norm that does not fit, or an attack given twice.
    """
    if not attacks:
        raise UsageError("name at least one attack, for example: --attack cgba")
    if max(config.checkpoints, default=0) > config.budget:
        raise UsageError(f"checkpoint {max(config.checkpoints)} is beyond the budget of {config.budget} queries")
    parts: list[Part] = []
    taken: set[str] = set()
    for text in attacks:
        if attacks.count(text) > 1:
            raise UsageError(f"--attack {text} is given twice")
        code = takes(read_attack(text)[0]) == "code"
        norm = "names" if code and config.norm == "l2" else config.norm  # l2 is the default, of images
        epsilons = config.epsilons or default_epsilons(data.inputs.shape[1:], norm)
        whole = replace(config, norm=norm, epsilons=tuple(epsilons), checkpoints=config.checkpoints or (config.budget,))
        for cell in columns_of(text, whole):
            own = replace(whole, attack=cell.name, attack_options=cell.options, epsilons=cell.epsilons)
            parts.append(Part(cell.attack, slug(cell.attack, taken), own))
    return tuple(parts)


def load_suite(config: Config, target: Target | None = None, data: Examples | None = None) -> tuple[Target, Examples]:
    """The target and the examples that are given, or those that a config names. Asks nothing.

    Raises:
        UsageError: the data has no labels, so that there is no accuracy; or as ``bbox.targets.load`` says.
        InputError: as ``bbox.targets.load`` and ``bbox.data.load`` say.
    """
    if target is not None and data is not None:
        return target, data
    target = load_target(config)
    labels = None if config.labels is None else Path(config.labels)
    found: Examples = data_module.load(config.data, size=config.image_size, labels=labels)
    if found.labels is None:
        raise UsageError(f"{config.data} has no labels, and accuracy needs them; give --labels")
    return target, found


def selected(config: Config, data: Examples) -> Examples:
    """The examples that are attacked."""
    chosen: Examples = data.select(limit=config.limit, indices=config.indices)
    return chosen


def execute_suite(
    make: Callable[[], SuiteFolder],
    path: Path,
    parts: Sequence[Part],
    target: Target,
    data: Examples,
    *,
    command: str = "",
    threads: int | Literal["auto"] | None = None,
    watch: Watch | None = None,
) -> SuiteFolder:
    """Run the parts that are not finished. Everything is checked, by one row a part, before the folder is made.

    Args:
        make: opens or creates the folder at ``path``; threads: see ``bbox.results.run.execute``.
        watch: called for each part that runs; the context it gives is told of each forward.

    Raises:
        UsageError, InputError: a part does not fit the target or the data; nothing was made.
        TargetError: the target failed; the folder keeps what was answered.
    """
    todo = [part for part in parts if not finished(path / part.folder)]
    with ExitStack() as stack:
        plans, used = _prepare(todo, target, data, _requests(path, parts), stack)
        folder = make()
        for part, plan in zip(todo, plans, strict=True):
            if plan.purse is not None:  # the limit on requests is one of all parts
                plan.purse.used = used
            with (
                cell_folder(path / part.folder, plan, command) as run,
                watch(part) if watch else nullcontext() as report,
            ):
                execute(plan, run, on_progress=report, threads=threads)
            used = used if plan.purse is None else plan.purse.used
            threads = None if threads == "auto" else threads
    return folder


def _prepare(
    parts: Sequence[Part], target: Target, data: Examples, used: int, stack: ExitStack
) -> tuple[list[Plan], int]:
    """The plans, and how many requests are used now."""
    plans = []
    for part in parts:
        attack = make_attack(part.config.attack, part.config.attack_options)
        plan = prepare(part.config, attack, target.fresh(), data, used_requests=used)
        if plan.oracle.cache is not None:
            stack.callback(plan.oracle.cache.close)
        plan.oracle.terms.settle()
        used = used if plan.purse is None else plan.purse.used
        plans.append(plan)
    return plans, used


def _requests(path: Path, parts: Sequence[Part]) -> int:
    """Requests that earlier sessions have used: each run keeps the number of all until its end."""
    most = 0
    for part in parts:
        if (path / part.folder / "run.json").exists():
            with RunFolder.open(path / part.folder) as run:
                most = max(most, run.requests())
    return most


def describe_suite(kind: str, parts: Sequence[Part], target: Target, data: Examples, command: str) -> dict[str, Any]:
    """What the run.json of any suite says."""
    config = parts[0].config
    return {
        "kind": kind,
        "command": command,
        "parts": [part.to_json() for part in parts],
        "target": {"spec": target.name, "options": dict(config.target_options), "fingerprint": target.fingerprint()},
        "data": {
            "spec": data.name,
            **describe_data(selected(config, data)),
            "whole_fingerprint": data.fingerprint(),  # attacks start from examples that are not attacked, too
        },
        **describe_machine(target.device),
    }


def spent(path: Path, parts: Sequence[Part]) -> dict[str, int]:
    """Queries of all sessions of all parts, by purpose."""
    sessions: list[dict[str, Any]] = []
    for part in parts:
        with RunFolder.open(path / part.folder) as folder:
            sessions += folder.sessions()
    return {purpose: ledger["queries"] for purpose, ledger in sorted(total_ledger(sessions).items())}
