"""The endpoints of the Open Inference Protocol over one target, and the server's own books."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from bbox.batch import Batch
from bbox.errors import BboxError, UsageError
from bbox.oracle import Answers, Oracle
from bbox.serving.books import Books
from bbox.serving.faults import Draw, Faults
from bbox.serving.protocol import Infer, RefusedError, Signature, read_infer, write_answer
from bbox.serving.replies import dropped, error, failed, live, ready, said
from bbox.targets.base import Target
from bbox.targets.http.tensors import LENGTH

__all__ = ["Service"]

_VERSION = "1"


class Service:
    """A target, its faults and its books, as a starlette application (``app``).

    Rows reach the target through an oracle, one forward at a time, in a thread of their own.

    Args:
        name: of the model in URLs; default the end of the target's name.
        stop: called when ``die_after`` rows were answered.

    Raises:
        UsageError: noise on a target without scores, or a name that cannot stand in a URL.
        TargetError: the target fails on the row that is asked to learn what it answers.
    """

    def __init__(
        self, target: Target, faults: Faults, *, name: str | None = None, stop: Callable[[], None] | None = None
    ) -> None:
        self.target, self.faults, self.name = target, faults, name or _short(target.name)
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise UsageError(f"--name {name!r} cannot stand in a URL; use letters, digits, dots, - and _")
        self.oracle = Oracle(target)
        self.books = Books()
        self.stop = stop
        self.classes = target.num_classes or self._probed()
        if faults.noise > 0 and target.access == "labels":
            raise UsageError(f"--noise is for scores, and {target.name} answers labels")
        self._fingerprint = target.fingerprint()
        self._forwards = ThreadPoolExecutor(1, "bbox-serve")
        self._in_hand = 0
        self._promised = 0
        self.app = Starlette(routes=self._routes(), exception_handlers={HTTPException: said, Exception: failed})

    def close(self) -> None:
        """End the thread that asks the target."""
        self._forwards.shutdown(cancel_futures=True)

    @property
    def signature(self) -> Signature:
        """What goes in and out; a callable may tell only with its first answer whether it gives labels."""
        target = self.target
        labels = target.access == "labels" or self.faults.labels_only
        if target.takes == "code":
            pairs = bool(getattr(target, "pairs", False))
            shape: tuple[int, ...] = (-1, 2) if pairs else (-1,)
            language = getattr(target, "language", None)
            return Signature("code", shape, "labels" if labels else "scores", self.classes, pairs, language)
        row = target.input_shape or (-1,) * (4 if target.takes == "motion" else 3)
        return Signature(target.takes, (-1, *row), "labels" if labels else "scores", self.classes)

    def _probed(self) -> int:
        """The number of classes of a target that does not say, from its answer to one row; -1 where none is known."""
        if self.target.input_shape is None or self.target.takes == "code":
            return -1
        answers = self.oracle.ask(torch.full((1, *self.target.input_shape), 0.5), "probe")
        return -1 if answers.scores is None else answers.scores.shape[1]

    def _routes(self) -> list[Route]:
        routes = [
            Route("/v2", self._server),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
            Route("/bbox/books", self._books),
        ]
        for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(prefix, self._model),
                Route(f"{prefix}/ready", self._model_ready),
                Route(f"{prefix}/infer", self._infer, methods=["POST"]),
            ]
        return routes

    async def _server(self, request: Request) -> Response:
        return JSONResponse(
            {"name": "bbox", "version": metadata.version("bbox-toolkit"), "extensions": ["binary_tensor_data"]}
        )

    async def _books(self, request: Request) -> Response:
        return JSONResponse(asdict(self.books))

    async def _model(self, request: Request) -> Response:
        self._check_name(request)
        target, model = self.target, self.signature
        parameters: dict[str, Any] = {
            "takes": target.takes,
            "deterministic": target.deterministic and self.faults.noise == 0,
            "refuses": target.refuses,
            "fingerprint": self._fingerprint,
        }
        if target.class_names is not None:
            parameters["class_names"] = list(target.class_names)
        if model.language is not None:
            parameters["language"] = model.language
        return JSONResponse(
            {
                "name": self.name,
                "versions": [_VERSION],
                "platform": "bbox",
                "inputs": model.inputs(),
                "outputs": model.outputs(),
                "parameters": parameters,
            }
        )

    async def _model_ready(self, request: Request) -> Response:
        self._check_name(request)
        return JSONResponse({"name": self.name, "ready": True})

    def _check_name(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", _VERSION)
        if name != self.name:
            raise HTTPException(404, f"no model {name!r}; this server has {self.name!r}")
        if version != _VERSION:
            raise HTTPException(404, f"no version {version!r} of {name!r}; there is {_VERSION!r}")

    async def _infer(self, request: Request) -> Response:
        self._check_name(request)
        draw = self.faults.draw(self.books.requests)
        self.books.requests += 1
        self._in_hand += 1
        self.books.most_at_once = max(self.books.most_at_once, self._in_hand)
        try:
            body = await request.body()
            coding = request.headers.get("content-encoding", "identity")
            if coding != "identity":
                raise RefusedError(f"the request's Content-Encoding is {coding!r}; send it uncompressed")
            infer = await asyncio.to_thread(read_infer, body, request.headers.get(LENGTH), self.signature)
            self.books.rows += len(infer.rows)
            if draw.delay > 0:
                await asyncio.sleep(draw.delay)
            return await self._struck(request, draw, len(infer.rows)) or await self._answered(infer, draw)
        except RefusedError as raised:
            self.books.refused += 1
            return error(400, str(raised))
        except BboxError as raised:
            self.books.failed += 1
            return error(500, str(raised))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        finally:
            self._in_hand -= 1

    async def _struck(self, request: Request, draw: Draw, rows: int) -> Response | None:
        """What a fault answers, ``None`` where none strikes."""
        limit = self.faults.die_after
        if limit is not None and draw.fault is None and self._promised + rows > limit:
            self.books.faults["died"] += 1
            self._die()
            return await dropped(request)
        if draw.fault is None:
            self._promised += rows
            return None
        self.books.faults[draw.fault] += 1
        if draw.fault == "drop":
            return await dropped(request)
        if draw.fault == "500":
            return error(500, "injected fault")
        wait = self.faults.retry_after
        return error(429, "injected fault: too many requests", {} if wait is None else {"retry-after": f"{wait:g}"})

    async def _answered(self, infer: Infer, draw: Draw) -> Response:
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._forwards, self._ask, infer.rows, draw.seed)
        except BaseException:
            self._promised -= len(infer.rows)
            raise
        body, headers = write_answer(answer, self.signature, name=self.name, infer=infer)
        self.books.answered += len(infer.rows)
        if self.books.answered == self.faults.die_after:
            self._die()
        return Response(body, headers=headers)

    def _ask(self, rows: Batch, seed: int) -> Tensor:
        answers: Answers = self.oracle.ask(rows, "serve")
        if answers.scores is None:
            return answers.labels
        if self.classes < 0:
            self.classes = answers.scores.shape[1]
        scores = answers.scores
        if self.faults.noise > 0:
            generator = torch.Generator().manual_seed(seed)
            scores = scores + self.faults.noise * torch.randn(scores.shape, generator=generator)
        if not self.faults.labels_only:
            return scores
        return torch.where(answers.labels < 0, answers.labels, scores.argmax(1))

    def _die(self) -> None:
        if self.stop is not None:
            self.stop()


def _short(name: str) -> str:
    """The end of a target's name, for a URL: ``digits`` of ``zoo:digits``, ``model`` of ``dir/model.onnx``."""
    last = PurePosixPath(name.rpartition(":")[2]).name
    last = re.sub(r"\.(pt2|pt|pth|onnx|skops|joblib|pkl)$", "", last)
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model"
