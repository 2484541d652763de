"""ALERT: natural renaming attacks on models of code. One file a search; each is a pure generator over a ``Space``."""

from bbox.attacks.alert.attack import Alert

__all__ = ["Alert"]
