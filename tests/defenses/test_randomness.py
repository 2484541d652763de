"""Keys of fresh noise: by row and repeat, in any batch, in bounded memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bbox.defenses import make_defense
from bbox.defenses.randomness import RowKeys, row_digest
from tests.toys import Quadratic


def rows_of(count: int, seed: int = 0, shape: tuple[int, ...] = (1, 6, 6)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def test_keys_do_not_depend_on_the_batch() -> None:
    rows = rows_of(40)
    whole = RowKeys(0)(rows)
    alone = RowKeys(0)
    assert torch.equal(torch.cat([alone(row[None]) for row in rows]), whole)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(RowKeys(0)(rows[order]), whole[order])
    assert len(RowKeys(0)(rows[:0])) == 0


def test_repeats_get_fresh_keys_in_order_within_a_batch_and_across() -> None:
    row = rows_of(1)
    across = RowKeys(0)
    one_by_one = torch.cat([across(row) for _ in range(5)])
    assert len(one_by_one.unique()) == 5
    assert torch.equal(RowKeys(0)(row.repeat(5, 1, 1, 1)), one_by_one)
    assert not set(RowKeys(1)(row.repeat(5, 1, 1, 1)).tolist()) & set(one_by_one.tolist())


@pytest.mark.parametrize("remembered", [1, 4, 100])
def test_memory_is_bounded_and_what_was_asked_lately_is_remembered(remembered: int) -> None:
    keys = RowKeys(0, remembered=remembered)
    given: dict[int, set[int]] = {}
    for k in range(300):
        for number in (k, max(k - remembered // 2, 0)):  # at most ``remembered`` others since the second was asked
            key = int(keys(torch.full((1, 1, 2, 2), number / 300)))
            assert key not in given.setdefault(number, set())
            given[number].add(key)
        assert len(keys) <= 2 * remembered
    assert len(keys) >= remembered


def test_digests_do_not_collide_on_rows_that_differ_little() -> None:
    base = torch.zeros(1, 4096)
    binary = base.repeat(4096, 1).fill_diagonal_(1.0)  # one pixel on, each elsewhere
    last_bit = torch.full((4096, 4096), 0.5)
    last_bit.diagonal().copy_(torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)))
    pairs = (torch.rand(20_000, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    for rows in (binary, last_bit, pairs.unique(dim=0)):
        assert len(row_digest(rows).unique()) == len(rows)
    swapped = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [2.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    assert len(row_digest(swapped).unique()) == 4


def test_digests_see_rows_longer_than_their_table() -> None:
    rows = torch.zeros(3, 3, 160, 160)
    rows[1, 0, 0, 0] = rows[2].view(-1)[1 << 16] = 1  # the same place of the table
    assert len(row_digest(rows).unique()) == 3


def test_the_layout_of_memory_does_not_matter() -> None:
    rows = rows_of(5, shape=(3, 4, 4))
    assert torch.equal(row_digest(rows.contiguous(memory_format=torch.channels_last)), row_digest(rows))


def test_a_fresh_twin_goes_on_counting() -> None:
    wrapped = make_defense("noise").wrap(make_defense("blacklight").wrap(Quadratic((1, 6, 6))))
    twin = wrapped.fresh()
    assert twin is not wrapped
    assert twin.keys is wrapped.keys  # type: ignore[attr-defined]
