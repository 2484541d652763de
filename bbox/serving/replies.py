"""Replies that do not depend on the model: health, errors, and none at all."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

__all__ = ["TRANSPORT", "dropped", "error", "failed", "live", "ready", "said"]

TRANSPORT = "bbox.transport"  # where the scope of a request holds its connection, for faults that close it


async def live(request: Request) -> Response:
    """The server answers."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """The model can be asked."""
    return JSONResponse({"ready": True})


async def dropped(request: Request) -> Response:
    """Close the connection, and wait until it is closed, so that what is answered then is not sent."""
    transport = request.scope.get(TRANSPORT)
    if transport is None:
        return error(500, "injected fault: a connection can be dropped only by bbox's own server")
    transport.close()
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


def error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error of the protocol."""
    return JSONResponse({"error": text}, status, headers)


def said(request: Request, raised: Exception) -> Response:
    """What starlette itself refuses, as the protocol says it."""
    if isinstance(raised, HTTPException):
        return error(raised.status_code, raised.detail)
    return failed(request, raised)


def failed(request: Request, raised: Exception) -> Response:
    """A defect of this server."""
    return error(500, f"internal error: {type(raised).__name__}: {raised}")
