"""HTTP clients on an event loop in a thread of its own, for callers in any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx

from bbox.errors import TargetError, UsageError
from bbox.targets.http.settings import Settings, loopback

__all__ = ["Link", "Places"]

_T = TypeVar("_T")
# The clients that are free, one for each request that may be in flight; who takes one puts it back. Each has a
# connection of its own: a pool of httpcore looks at all of its connections, with a call of the system each, at every
# request (measured with 16: a fifth of all time). The one used last is taken first, so that few are kept open.
Places = asyncio.LifoQueue[httpx.AsyncClient]
_POLL = 0.2  # seconds between looks at whether anybody still waits
_IDLE = 4.0  # seconds that a connection is kept: less than the 5 of uvicorn, or a request meets a closing connection


class Link:
    """Runs coroutines on one loop. The thread starts at the first call, and ends with the object or by ``close``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, Places] | None = None
        self._end: Callable[[], object] = lambda: None

    def run(
        self,
        work: Callable[[Places], Coroutine[Any, Any, _T]],
        abandoned: threading.Event,
        look: Callable[[], None] = lambda: None,
    ) -> _T:
        """The result of a coroutine, waited for in the calling thread.

        Args:
            abandoned: set when nobody needs the result; then the coroutine is cancelled.
            look: called in this thread every 0.2 seconds; what it raises ends the call.

        Raises:
            TargetError: ``abandoned`` was set.
        """
        loop, places = self._started()
        future = asyncio.run_coroutine_threadsafe(work(places), loop)
        try:
            while not concurrent.futures.wait((future,), _POLL).done:
                if abandoned.is_set():
                    raise TargetError(f"{self._settings.where}: the call was given up, since the run has ended")
                look()
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def close(self) -> None:
        """End the thread and close the connections; the next call starts new ones."""
        with self._lock:
            self._end()
            self._running = None

    def _started(self) -> tuple[asyncio.AbstractEventLoop, Places]:
        with self._lock:
            if self._running is None:
                clients = _clients(self._settings)
                places = Places()
                for client in reversed(clients):
                    places.put_nowait(client)
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(loop, clients), name="bbox-http", daemon=True)
                thread.start()
                self._running = loop, places
                self._end = weakref.finalize(self, _stop, loop, thread)
            return self._running


def _clients(settings: Settings) -> list[httpx.AsyncClient]:
    try:
        return [
            httpx.AsyncClient(
                headers=settings.headers.values(),
                verify=settings.verify,  # read once for all
                timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, 10.0), pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=_IDLE),
                follow_redirects=False,
                trust_env=not loopback(settings.url.host),  # a proxy elsewhere cannot reach what is here
            )
            for _ in range(settings.in_flight)
        ]
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # their text may hold a part of a password
        raise UsageError(
            f"{settings.where}: the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used, expected "
            "http://HOST:PORT (socks5:// needs the package httpx[socks]); NO_PROXY=HOST goes without it"
        ) from error


def _serve(loop: asyncio.AbstractEventLoop, clients: list[httpx.AsyncClient]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        for client in clients:
            loop.run_until_complete(client.aclose())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():  # the collector may run in the thread itself
        thread.join()
