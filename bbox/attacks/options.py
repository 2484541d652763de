"""What a command line needs to know of an attack."""

from __future__ import annotations

from typing import Any

from bbox.options import option_fields, told

__all__ = ["describe"]


def describe(name: str) -> tuple[dict[str, tuple[Any, str]], tuple[str, ...], str]:
    """What a command line needs of an attack: options (default, help), names of presets, one sentence.

    Raises:
        UsageError: the name is unknown.
    """
    if name.startswith("foolbox:"):
        from bbox.attacks.foolbox_attack import foolbox_options

        found = foolbox_options(name.removeprefix("foolbox:"))
        fields = {key: (default, "") for key, (_, default) in found.items()}
        return fields, (), f"{name} under the oracle's exact budget."
    from bbox.attacks import attack_class

    cls = attack_class(name)
    texts = told(cls)
    fields = {key: (default, texts.get(key, "")) for key, (_, default) in option_fields(cls).items()}
    return fields, tuple(getattr(cls, "presets", {})), cls.summary
