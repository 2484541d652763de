"""Header values that are secret: they come from environment variables, and no text that leaves here holds them."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping

from bbox.errors import InputError, UsageError

__all__ = ["Headers", "refuse_in_url"]

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile(r"auth|cookie|token|key|secret|passw|credential|session|signature", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][\w-]* )?\$\{\w+\}")  # "${NAME}" or "Bearer ${NAME}"
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHOWN = "[secret]"


class Headers:
    """The headers of every request, and which parts of them are secret.

    Attributes:
        templates: header names and values as they are written, with ``${NAME}`` where a variable stands. No secret.
    """

    def __init__(self, where: str, templates: Mapping[str, str]) -> None:
        """Read the variables.

        Raises:
            UsageError: a variable is not set, or holds what no header can carry.
            InputError: a header that carries a secret is written out.
        """
        self.templates = dict(templates)
        self._secrets: set[str] = set()
        self._values: dict[str, str] = {}
        for name, template in self.templates.items():
            if not _HEADER.fullmatch(name):
                raise InputError(f"{where}: {name!r} is no header name")
            if _SECRET.search(name) and not _SCHEME.fullmatch(template):
                raise InputError(
                    f"{where}: header {name} is written out; a secret comes from an environment variable: "
                    f'{name} = "${{NAME}}", or "Bearer ${{NAME}}"'
                )
            self._values[name] = _VARIABLE.sub(lambda found: self._variable(where, found.group(1)), template)
            if not (self._values[name].isascii() and self._values[name].isprintable()):
                raise InputError(f"{where}: header {name} holds a character that no header can carry")

    def _variable(self, where: str, name: str) -> str:
        value = os.environ.get(name, "").strip()
        if not value:
            raise UsageError(f"{where} reads the environment variable {name}, which is not set")
        if not (value.isascii() and value.isprintable()):
            raise UsageError(f"{where}: the environment variable {name} holds a character that no header can carry")
        self._secrets.add(value)
        return value

    def values(self) -> dict[str, str]:
        """What is sent."""
        return dict(self._values)

    def redact(self, text: str) -> str:
        """The text without the secrets, also where a server sent them back in JSON, in a URL or in HTML."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = re.sub(_in_any_form(secret), _SHOWN, text, flags=re.IGNORECASE)
        return text

    def __repr__(self) -> str:
        return f"Headers({self.templates})"


def _in_any_form(secret: str) -> str:
    """A pattern of the secret with any of its characters escaped; JSON within JSON escapes more than once."""
    if not secret.strip("\\"):
        return re.escape(secret)
    forms = (
        (rf"\\*{re.escape(letter)}", rf"\\+u{ord(letter):04x}", f"%{ord(letter):02x}", html.escape(letter))
        for letter in secret
        if letter != "\\"
    )
    return "".join(f"(?:{'|'.join(dict.fromkeys(form))})" for form in forms)


def refuse_in_url(where: str, user: str, query: Mapping[str, str]) -> None:
    """Refuse secrets in a URL, which is kept in run.json and logs.

    Args:
        where: the start of the message, which holds no secret.
        user: the part of the URL before ``@``.
        query: its parameters.

    Raises:
        UsageError: there is one.
    """
    if user:
        raise UsageError(f"{where}: the URL holds a user name or a password; give it by header.Authorization=NAME")
    for name in query:
        if _SECRET.search(name):
            raise UsageError(f"{where}: the URL holds {name!r}, which looks like a secret; give it by a header")
