"""One request, sent until it is answered: in its turn, metered, billed, and tried again where that may help."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type

from bbox.errors import TargetError
from bbox.targets.account import Bill, Terms
from bbox.targets.http.link import Link, Places
from bbox.targets.http.pace import Pace
from bbox.targets.http.retry import AGAIN, AgainError, Heard, Policy, retry_after
from bbox.targets.http.settings import Settings

__all__ = ["Client", "Message", "Reply", "RowsRefusedError"]

_T = TypeVar("_T")
_LARGEST = 64 * 2**20  # bytes of an answer that are read
_SHOWN = 200  # characters of a server's text in an error
_REFUSED = (400, 413, 422)
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class RowsRefusedError(TargetError):
    """The server refused the content of a request (400, 413, 422): the rows, if it has answered others before."""


@dataclass(frozen=True)
class Message:
    """What is sent. ``rows``: how many rows it holds, 0 for one that asks nothing (metadata)."""

    method: str
    url: httpx.URL
    rows: int = 0
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A good answer (status 200 to 299), as bytes."""

    body: bytes
    headers: httpx.Headers


class Client:
    """Sends messages to one server: at most ``in_flight`` at once, at its paces, in whatever thread it is called."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.heard = Heard()
        self._link = Link(settings)
        self._row_pace = Pace(settings.rows_per_second)
        self._request_pace = Pace(settings.requests_per_second)

    def run(self, work: Callable[[Places], Coroutine[Any, Any, _T]], terms: Terms) -> _T:
        """Run a coroutine that uses ``send`` on the loop; warn here, in the calling thread, of an outage."""

        def look() -> None:
            cause = self.heard.outage()
            if cause:
                warnings.warn(
                    f"{self.settings.where} does not answer ({cause}); trying again for up to {terms.patience:g} s",
                    stacklevel=4,
                )

        return self._link.run(work, terms.abandoned, look)

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._link.close()

    async def send(self, places: Places, message: Message, bill: Bill, terms: Terms) -> Reply:
        """The good answer to a message.

        Raises:
            RowsRefusedError: the server refused its content.
            RequestLimitError: the run's limit on requests is reached.
            TargetError: the server refused it otherwise, or did not answer well in time.
        """
        policy = Policy(self.heard, terms.patience, self.settings.tries)
        attempt = _Attempt(message, bill, terms)
        trying = AsyncRetrying(
            retry=retry_if_exception_type(AgainError), wait=policy.wait, stop=policy.stop, reraise=True
        )
        try:
            return await trying(self._once, places, attempt)
        except AgainError as error:
            asks = f"; it asks to wait {error.wait:g} s" if error.wait else ""
            again = "start it again and go on with --resume" if message.rows else "is it running there?"
            times = f"{attempt.number} time{'s' if attempt.number > 1 else ''}"
            raise TargetError(
                f"{self.settings.where} gave no answer: tried {times}, silent for {policy.silent:.1f} s, "
                f"last: {error}{asks}; {again}"
            ) from error

    async def _once(self, places: Places, attempt: _Attempt) -> Reply:
        message = attempt.message
        link = await places.get()
        try:
            await self._request_pace.wait(1, attempt.terms.share)
            if message.rows:
                await self._row_pace.wait(message.rows, attempt.terms.share)
            attempt.start()
            try:
                reply = await self._exchange(link, message)
            except _UNSENT as error:
                attempt.take_back()
                text = self.clean(str(error))
                if "CERTIFICATE_VERIFY_FAILED" in text:
                    hint = "; if it is right, give ca=FILE" if "issuer" in text or "self-signed" in text else ""
                    raise TargetError(f"{self.settings.where}: {text}{hint}") from error
                if "WRONG_VERSION_NUMBER" in text:
                    raise TargetError(f"{self.settings.where} speaks no TLS; is it an http:// address?") from error
                raise self._again(_cause(error)) from error
            except (httpx.TransportError, TimeoutError) as error:
                raise self._again(_cause(error)) from error
        finally:
            places.put_nowait(link)
        self.heard.good()
        return reply

    async def _exchange(self, link: httpx.AsyncClient, message: Message) -> Reply:
        # httpx's limits are on silences; the outer one ends an answer that drips.
        async with asyncio.timeout(2 * self.settings.timeout):
            request = link.build_request(
                message.method, message.url, content=message.content or None, headers=message.headers
            )
            answer = await link.send(request, stream=True)
            try:
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > _LARGEST:
                        raise TargetError(f"{self.settings.where} answered more than {_LARGEST >> 20} MiB")
            except httpx.DecodingError as error:
                raise TargetError(f"{self.settings.where} answered a body that is not in its encoding") from error
            finally:
                await answer.aclose()
        if answer.is_success:
            return Reply(bytes(body), answer.headers)
        raise self._failure(answer, bytes(body))

    def _failure(self, answer: httpx.Response, body: bytes) -> Exception:
        status = self.clean(f"{answer.status_code} {answer.reason_phrase}")
        if answer.is_redirect:
            to = self.clean(answer.headers.get("Location", ""))
            return TargetError(f"{self.settings.where} sends on to {to} ({status}); give that address, if it is right")
        text = self.clean(body.decode(errors="replace"))
        said = f"{status}: {text}" if text else status
        if answer.status_code in AGAIN:
            return self._again(said, retry_after(answer))
        kind = RowsRefusedError if answer.status_code in _REFUSED else TargetError
        return kind(f"{self.settings.where} answered {said}")

    def clean(self, text: str) -> str:
        """A server's text for an error: one line, without secrets, and not long."""
        line = " ".join(self.settings.headers.redact(text).split())
        line = "".join(letter if letter.isprintable() else "?" for letter in line)
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."

    def _again(self, cause: str, wait: float = 0.0) -> AgainError:
        cause = self.clean(cause)
        self.heard.bad(cause)
        return AgainError(cause, wait)


@dataclass
class _Attempt:
    """The books of one message over its tries: ``number`` of them, of which ``sent`` may have reached the server."""

    message: Message
    bill: Bill
    terms: Terms
    number: int = 0
    sent: int = 0
    reserved: bool = False

    def start(self) -> None:
        self.number += 1
        if self.terms.meter is not None and self.message.rows and not self.reserved:
            self.terms.meter.take()
        self.reserved = False
        self.sent += 1
        self._book(1)

    def take_back(self) -> None:
        """Nothing reached the server. What the meter gave serves for the next try."""
        self._book(-1)
        self.sent -= 1
        self.reserved = True

    def _book(self, times: int) -> None:
        self.bill.requests += times
        self.bill.rows += times * self.message.rows
        if self.sent > 1:
            self.bill.retried += times * self.message.rows


def _cause(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"no answer in time ({type(error).__name__})"
    return text
