"""uvicorn in a thread of this process, on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bbox.errors import InternalError, UsageError
from bbox.serving.books import Books
from bbox.serving.faults import Faults
from bbox.serving.replies import TRANSPORT
from bbox.serving.service import Service
from bbox.targets.base import Target
from bbox.targets.http.settings import loopback

__all__ = ["Server"]

_GRACE = 2  # seconds for requests in hand when the server ends


class Server:
    """Serves a target while its block is open.

    Nothing here asks who a client is, so only this machine can connect.

    Args:
        faults: what goes wrong.
        name: of the model in URLs; default the end of the target's name.
        host: an address of this machine's loopback.
        port: 0 picks a free one.

    Attributes:
        url: of the model.
        port: the one in use.

    Raises:
        UsageError: the host is not loopback, the port is taken, or a fault does not fit the target.
        TargetError: the target fails on the row that is asked to learn what it answers.

    Example:
        >>> import bbox.serving, bbox.targets, httpx
        >>> with bbox.serving.server(bbox.targets.load("zoo:digits", device="cpu")) as up:
        ...     httpx.get(up.url).json()["outputs"]
        [{'name': 'scores', 'datatype': 'FP32', 'shape': [-1, 10]}]
    """

    def __init__(
        self, target: Target, faults: Faults, *, name: str | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._socket = _bound(host, port)
        try:
            self._service = Service(target, faults, name=name, stop=self._stop)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/v2/models/{self._service.name}"
        config = uvicorn.Config(
            self._service.app,
            http=_Closable,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="bbox-server")
        # Python 3.11 takes a thread for ended when Ctrl-C strikes in its join, so an event is what others wait for.
        self._ended = threading.Event()

    @property
    def books(self) -> Books:
        """What the server has counted until now."""
        return self._service.books

    def wait(self) -> None:
        """Return when the server has stopped by itself (``Faults.die_after``)."""
        self._ended.wait()

    def __enter__(self) -> Server:
        self._thread.start()
        while not self._server.started:
            if self._ended.wait(0.005):
                self._service.close()
                raise InternalError(f"the server at {self.url} did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._ended.wait()
        self._thread.join()
        self._socket.close()
        self._service.close()

    def _run(self) -> None:
        try:
            self._server.run([self._socket])
        finally:
            self._ended.set()

    def _stop(self) -> None:
        self._server.should_exit = True


class _Closable(H11Protocol):
    """Tells the application of its connection, so that a fault can close it. No other server has a way to do that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: Any = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, TRANSPORT: transport}, receive, send)

        self.app = with_transport


def _bound(host: str, port: int) -> socket.socket:
    if not loopback(host):
        raise UsageError(
            f"--host {host} is not this machine's loopback; anybody could ask the model there, so use 127.0.0.1 "
            "(and a reverse proxy or a tunnel of your own)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: asyncio sends small packets at once only on sockets that say TCP, and an answer would
    # wait 40 ms for the client's acknowledgement otherwise.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # so that a second server on this port is refused here
        return listening
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise UsageError(f"port {port} of {host} cannot be had ({reason}); --port 0 picks a free one") from error
