"""Answers on disk by the content of the row that was asked: a repeated run asks nothing twice.

Right only for a target that answers a row always alike; ``bbox.results.fits.check_fits`` finds out.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbox.code.program import Programs
from bbox.errors import InputError, UsageError

__all__ = ["AnswerCache"]

_AT_ONCE = 500  # keys in one statement: sqlite's limit has been 999 parameters
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, label INTEGER NOT NULL, scores BLOB) WITHOUT ROWID"


class AnswerCache:
    """A table of answers in one sqlite file, which several runs may use at the same time.

    Args:
        path: the file; made where it is missing.

    Raises:
        UsageError: it cannot be made there.
        InputError: it is another file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._full = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        except (OSError, sqlite3.OperationalError) as error:
            raise UsageError(f"cannot make the query cache {path}: {error}; give another --cache") from error
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_TABLE)
            self._db.execute("SELECT key, label, scores FROM answers LIMIT 0")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputError(f"{path} is no query cache of bbox ({error}); give another --cache") from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    @staticmethod
    def keys(rows: Tensor | Programs, fingerprint: str, space: str = "") -> list[bytes]:
        """The names of rows: SHA-256 over the target's fingerprint, the name space, and the row as the target sees it.

        Shapes:
            rows: (n, *shape), or n programs.
        """
        head = f"{fingerprint}|{space}|{tuple(rows.shape[1:])}|".encode()
        if isinstance(rows, Programs):
            contents = [repr((p.code, p.language, p.partner)).encode() for p in rows]
        else:
            contents = [row.tobytes() for row in rows.detach().cpu().numpy()]
        return [hashlib.sha256(head + content).digest() for content in contents]

    def find(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, Tensor | None]]:
        """The label and the scores, (classes,) float32, of every row that is known."""
        found: dict[bytes, tuple[int, Tensor | None]] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            with self._lock:
                rows = self._db.execute(f"SELECT key, label, scores FROM answers WHERE key IN ({marks})", some)
                for key, label, scores in rows.fetchall():
                    found[key] = label, None if scores is None else _scores(scores)
        return found

    def keep(self, answers: Mapping[bytes, tuple[int, Tensor | None]]) -> None:
        """Write answers down. Rows that brought no usable answer (a negative label) are asked again next time.

        A file that cannot be written (a full disk) is said once, and nothing more is kept: the run goes on.
        """
        if self._full:
            return
        rows = [
            (key, label, None if scores is None else scores.numpy().tobytes())
            for key, (label, scores) in answers.items()
            if label >= 0
        ]
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
                self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._full = True
            if self._db.in_transaction:  # or other runs could not write
                self._db.execute("ROLLBACK")
            warnings.warn(f"cannot write the query cache {self.path} ({error}); it keeps nothing more", stacklevel=2)


def _scores(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.float32).copy())
