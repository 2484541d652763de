"""Ray workers over HTTP: the server's own books hold the limits, over all workers and the driver together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bbox.errors import RequestLimitError
from bbox.results.records import Config
from bbox.results.run import execute
from bbox.results.session import describe_run, load_plan
from bbox.results.store import RunFolder
from bbox.serving import server
from bbox.targets import load


def _run(path: Path, config: Config) -> dict[str, Any]:
    if not path.exists():
        plan = load_plan(config)
        with RunFolder.create(path, describe_run(plan, "a test")) as folder:
            return execute(plan, folder)
    with RunFolder.open(path) as folder:
        return execute(load_plan(config, used_requests=folder.requests()), folder)


@pytest.mark.usefixtures("cluster")
def test_every_request_that_is_allowed_and_not_one_more(tmp_path: Path) -> None:
    with server(load("zoo:digits", device="cpu")) as up:
        config = Config(target=up.url, limit=16, budget=40, max_batch=64)
        local = _run(tmp_path / "local", config)
        before = up.books.requests
        sharded = replace(config, engine="ray", workers=2, max_requests=40)
        for limit in (40, 50):
            with pytest.raises(RequestLimitError, match=f"limit of {limit} requests"):
                _run(tmp_path / "ray", replace(sharded, max_requests=limit))
            assert up.books.requests - before == limit
        assert _run(tmp_path / "ray", replace(sharded, max_requests=500)) == local
        with RunFolder.open(tmp_path / "ray") as folder:
            sent = [book["requests"] for session in folder.sessions() for book in session["ledger"].values()]
        assert sum(sent) == up.books.requests - before < 500
