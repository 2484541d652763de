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
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
        self._known: dict[int, list[tuple[int, int, Tensor | None]]] | None = None
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
            self._note_refused(examples[refused].tolist(), numbers[refused].tolist())

    def answers(self, example: int) -> tuple[Tensor, Tensor | None]:
        """The answers on record for an example up to its last query there, ``ABSENT`` for one without (``Journal``)."""
        rows = self._answers().get(example, ())
        labels = torch.full((max((number for number, _, _ in rows), default=0),), ABSENT, dtype=torch.int64)
        scores: Tensor | None = None
        for number, label, score in rows:
            labels[number - 1] = label
            if score is not None:
                scores = torch.full((len(labels), len(score)), torch.nan) if scores is None else scores
                scores[number - 1] = score
        return labels, scores

    def first_refused(self, example: int) -> int | None:
        """The number of the first query of this example that the target refused."""
        self._answers()
        return self._refused.get(example)

    def _note_refused(self, examples: Sequence[int], numbers: Sequence[int]) -> None:
        for example, number in zip(examples, numbers, strict=True):
            self._refused[example] = min(number, self._refused.get(example, number))

    def _answers(self) -> dict[int, list[tuple[int, int, Tensor | None]]]:
        """The answers that were on record when they were first looked up (refusals: up to now)."""
        if self._known is None:
            self._known = self._load_answers()
            refused = [(e, n) for e, rows in self._known.items() for n, label, _ in rows if label == REFUSED]
            self._note_refused([e for e, _ in refused], [n for _, n in refused])
        return self._known

    def _load_answers(self) -> dict[int, list[tuple[int, int, Tensor | None]]]:
        known: dict[int, list[tuple[int, int, Tensor | None]]] = defaultdict(list)
        for record in self._db.execute("SELECT examples, numbers, labels, scores FROM answers ORDER BY id"):
            examples, numbers, labels = (np.frombuffer(blob, dtype=np.int32).tolist() for blob in record[:3])
            table: list[Tensor | None] = [None] * len(labels)
            if record[3]:
                values = np.frombuffer(record[3], dtype=np.float32).reshape(len(labels), -1).copy()
                table = list(torch.from_numpy(values))
            for example, number, label, score in zip(examples, numbers, labels, table, strict=True):
                known[example].append((number, label, score))
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
