"""A target as a server: the Open Inference Protocol (KServe V2) on loopback, with faults on demand.

For demos and for tests of whatever talks to a live model. starlette and uvicorn are imported when a server is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bbox.registry import Entry, Registry
from bbox.serving.faults import Faults

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from bbox.serving.hosting import Server
    from bbox.targets.base import Target

__all__ = ["Faults", "app", "running", "server"]

_EXTRA = "bbox-toolkit[serve]"
_PARTS = Registry(
    "command",
    None,
    {
        "app": Entry("bbox.serving.service:Service", needs=_EXTRA),
        "serve": Entry("bbox.serving.hosting:Server", needs=_EXTRA),
    },
)


def app(target: Target, faults: Faults | None = None, *, name: str | None = None) -> Starlette:
    """The target as a starlette application, for a server of your own. Its books are at ``/bbox/books``.

    Args:
        faults: what goes wrong, nothing by default. A dropped connection needs ``running`` or ``server``.
        name: of the model in URLs; default the end of the target's name.

    Raises:
        UsageError: a fault makes no sense for this target, or the extra ``[serve]`` is missing.
        TargetError: the target fails on the row that is asked to learn what it answers.
    """
    made: Starlette = _PARTS.get("app")(target, faults or Faults(), name=name).app
    return made


def server(target: Target, faults: Faults | None = None, **where: Any) -> Server:
    """A server that is not yet started; a context manager. See ``bbox.serving.hosting.Server``.

    Raises:
        UsageError: as ``app``; the host is not this machine, or the port is taken.
    """
    made: Server = _PARTS.get("serve")(target, faults or Faults(), **where)
    return made


@contextmanager
def running(target: Target, faults: Faults | None = None, *, name: str | None = None) -> Iterator[str]:
    """Serve a target on a free port, from a thread of this process, until the block ends.

    Yields:
        the URL of the model, for example ``http://127.0.0.1:40123/v2/models/digits``.

    Raises:
        UsageError, TargetError: as ``app``.
    """
    with server(target, faults, name=name, port=0) as up:
        yield up.url
