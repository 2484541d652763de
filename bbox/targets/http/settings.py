"""What both kinds of live target take: where it is, its headers, and how hard it may be asked."""

from __future__ import annotations

import ipaddress
import math
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from bbox.errors import InputError, UsageError
from bbox.registry import check_options
from bbox.targets.http.secrets import Headers, refuse_in_url
from bbox.targets.options import Options, literal

__all__ = ["COMMON", "Settings", "loopback", "read_settings", "read_url", "split_headers"]

COMMON = ("batch", "in_flight", "rows_per_second", "requests_per_second", "timeout", "tries", "ca", "bearer_env")
_HEADER = "header."


@dataclass(frozen=True)
class Settings:
    """How a server is asked.

    Attributes:
        url: without user, password or secret.
        headers: sent with every request.
        verify: how TLS certificates are checked.
        batch: most rows a request.
        in_flight: most requests under way at once.
        rows_per_second, requests_per_second: paces, ``inf`` for none.
        timeout: seconds that a request may take before its answer begins or goes on.
        tries: how often a request is sent that fails while others are answered.
    """

    url: httpx.URL
    headers: Headers
    verify: ssl.SSLContext
    batch: int = 64
    in_flight: int = 8
    rows_per_second: float = math.inf
    requests_per_second: float = math.inf
    timeout: float = 30.0
    tries: int = 10

    @property
    def where(self) -> str:
        """The URL for messages, without its query."""
        return str(self.url.copy_with(query=None))


def loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_url(where: str, text: str) -> httpx.URL:
    """A URL that holds no secret. ``where`` starts messages and must not hold the text.

    Raises:
        UsageError: no http or https URL, or it holds a secret or a fragment.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise UsageError(f"{where}: no URL ({error})") from error
    refuse_in_url(where, url.userinfo.decode(), dict(url.params))
    if url.scheme not in ("http", "https") or not url.host or url.fragment:
        raise UsageError(f"{where}: {text!r}, expected http://HOST:PORT/PATH or https://HOST/PATH")
    return url


def split_headers(options: Mapping[str, object]) -> tuple[dict[str, str], dict[str, object]]:
    """Headers among the options (``header.NAME=VARIABLE``, ``bearer_env=VARIABLE``) as templates, and the rest."""
    rest = {name: value for name, value in options.items() if not name.startswith(_HEADER)}
    headers = {
        name.removeprefix(_HEADER): f"${{{value}}}" for name, value in options.items() if name.startswith(_HEADER)
    }
    bearer = rest.pop("bearer_env", None)
    if bearer is not None:
        headers["Authorization"] = f"Bearer ${{{bearer}}}"
    return headers, rest


def read_settings(
    where: str,
    url: httpx.URL,
    options: Mapping[str, object],
    *,
    headers: Mapping[str, str] | None = None,
    known: tuple[str, ...] = (),
) -> tuple[Settings, Options]:
    """The common options, and the reader of those of one kind.

    Args:
        where: the start of messages.
        headers: more headers, as templates.
        known: the names of the options of this kind.

    Raises:
        UsageError: an option is unknown or out of range, or an environment variable is not set.
        InputError: the file of ``ca`` or ``SSL_CERT_FILE`` is none of certificates.
    """
    named, rest = split_headers(options)
    for name, template in named.items():
        check_variable(f"{where}: {name}", template)
    check_options(where, rest, (*known, *COMMON, f"{_HEADER}NAME"))
    read = Options(where, rest, (*known, *COMMON))
    ca = read.text("ca")
    settings = Settings(
        url,
        Headers(where, {**(headers or {}), **named}),
        batch=read.integer("batch", 64) or 64,
        in_flight=read.integer("in_flight", 8) or 8,
        rows_per_second=_positive(where, "rows_per_second", rest, math.inf),
        requests_per_second=_positive(where, "requests_per_second", rest, math.inf),
        timeout=_positive(where, "timeout", rest, 30.0),
        tries=read.integer("tries", 10) or 10,
        verify=_certificates(where, ca),
    )
    return settings, read


def check_variable(where: str, template: str) -> None:
    """Refuse a header option that is not the name of a variable; the value may be a secret and is not shown."""
    name = template.removeprefix("Bearer ")[2:-1]
    if not name.isidentifier():
        raise UsageError(f"{where}: expected the name of an environment variable that holds the value, not the value")


def _positive(where: str, name: str, options: Mapping[str, object], default: float) -> float:
    if options.get(name) is None:
        return default
    value = literal(options[name])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"{where}: {name}={options[name]}, expected a number above zero")
    return float(value)


def _certificates(where: str, path: str | None) -> ssl.SSLContext:
    try:
        if path is None:
            return httpx.create_ssl_context()
        return ssl.create_default_context(cafile=str(Path(path).expanduser()))
    except OSError as error:  # ssl.SSLError is one
        named = f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE')}" if path is None else f"ca={path}"
        raise InputError(f"{where}: {named} is no file of PEM certificates ({error})") from error
