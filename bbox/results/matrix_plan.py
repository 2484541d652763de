"""Which runs make up a matrix of defenses and attacks: rows, columns, and the adaptive attacks that each row needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from bbox.attacks import WRAPPERS, attack_class, make_attack, split_wrapper
from bbox.attacks.options import describe
from bbox.defenses.base import Defense
from bbox.defenses.bundle import load_layers, parse_stack, wrap_all
from bbox.errors import InputError, UsageError
from bbox.options import option_fields
from bbox.results.records import Config
from bbox.targets.base import Target

__all__ = [
    "Cell",
    "Layers",
    "Request",
    "Row",
    "bundle_name",
    "columns_of",
    "plan_rows",
    "read_attack",
    "slug",
    "split_list",
]

Layers = Sequence[tuple[str, Defense]]

# Measured on the digits at 500 queries (docs/defense-matrix.md): the best of what was tried against input noise.
_LARGE_STEPS, _FEW = {"step": 0.3}, {"repeats": 3}
_RADIUS = "epsilon"  # the option of attacks that stay within one distance instead of minimising it


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        defenses: stacks such as ``jpeg+noise:sigma=0.05``; attacks: names such as ``cgba`` or ``square:p_init=0.3``.
        config: everything else: target, data, budget, epsilons (resolved), norm, seed.
    """

    defenses: tuple[str, ...]
    attacks: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class Cell:
    """One attack on one row: an ordinary run.

    Attributes:
        attack: as it is shown; name, options: as ``make_attack`` takes them.
        plain: the attack as it is shown without its adaptation: the cell of row ``none`` that it is compared with.
        adaptation: how it is adapted to the row; empty for the attack as it is.
        epsilons: the distances that it is judged at: for an attack within one distance, that alone.
        path: its run folder within the matrix's folder.
        reason: why it cannot run on this row; empty where it can.
    """

    attack: str
    name: str
    options: dict[str, Any]
    plain: str
    adaptation: str
    epsilons: tuple[float, ...]
    path: str
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One defense (a stack), with what its target says of itself.

    Attributes:
        folder: within the matrix's folder; it is the bundle of the stack, too.
    """

    name: str
    folder: str
    layers: tuple[str, ...] = ()
    access: str = "scores"
    refuses: bool = False
    deterministic: bool = True
    rows_per_query: int = 1
    cells: tuple[Cell, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        cells = tuple(Cell(**{**cell, "epsilons": tuple(cell["epsilons"])}) for cell in data["cells"])
        return cls(**{**data, "layers": tuple(data["layers"]), "cells": cells})


def bundle_name(path: Path) -> str:
    """The target spec of a row's bundle."""
    return f"defended:{path}"


def plan_rows(request: Request, bare: Target) -> tuple[tuple[Row, ...], dict[str, Layers]]:
    """The rows with their cells, and each row's layers. Asks nothing.

    Raises:
        UsageError: a name, option or norm that does not fit, or a defense that cannot be put around the target.
        InputError: a bundle that cannot be read, or one that was fitted to another black box.
    """
    if not request.defenses or not request.attacks:
        raise UsageError("name at least one defense and one attack, for example noise and cgba")
    columns = [column for text in request.attacks for column in columns_of(text, request.config)]
    _refuse_repeats("--evaluate", request.attacks)
    _refuse_repeats("the list of defenses", ("none", *request.defenses))
    layers: dict[str, Layers] = {"none": ()}
    layers |= {entry: _stack(entry, bare) for entry in request.defenses}
    taken: set[str] = set()
    rows = []
    for name, stack in layers.items():
        target = wrap_all(bare.fresh(), [defense for _, defense in stack])
        folder = slug(name, taken)
        rows.append(
            Row(
                name=name,
                folder=folder,
                layers=tuple(f"{layer}: {defense.describe()}" for layer, defense in stack),
                access=target.access,
                refuses=target.refuses,
                deterministic=target.deterministic,
                rows_per_query=target.rows_per_query,
                cells=tuple(_cells(folder, columns, stack, target)),
            )
        )
    if all(cell.reason for cell in rows[0].cells):
        raise UsageError(f"none of {', '.join(request.attacks)} can run on {bare.name}: {rows[0].cells[0].reason}")
    return tuple(rows), layers


