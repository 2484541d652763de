"""The names that identifiers are replaced by."""

from __future__ import annotations

from pathlib import Path

from bbox.code.common_names import COMMON
from bbox.code.site import IDENTIFIER
from bbox.errors import InputError

__all__ = ["vocabulary"]


def vocabulary(names: str) -> tuple[str, ...]:
    """``common``, ``numbered`` (``name``, ``name2``, ``name3``, ... alone), or the names in a text file, one a line.

    Raises:
        InputError: the file cannot be read, or holds fewer than two identifiers.
    """
    if names == "common":
        return COMMON
    if names == "numbered":
        return ("name",)
    path = Path(names)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(
            f"names: {names} cannot be read ({reason}); give common, numbered, or a file of names"
        ) from error
    found = tuple(dict.fromkeys(name for name in map(str.strip, lines) if IDENTIFIER.fullmatch(name)))
    if len(found) < 2:
        raise InputError(f"names: {names} holds {len(found)} identifiers, one a line; expected at least 2")
    return found
