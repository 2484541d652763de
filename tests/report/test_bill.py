"""The page of a run over HTTP says what the terminal says of its bill."""

from __future__ import annotations

from pathlib import Path

import bbox
from bbox.report import render
from bbox.report.bill import bill
from bbox.results.store import RunFolder
from bbox.serving import Faults, running


def test_the_bill_stands_on_the_page(tmp_path: Path) -> None:
    digits = bbox.data.load("zoo:digits").select(limit=2)
    with running(bbox.targets.load("zoo:digits", device="cpu"), Faults(rate_429=0.2)) as url:
        bbox.attack(url, digits, attack="cgba", budget=40, out=tmp_path / "run")
    with RunFolder.open(tmp_path / "run") as folder:
        told, page = bill(folder), render(folder)
        again = sum(book["retried"] for book in folder.sessions()[-1]["ledger"].values())
    assert again > 0 and told.endswith(f", {again:,} of them again")
    assert f"<p>{told[0].upper()}{told[1:]}.</p>" in page
    assert "of them again</th>" in page


def test_a_run_on_this_machine_has_none(tmp_path: Path) -> None:
    digits = bbox.data.load("zoo:digits").select(limit=1)
    bbox.attack("zoo:digits", digits, attack="cgba", budget=20, out=tmp_path / "run")
    with RunFolder.open(tmp_path / "run") as folder:
        assert bill(folder) == ""
        assert "of them again" not in render(folder)
