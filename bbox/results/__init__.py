"""Runs: executed, kept on disk, resumed, measured."""

from bbox.results.records import Config, Example
from bbox.results.store import RunFolder, StorageError

__all__ = ["Config", "Example", "RunFolder", "StorageError"]
