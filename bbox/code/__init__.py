"""Programs as inputs: parsing, scopes, safe renames, and the check that a renamed program means the same.

Everything that needs a grammar is imported when it is used; the extra ``[code]`` brings them.
"""

from __future__ import annotations

from bbox.code.program import Program, Programs

__all__ = ["Program", "Programs"]
