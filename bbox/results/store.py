"""The run folder.

run.json           what was asked, versions, hardware, the target's and the data's fingerprints
journal.sqlite     every answer, one row an example with its trace, one row a session; WAL, survives kill -9
originals/         the attacked inputs, float32 .npy
adversarial/       the adversarial ones: .npy, and 8-bit .png where the input is a picture
results.json       figures and examples, written when the run is complete; the same for the same seed
report.html        one offline page
"""

from __future__ import annotations

import io
import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbox.data import read_image, save_image
from bbox.errors import BboxError, InputError
from bbox.files import refuse_taken, write_whole
from bbox.problem import ABSENT
from bbox.results.records import SCHEMA_VERSION, Config, Example
from bbox.targets.base import REFUSED

__all__ = ["RunFolder", "StorageError", "npy_bytes"]

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, examples BLOB NOT NULL, numbers BLOB NOT NULL, labels BLOB NOT NULL, scores BLOB
);
CREATE TABLE IF NOT EXISTS clean (id INTEGER PRIMARY KEY CHECK (id = 0), labels BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS clean_scores (id INTEGER PRIMARY KEY CHECK (id = 0), scores BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS examples (position INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (id INTEGER PRIMARY KEY CHECK (id = 0), used INTEGER NOT NULL);
"""


def npy_bytes(row: Tensor) -> bytes:
    """One input as the content of a float32 .npy file."""
    content = io.BytesIO()
    np.save(content, row.detach().cpu().numpy().astype(np.float32), allow_pickle=False)
    return content.getvalue()


class StorageError(BboxError):
    """The run folder cannot be written. What was written before is kept."""


class RunFolder:
    """A run on disk. Also the engine's journal: answers by (example, query number)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[int, tuple[Tensor, Tensor | None]] | None = None
        self._refused: dict[int, int] = {}  # the first refused query of each example
        with self._writing():
            # Answers are recorded by the thread that asks; sqlite3 serialises the two (sqlite3.threadsafety is 3).
            self._db = sqlite3.connect(path / "journal.sqlite", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)

    @classmethod
    def create(cls, path: Path, run: dict[str, Any]) -> RunFolder:
        """Make a new run folder.

        Raises:
            UsageError: the path exists and is not an empty folder. Nothing in it is touched.
        """
        refuse_taken(path)
        try:
            for part in ("originals", "adversarial"):
                (path / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
        folder = cls(path)
        folder.write_json("run.json", run)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder.

        Raises:
            InputError: it is no run folder, its run.json cannot be read, or a newer bbox has written it. An older
                folder is read: what is missing has its default of then (schema 1: every distance is l2).
        """
        if not (path / "run.json").is_file() or not (path / "journal.sqlite").is_file():
            raise InputError(f"{path} is not a run folder: it has no run.json and journal.sqlite")
        try:
            folder = cls(path)
            version = int(folder.run().get("schema_version", 1))
        except (
            sqlite3.DatabaseError,
            AttributeError,
            KeyError,
            TypeError,
            json.JSONDecodeError,
            UnicodeDecodeError,
        ) as error:
            raise InputError(f"{path} cannot be read as a run folder: {error}") from error
        if version > SCHEMA_VERSION:
            folder.close()
            raise InputError(f"{path} has schema {version}, this bbox reads up to {SCHEMA_VERSION}; update bbox")
        return folder

    def close(self) -> None:
        """Close the journal (and fold its write-ahead log into it)."""
        self._db.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- run.json, results.json ------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """What was asked (``run.json``)."""
        data: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        Config.from_json(data["config"])
        return data

    def write_json(self, name: str, data: dict[str, Any]) -> None:
        self.write_text(name, json.dumps(data, indent=1, allow_nan=False) + "\n")

    def write_bytes(self, name: str | Path, content: bytes) -> None:
        """Write a file whole or not at all, in a folder that is made where it is missing."""
        path = self.path / name
        with self._writing():
            path.parent.mkdir(exist_ok=True)
            write_whole(path, content)

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        with self._writing():
            write_whole(self.path / name, text)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"cannot write {self.path}: {reason}; make room and go on with --resume") from error

    # --- the journal -----------------------------------------------------------------------------------------------

    def append(self, examples: Tensor, numbers: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        """Record the answers of one forward."""
        blobs = [part.to(torch.int32).numpy().tobytes() for part in (examples, numbers, labels)]
        blobs.append(b"" if scores is None else scores.numpy().tobytes())
        with self._writing():
            self._db.execute("INSERT INTO answers (examples, numbers, labels, scores) VALUES (?, ?, ?, ?)", blobs)
        refused = labels == REFUSED
        if bool(refused.any()):
            self._note_refused(*(part[refused].numpy() for part in (examples, numbers)))

    def answers(self, example: int) -> tuple[Tensor, Tensor | None]:
        """The answers on record for an example up to its last query there, ``ABSENT`` for one without (``Journal``).

        They are those of the moment when they were first looked up, and of examples that were not finished then.
        """
        return self._on_record().get(example, (torch.empty(0, dtype=torch.int64), None))

    def first_refused(self, example: int) -> int | None:
        """The number of the first query of this example that the target refused."""
        self._on_record()
        return self._refused.get(example)

    def _note_refused(self, examples: NDArray[np.int32], numbers: NDArray[np.int32]) -> None:
        for example, number in zip(examples.tolist(), numbers.tolist(), strict=True):
            self._refused[example] = min(number, self._refused.get(example, number))

    def _on_record(self) -> dict[int, tuple[Tensor, Tensor | None]]:
        if self._known is None:
            self._known = self._load_answers()
        return self._known

    def _load_answers(self) -> dict[int, tuple[Tensor, Tensor | None]]:
        """The answers to examples that are not finished: of a large run the others would not fit in memory."""
        done = np.array([row[0] for row in self._db.execute("SELECT position FROM examples")], dtype=np.int32)
        parts: list[list[NDArray[Any]]] = []
        for record in self._db.execute("SELECT examples, numbers, labels, scores FROM answers ORDER BY id"):
            examples, numbers, labels = (np.frombuffer(blob, dtype=np.int32) for blob in record[:3])
            refused = labels == REFUSED
            if refused.any():
                self._note_refused(examples[refused], numbers[refused])
            open_ = ~np.isin(examples, done)
            if open_.any():
                scores = np.frombuffer(record[3] or b"", dtype=np.float32).reshape(len(labels), -1)
                parts.append([part[open_] for part in (examples, numbers, labels, scores)])
        if not parts:
            return {}
        # A target that gives scores gives them all along; an attack that does not ask for them keeps none.
        width = max(part[3].shape[1] for part in parts)
        parts = [part for part in parts if part[3].shape[1] == width] if width else parts
        examples, numbers, labels, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(examples, kind="stable")
        edges = np.flatnonzero(np.diff(examples[order], prepend=-1, append=-1))
        known: dict[int, tuple[Tensor, Tensor | None]] = {}
        for rows in (order[start:stop] for start, stop in itertools.pairwise(edges)):
            place = numbers[rows] - 1
            mine = torch.full((int(place.max()) + 1,), ABSENT, dtype=torch.int64)
            mine[place] = torch.from_numpy(labels[rows].astype(np.int64))
            table = None
            if width:
                table = torch.full((len(mine), width), torch.nan)
                table[place] = torch.from_numpy(scores[rows])
            known[int(examples[rows[0]])] = mine, table
        return known

    def reload(self) -> None:
        """Read the answers on record again when they are next looked up."""
        self._known = None

    def answer_count(self) -> int:
        """Rows on record."""
        total = self._db.execute("SELECT COALESCE(SUM(LENGTH(labels)), 0) FROM answers").fetchone()[0]
        return int(total) // 4

    # --- clean answers, examples, sessions -------------------------------------------------------------------------

    def clean_labels(self) -> Tensor | None:
        row = self._db.execute("SELECT labels FROM clean").fetchone()
        return None if row is None else torch.from_numpy(np.frombuffer(row[0], dtype=np.int64).copy())

    def clean_scores(self) -> Tensor | None:
        """The target's scores of the originals, (n, classes) float32, ``None`` where it gives labels only."""
        row = self._db.execute("SELECT scores FROM clean_scores").fetchone()
        labels = self.clean_labels()
        if row is None or labels is None:
            return None
        return torch.from_numpy(np.frombuffer(row[0], dtype=np.float32).copy()).view(len(labels), -1)

    def write_clean(self, labels: Tensor, scores: Tensor | None) -> None:
        """Record the answers to the originals. Shapes: labels (n,) int64, scores (n, classes) float32."""
        with self._writing():
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO clean (id, labels) VALUES (0, ?)", (labels.numpy().tobytes(),))
            if scores is not None:
                self._db.execute("INSERT INTO clean_scores (id, scores) VALUES (0, ?)", (scores.numpy().tobytes(),))
            self._db.execute("COMMIT")

    def examples(self) -> dict[int, Example]:
        """Finished examples by their position in the run's selection."""
        rows = self._db.execute("SELECT position, record FROM examples ORDER BY position")
        return {position: Example.from_json(json.loads(record)) for position, record in rows}

    def write_examples(self, examples: dict[int, Example]) -> None:
        """Record finished examples, all or none."""
        rows = [(position, json.dumps(e.to_json(), allow_nan=False)) for position, e in examples.items()]
        with self._writing():
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO examples (position, record) VALUES (?, ?)", rows)
            self._db.execute("COMMIT")

    def sessions(self) -> list[dict[str, Any]]:
        """What each session (the first run, each resume) cost: seconds, ledgers."""
        return [json.loads(row[0]) for row in self._db.execute("SELECT record FROM sessions ORDER BY id")]

    def write_session(self, record: dict[str, Any], number: int | None = None) -> int:
        with self._writing():
            cursor = self._db.execute(
                "INSERT OR REPLACE INTO sessions (id, record) VALUES (?, ?)", (number, json.dumps(record))
            )
        return int(cursor.lastrowid or 0)

    def requests(self) -> int:
        """Requests of the run's limit that were reserved so far."""
        row = self._db.execute("SELECT used FROM requests").fetchone()
        return 0 if row is None else int(row[0])

    def write_requests(self, used: int) -> None:
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO requests (id, used) VALUES (0, ?)", (used,))

    # --- arrays and pictures ---------------------------------------------------------------------------------------

    def array_path(self, kind: str, index: int) -> Path:
        return self.path / kind / f"{index:06d}.npy"

    def png_path(self, index: int) -> Path:
        return self.path / "adversarial" / f"{index:06d}.png"

    def write_array(self, kind: str, index: int, row: Tensor) -> None:
        """Write one input as float32 .npy (``kind``: originals or adversarial)."""
        with self._writing():
            write_whole(self.array_path(kind, index), npy_bytes(row))

    def read_array(self, kind: str, index: int) -> Tensor:
        return torch.from_numpy(np.load(self.array_path(kind, index), allow_pickle=False))

    def write_png(self, index: int, row: Tensor) -> None:
        with self._writing():
            save_image(self.png_path(index), row.detach().cpu())

    def read_png(self, index: int) -> Tensor:
        return read_image(self.png_path(index))
