"""Defenses: one file (or folder) each, found by name in a lazy registry. None is built in yet."""

from __future__ import annotations

from bbox.registry import Registry

__all__ = ["DEFENSES"]

DEFENSES = Registry("defense", "bbox.defenses", {})
