"""The typed errors of bbox. Each carries the exit code that the command line ends with.

Exit codes: 0 done, 1 a gate failed, 2 usage, 3 target unavailable (state kept), 4 input or model file refused,
70 internal, 130 interrupted (state kept).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class BboxError(Exception):
    """Base of every error that bbox raises on purpose. Its text is one line: what is wrong, the value, what to do."""

    exit_code = 70


class UsageError(BboxError):
    """An option, a spec or an argument is wrong; nothing was started."""

    exit_code = 2


class InputError(BboxError):
    """A data or model file was read and refused (missing, wrong shape, not finite, unsafe)."""

    exit_code = 4


class TargetError(BboxError):
    """The target failed or is out of reach. The state of the run is kept; ``--resume`` goes on.

    Attributes:
        unfinished: from the engine, the jobs that were running, with their accounts (``bbox.engine.Job``).
        result: from ``bbox.attack``, what was found until then (``bbox.AttackResult``).
    """

    exit_code = 3
    unfinished: Sequence[Any] = ()
    result: Any = None


class RequestLimitError(TargetError):
    """The run's hard limit on requests to a live target is reached. The state of the run is kept."""


class BudgetError(BboxError):
    """Rows were asked that no budget covers. Attacks never see it: the engine admits what fits."""

    exit_code = 70


class GateError(BboxError):
    """The run is complete and a gate that the user set does not hold."""

    exit_code = 1


class InternalError(BboxError):
    """A contract inside bbox or a plug-in was broken (an attack left its domain, asked nothing for ever ...)."""

    exit_code = 70
