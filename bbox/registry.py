"""A lazy registry: names known without an import, things imported when asked for, plug-ins merged in.

A plug-in is an entry point of another distribution in the group ``bbox.attacks``, ``bbox.defenses``,
``bbox.targets`` or ``bbox.substitutes``. One that is broken never stops bbox: it costs an error only where it is
itself asked for.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

from bbox.errors import UsageError

__all__ = ["Entry", "Loadable", "PluginWarning", "Registry", "check_options", "did_you_mean"]


class PluginWarning(UserWarning):
    """A plug-in is broken or its name is taken; bbox goes on without it."""


class Loadable(Protocol):
    """What a registry needs to know of a name: where it lies, one sentence on it, what it needs installed."""

    @property
    def loader(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def needs(self) -> object: ...


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        loader: ``"module:attribute"``, imported when the name is asked for.
        summary: one sentence for listings.
        needs: what to install with pip first, for example ``"bbox-toolkit[onnx]"``; empty for nothing.
        plugin: the distribution that brings it; empty for bbox itself.
    """

    loader: str
    summary: str = ""
    needs: str = ""
    plugin: str = ""


def check_options(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse option names that are not known.

    Raises:
        UsageError: the first unknown one, with the nearest known one and all that are.
    """
    known = tuple(known)
    for name in given:
        if name not in known:
            takes = ", ".join(known) or "no options"
            raise UsageError(f"{where} has no option {name!r}{did_you_mean(name, known) or ';'} it takes {takes}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known word that is nearest, or nothing where none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


class Registry:
    """Names of one kind of thing.

    Args:
        kind: what one is called in messages, for example ``"attack"``.
        group: the entry point group whose plug-ins are merged in, ``None`` for none.
        table: the names that bbox itself brings. A plug-in cannot take one of them.

    Example:
        >>> codecs = Registry("codec", None, {"json": Entry("json:dumps", "text")})
        >>> codecs.names()
        ('json',)
        >>> codecs.get("json")([1])
        '[1]'
    """

    def __init__(self, kind: str, group: str | None, table: Mapping[str, Loadable]) -> None:
        self.kind = kind
        self.group = group
        self._table = table
        self._plugins: dict[str, Loadable] | None = None

    def names(self) -> tuple[str, ...]:
        """Every name, those of bbox first and in their own order, then plug-ins sorted. Imports nothing."""
        return (*self._table, *sorted(self._found()))

    def entry(self, name: str) -> Loadable:
        """The entry of a name, without importing it.

        Raises:
            UsageError: the name is unknown.
        """
        if name in self._table:
            return self._table[name]
        plugins = self._found()
        if name in plugins:
            return plugins[name]
        known = self.names()
        listing = ", ".join(known) if known else "none"
        raise UsageError(f"unknown {self.kind} {name!r}{did_you_mean(name, known) or ';'} known are: {listing}")

    def get(self, name: str) -> Any:
        """Import a name and return it.

        Raises:
            UsageError: the name is unknown, needs what is not installed, or is a plug-in that is broken.
        """
        entry = self.entry(name)
        plugin = getattr(entry, "plugin", "")
        module_name, _, attribute = entry.loader.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            if plugin:
                raise UsageError(
                    f"{self.kind} {name!r} comes from the plug-in {plugin}, which does not load ({reason}); "
                    f"update or uninstall {plugin}"
                ) from error
            if entry.needs and isinstance(error, ImportError):
                raise UsageError(
                    f"{self.kind} {name!r} needs a package: pip install '{entry.needs}' ({reason})"
                ) from error
            raise
        return found

    def broken(self) -> dict[str, str]:
        """Import every plug-in and warn of those that fail: name to reason. For listings and diagnosis."""
        reasons = {}
        for name in self._found():
            try:
                self.get(name)
            except UsageError as error:
                reasons[name] = str(error)
                warnings.warn(str(error), PluginWarning, stacklevel=2)
        return reasons

    def _found(self) -> dict[str, Loadable]:
        if self._plugins is not None:
            return self._plugins
        plugins: dict[str, Loadable] = {}
        self._plugins = plugins
        if self.group is None:
            return plugins
        try:
            points = sorted(metadata.entry_points(group=self.group), key=lambda point: (point.name, point.value))
        except Exception as error:
            warnings.warn(f"plug-ins of {self.group} cannot be listed: {error}", PluginWarning, stacklevel=3)
            return plugins
        for point in points:
            brought_by = point.dist.name if point.dist is not None else (point.value or point.name)
            new = Entry(point.value, f"plug-in of {brought_by}", plugin=brought_by)
            if point.name in self._table or plugins.get(point.name, new) != new:
                warnings.warn(
                    f"the plug-in {brought_by} brings {self.kind} {point.name!r}, which is taken; left out",
                    PluginWarning,
                    stacklevel=3,
                )
                continue
            plugins[point.name] = new
        return plugins
