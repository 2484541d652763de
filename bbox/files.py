"""Files and folders that are there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from bbox.errors import UsageError

__all__ = ["refuse_taken", "unused", "write_whole"]


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file beside its place and move it there, so that a kill at any moment leaves the old one or the new one.

    Raises:
        OSError: the disk is full, or the folder is gone; the old file stays.
    """
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


def unused(path: Path) -> Path:
    """This path, or with the first number behind its name (-2, -3) under which nothing is there yet."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def refuse_taken(path: Path, *, resumes: bool = True) -> None:
    """Refuse a place for a new run that is not free. Nothing in it is touched.

    Args:
        resumes: whether a run that lies there could be gone on with.

    Raises:
        UsageError: the path exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            f"{path} exists; choose another --out" + (f", or go on with --resume {path}" if resumes else "")
        )
