"""Range checks of options: one line that holds the value and what is allowed."""

from __future__ import annotations

from bbox.errors import UsageError

__all__ = ["at_least", "between"]


def between(option: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Refuse a value outside [low, high], or outside (low, high] with ``above``.

    Raises:
        UsageError: it is.
    """
    if not low <= value <= high or (above and value == low):
        allowed = f"more than {low:g}, at most {high:g}" if above else f"{low:g} to {high:g}"
        raise UsageError(f"{option} is {value!r}, expected {allowed}")


def at_least(option: str, value: float, low: float, *, or_zero: str = "") -> None:
    """Refuse a value below ``low``; 0 passes where ``or_zero`` says what it stands for.

    Raises:
        UsageError: it is below.
    """
    if not (value >= low or (or_zero and value == 0)):
        raise UsageError(f"{option} is {value!r}, expected {f'0 ({or_zero}) or ' if or_zero else ''}at least {low:g}")
