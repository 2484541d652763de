"""The batch size is measured on the probe's books, and a small memory or a remote target is respected."""

from __future__ import annotations

import time

import pytest
import torch

from bbox.calibrate import calibrate, choose_threads, usable_cores
from bbox.oracle import Oracle
from tests.toys import CLASSES, Quadratic, SmallMemory

EXAMPLE = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))


class _Timed(Quadratic):
    """Takes ``fixed`` seconds a forward and ``each`` a row, and ``slow`` a row beyond ``cache`` rows."""

    def __init__(self, fixed: float, each: float, cache: int = 10_000, slow: float = 0.0) -> None:
        super().__init__()
        self.fixed, self.each, self.cache, self.slow = fixed, each, cache, slow

    def answer(self, rows: torch.Tensor) -> torch.Tensor:
        time.sleep(self.fixed + len(rows) * (self.each if len(rows) <= self.cache else self.slow))
        return torch.zeros(len(rows), CLASSES)


def test_rows_go_on_the_probes_books() -> None:
    target = Quadratic()
    oracle = Oracle(target)
    chosen = calibrate(oracle, EXAMPLE, seconds=0.3)
    assert chosen == oracle.max_batch
    assert oracle.books["probe"].queries == target.rows > 0
    assert oracle.books["attack"].queries == 0


def test_a_constant_cost_a_forward_asks_for_large_batches() -> None:
    oracle = Oracle(_Timed(0.01, 1e-6))
    assert calibrate(oracle, EXAMPLE, seconds=3) >= 256


def test_a_cost_a_row_is_content_with_small_ones() -> None:
    oracle = Oracle(_Timed(0.0, 1e-3))
    assert calibrate(oracle, EXAMPLE, seconds=3) <= 32


def test_it_stays_below_where_the_rate_falls() -> None:
    oracle = Oracle(_Timed(0.005, 1e-5, cache=128, slow=2e-3))
    assert calibrate(oracle, EXAMPLE, seconds=3) in (32, 128)


def test_it_keeps_to_its_time() -> None:
    target = _Timed(0.0, 0.02)
    began = time.perf_counter()
    calibrate(Oracle(target), EXAMPLE, seconds=0.5)
    assert time.perf_counter() - began < 2.0
    assert target.rows <= 40


@pytest.mark.parametrize("fits", [1, 5, 20, 100])
def test_a_small_memory_is_respected(fits: int) -> None:
    target = SmallMemory(fits=fits)
    oracle = Oracle(target)
    assert 1 <= calibrate(oracle, EXAMPLE, seconds=1) <= fits
    assert oracle.books["probe"].queries == target.rows


def test_a_remote_target_is_not_probed() -> None:
    target = Quadratic()
    target.in_process = False
    oracle = Oracle(target)
    assert calibrate(oracle, EXAMPLE) == 64
    assert choose_threads(oracle, EXAMPLE) == 1
    assert target.rows == 0


def test_threads_are_one_where_more_do_not_help() -> None:
    oracle = Oracle(_Timed(0.002, 0.0))
    try:
        assert choose_threads(oracle, EXAMPLE) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert set(oracle.books) <= {"probe"}


def test_usable_cores() -> None:
    assert usable_cores() >= 1
