"""Data sets of code: how they are read, and how programs are written back in the format they came in."""

from __future__ import annotations

from bbox.data.code.format import Format
from bbox.data.code.load import load_code

__all__ = ["Format", "load_code"]
