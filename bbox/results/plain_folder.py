"""A run folder of JSON files, each written whole or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from bbox.errors import InputError
from bbox.files import refuse_taken, write_whole
from bbox.results.store import StorageError

__all__ = ["PlainFolder", "cannot_write", "kind_of"]


class PlainFolder:
    """A folder whose ``run.json`` says what kind of run it holds.

    Attributes:
        kind: the word in ``run.json``; noun: how messages call the run.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, run: dict[str, Any]) -> Self:
        """Make a new folder.

        Raises:
            UsageError: the path exists and is not an empty folder.
            StorageError: it cannot be made.
        """
        refuse_taken(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
        folder = cls(path)
        folder.write("run.json", run)
        return folder

    def discard(self, files: Sequence[Path] = ()) -> None:
        """Take back ``create``, for a run that was refused: its JSON files, these files, the folder if then empty."""
        for path in (*(self.path / f"{name}.json" for name in ("run", "sessions", "requests")), *files):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing one.

        Raises:
            InputError: it holds no run of this kind.
        """
        folder = cls(path)
        try:
            if folder.run().get("kind") == cls.kind:
                folder.check()
                return folder
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(f"{path} is not the folder of a {cls.noun}: {error}") from error
        raise InputError(f"{path} is not the folder of a {cls.noun}")

    def check(self) -> None:
        """Read what a run of this kind must have; anything that is missing raises."""

    def run(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        read: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return read

    def read(self, name: str) -> Any:
        """The content of a JSON file, ``None`` where there is none.

        Raises:
            InputError: it cannot be read.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); put it back, or delete it") from error

    def sessions(self) -> list[dict[str, Any]]:
        """What each session of the run (the first, each resume) has asked (``bbox.results.spending.Session``)."""
        read: list[dict[str, Any]] = self.read("sessions.json") or []
        return read

    def requests(self) -> int:
        """Requests of the run's limit that were reserved so far."""
        return int((self.read("requests.json") or {"used": 0})["used"])

    def write_requests(self, used: int) -> None:
        """Write down how many requests of the limit are reserved.

        Raises:
            StorageError: the disk is full, or the folder is gone.
        """
        self.write("requests.json", {"used": used})

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file.

        Raises:
            StorageError: the disk is full, or the folder is gone.
        """
        try:
            write_whole(self.path / name, json.dumps(content, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error


def cannot_write(path: Path, error: OSError) -> StorageError:
    """What a full disk is called."""
    return StorageError(f"cannot write {path}: {error.strerror or error}; make room and --resume")


def kind_of(path: Path) -> str | None:
    """What kind of run a folder holds, ``None`` where its ``run.json`` does not say (an attack's does not)."""
    try:
        kind = json.loads((path / "run.json").read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) else None
