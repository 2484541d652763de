"""Options of a target, as text from the command line or as Python objects, read with clear messages."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from bbox.errors import InputError, UsageError
from bbox.registry import check_options

__all__ = ["PREPROCESSING", "Options", "class_names", "floats", "integer", "literal", "size_pair"]

PREPROCESSING = ("mean", "std", "size", "num_classes", "input_shape")

_NAMED = {"mean": {"imagenet": (0.485, 0.456, 0.406)}, "std": {"imagenet": (0.229, 0.224, 0.225)}}


class Options:
    """The options that one kind takes; an unknown one is an error at once.

    Raises:
        UsageError: an option that this kind does not know.
    """

    def __init__(self, spec: str, given: Mapping[str, object], known: Sequence[str]) -> None:
        self.spec = spec
        self._given = given
        check_options(spec, given, known)

    def text(self, name: str) -> str | None:
        """The option as text, ``None`` where it is not given."""
        value = self._given.get(name)
        return None if value is None else str(value)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """The option as one of a few words."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise UsageError(f"{self.spec}: {name}={value}, expected {' or '.join(choices)}")
        return value

    def integer(self, name: str, default: int | None = None) -> int | None:
        """The option as a positive integer (zero only for ``seed``)."""
        value = self._given.get(name)
        if value is None:
            return default
        return integer(f"{self.spec}: {name}", value, low=0 if name == "seed" else 1)

    def preprocessing(self) -> dict[str, object]:
        """The arguments of ``TorchTarget`` among the options, as Python objects."""
        read: dict[str, object] = {}
        for name in ("mean", "std"):
            if self._given.get(name) is not None:
                read[name] = floats(f"{self.spec}: {name}", _NAMED[name].get(str(self._given[name]), self._given[name]))
        if self._given.get("size") is not None:
            read["size"] = size_pair(f"{self.spec}: size", self._given["size"])
        if self._given.get("num_classes") is not None:
            read["num_classes"] = self.integer("num_classes")
        if self._given.get("input_shape") is not None:
            where = f"{self.spec}: input_shape"
            read["input_shape"] = tuple(integer(where, x, low=1) for x in _items(self._given["input_shape"]))
        return read


def literal(value: object) -> object:
    """Text as the Python literal that it spells (``3``, ``0.5``, ``True``, ``[1, 2]``), else as it is."""
    if not isinstance(value, str):
        return value
    if value in ("true", "false", "none"):
        value = value.capitalize()
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def integer(where: str, value: object, *, low: int) -> int:
    """An integer of at least ``low``."""
    read = literal(value)
    if isinstance(read, bool) or not isinstance(read, int) or read < low:
        raise UsageError(f"{where} is {value!r}, expected an integer of at least {low}")
    return read


def floats(where: str, value: object) -> tuple[float, ...]:
    """One number a channel, from ``0.5,0.5,0.5``, a number or a sequence."""
    read = [literal(item) for item in _items(value)]
    if not read or not all(isinstance(item, int | float) and not isinstance(item, bool) for item in read):
        raise UsageError(f"{where} is {value!r}, expected numbers with commas, one a channel")
    return tuple(float(item) for item in read if isinstance(item, int | float))


def size_pair(where: str, value: object) -> tuple[int, int]:
    """A height and a width, from ``224``, ``224,160`` or ``224x160``."""
    items = _items(value.replace("x", ",") if isinstance(value, str) else value)
    if len(items) not in (1, 2):
        raise UsageError(f"{where} is {value!r}, expected one side or height,width")
    sides = [integer(where, item, low=1) for item in items]
    return sides[0], sides[-1]


def _items(value: object) -> list[object]:
    if isinstance(value, str):
        return [item.strip() for item in value.strip("()[] ").split(",")]
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, Sequence) else [value]


def class_names(spec: str, given: object) -> list[str]:
    """Class names: a sequence, names with commas, or a file with one a line.

    Raises:
        UsageError: there are none, or fewer than two, or one is empty.
        InputError: the file cannot be read.
    """
    if isinstance(given, str) and given.startswith(("[", "(")):
        given = literal(given)  # a list that a bundle has kept as text
    if given is None or given == "":
        raise UsageError(f"{spec} needs classes=cat,dog,ship, or classes=FILE with one class name a line")
    if isinstance(given, str):
        path = Path(given)
        if "," not in given and (path.is_file() or path.suffix == ".txt"):
            return _checked(spec, f"in {given}", _lines(path))
        return _checked(spec, repr(given), given.split(","))
    if isinstance(given, Sequence):
        return _checked(spec, repr(given), [str(name) for name in given])
    raise UsageError(f"{spec}: classes is {given!r}, expected names with commas or a file with one name a line")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise InputError(f"classes {path}: {reason}") from error


def _checked(spec: str, what: str, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    if "" in names:
        raise UsageError(f"{spec}: class {names.index('')} of classes {what} has no name")
    if len(names) < 2:
        raise UsageError(f"{spec}: classes {what} names {len(names)}, expected at least two")
    return names