def read_attack(text: str) -> tuple[str, dict[str, str]]:
    """An attack and its options from text.

    Example:
        >>> read_attack("average:foolbox:HopSkipJumpAttack:repeats=4")
        ('average:foolbox:HopSkipJumpAttack', {'repeats': '4'})
    """
    words = text.split(":")
    name = [word for word in words if "=" not in word]
    pairs = [word.partition("=") for word in words if "=" in word]
    return ":".join(name), {key.replace("-", "_"): value for key, _, value in pairs}


def split_list(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _stack(entry: str, bare: Target) -> Layers:
    first = entry.split("+")[0]
    if first.startswith("defended:"):
        fitted = load_layers(Path(first.removeprefix("defended:")))[0]
        if fitted["fingerprint"] != bare.fingerprint():
            raise InputError(f"{first} was fitted to {fitted['spec']}, not to {bare.name} as it is (fingerprints)")
    return parse_stack(entry)


def columns_of(text: str, config: Config) -> Iterator[Cell]:
    """The plain attacks of one entry of --evaluate; one for each epsilon where the attack stays within one."""
    name, options = read_attack(text)
    if _RADIUS in options:
        raise UsageError(f"{text!r}: give the distance as --epsilon, which the figures need too")
    fixed = _RADIUS in describe(name)[0]
    for epsilon in config.epsilons if fixed else (None,):
        shown = f"{text}@{epsilon:.4g}" if epsilon is not None and len(config.epsilons) > 1 else text
        given = options if epsilon is None else {**options, _RADIUS: epsilon}
        norms = make_attack(name, given).norms
        if config.norm not in norms:
            has = " and ".join(norms)
            raise UsageError(f"{text} minimises {has}, not {config.norm}; leave it out, or give --norm {norms[0]}")
        yield Cell(shown, name, given, shown, "", config.epsilons if epsilon is None else (epsilon,), path="")


def _cells(folder: str, columns: Sequence[Cell], stack: Layers, target: Target) -> Iterator[Cell]:
    """Each column as it is, and adapted to each layer that names an adaptation."""
    adaptations = dict.fromkeys(word for _, defense in stack for word in defense.adaptations)
    taken: set[str] = set()
    shown = {column.attack for column in columns}
    for column in columns:
        for cell in (column, *_adapted(column, tuple(adaptations))):
            if cell is not column and cell.attack in shown:
                continue
            made = make_attack(cell.name, cell.options)
            blind = made.access == "scores" and target.access == "labels"
            reason = f"{cell.attack} needs scores, and this target answers labels only" if blind else ""
            yield replace(cell, path=f"{folder}/{slug(cell.attack, taken)}", reason=reason)


def _adapted(column: Cell, adaptations: Sequence[str]) -> Iterator[Cell]:
    """The column's attack in each adaptation that it has: larger steps, another loss, a wrapper around it."""
    if split_wrapper(column.name)[0]:
        return  # the user's own adaptive attack: wrappers do not nest
    fields = {} if column.name.startswith("foolbox:") else option_fields(attack_class(column.name))
    stepped = None
    if "large-steps" in adaptations and "step" in fields and "step" not in column.options:
        stepped = _with(column, "large-steps", _LARGE_STEPS)
        yield stepped
    for word in adaptations:
        if word in WRAPPERS.names():
            yield _inside(column, word)
            if stepped is not None:
                few = _FEW if word == "average" else {}
                yield _with(_inside(stepped, word), f"{word}, large-steps", few)
        elif "loss" in fields and word in get_args(fields["loss"][0]) and "loss" not in column.options:
            yield _with(column, word, {"loss": word})


def _with(cell: Cell, adaptation: str, options: dict[str, Any]) -> Cell:
    shown = "".join(f":{key}={value}" for key, value in options.items())
    return replace(cell, attack=cell.attack + shown, options={**cell.options, **options}, adaptation=adaptation)


def _inside(cell: Cell, wrapper: str) -> Cell:
    return replace(cell, attack=f"{wrapper}:{cell.attack}", name=f"{wrapper}:{cell.name}", adaptation=wrapper)


def _refuse_repeats(where: str, entries: Sequence[str]) -> None:
    for place, entry in enumerate(entries):
        if entry in entries[:place]:
            also = " (it is always there)" if entry == "none" else ""
            raise UsageError(f"{where}: {entry!r} is given twice{also}")


def slug(name: str, taken: set[str]) -> str:
    """A folder name, made different from those before it."""
    base = slug = re.sub(r"[^\w.=@+-]+", "-", name).strip("-.") or "row"
    number = 2
    while slug.lower() in taken:
        slug, number = f"{base}-{number}", number + 1
    taken.add(slug.lower())
    return slug
