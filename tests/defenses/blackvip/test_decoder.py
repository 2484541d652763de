"""The decoder: the paper's size, back-ends that agree, norms that do what they say, torch's initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bbox.defenses.blackvip.decoder import Decoder, Norm

SHAPES = [(1, 28, 28), (3, 16, 16), (3, 32, 32), (1, 96, 96), (3, 20, 45), (1, 33, 12), (1, 8, 8), (1, 3, 5)]


def _drawn(decoder: Decoder, m: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights with a last layer that is not zero, each vector another one, and sources."""
    generator = torch.Generator().manual_seed(seed)
    start = decoder.start(generator, zero=False)
    weights = start + 0.05 * torch.randn(m, decoder.dim, generator=generator)
    return weights, torch.randn(m, n, decoder.source, generator=generator)


def test_at_224_pixels_it_is_the_papers() -> None:
    decoder = Decoder((3, 224, 224), least=math.ceil(1.5 * 768))
    assert (decoder.channels, decoder.grid, decoder.source) == (32, (7, 7), 1568)
    trigger = decoder.source - 768
    assert trigger == 800
    assert trigger + decoder.dim == 9920


def test_its_layers_are_those_of_the_paper() -> None:
    """Shapes of torch's modules for section 3.2, in the order of the vector."""
    layers = []
    for inside, grown, out in ((32, 64, 64), (64, 64, 32), (32, 32, 32), (32, 32, 16)):
        up = nn.ConvTranspose2d(inside, grown, 2, stride=2, groups=inside)
        layers += [up, nn.Conv2d(grown, out, 1, bias=False), nn.BatchNorm2d(out)]
    layers.append(nn.ConvTranspose2d(16, 3, 2, stride=2, bias=False))
    published = [parameter.numel() for layer in layers for parameter in layer.parameters()]
    assert [math.prod(shape) for _, shape in Decoder((3, 224, 224)).layout] == published


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_back_ends_agree(shape: tuple[int, int, int], norm: Norm) -> None:
    decoder = Decoder(shape, norm=norm)
    weights, source = _drawn(decoder, 3, 4)
    tables = {backend: decoder(weights, source, backend=backend) for backend in ("bmm", "loop", "vmap")}
    assert tables["bmm"].shape == (3, 4, *shape)
    assert float(tables["loop"].std()) > 0.01, "a prompt of nothing would agree with anything"
    for backend in ("bmm", "vmap"):
        torch.testing.assert_close(tables[backend], tables["loop"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["bmm", "loop", "vmap"])
def test_the_back_ends_agree_on_fixed_statistics(backend: str) -> None:
    decoder = Decoder((3, 16, 24), norm="batch")
    weights, source = _drawn(decoder, 1, 6)
    fixed = decoder.statistics(weights[0], source[0])
    assert fixed is not None and len(fixed) == len(decoder.stages)
    found = decoder(weights, source, statistics=fixed, backend=backend)
    # Over all sources the fixed statistics are those of the batch.
    torch.testing.assert_close(found, decoder(weights, source, backend="loop"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["bmm", "loop", "vmap"])
@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_a_row_alone_has_the_prompt_that_it_has_in_a_batch(norm: Norm, backend: str) -> None:
    """With batch norm that takes fixed statistics; without them the rows beside it matter."""
    decoder = Decoder((1, 28, 28), norm=norm)
    weights, source = _drawn(decoder, 2, 5)
    fixed = decoder.statistics(weights[0], source[0])
    whole = decoder(weights, source, statistics=fixed, backend=backend)
    for row in range(5):
        alone = decoder(weights, source[:, row : row + 1], statistics=fixed, backend=backend)
        torch.testing.assert_close(alone[:, 0], whole[:, row], atol=1e-5, rtol=1e-4)
    if norm == "batch":
        other = decoder(weights, source[:, :2], backend=backend)
        assert not torch.allclose(other, decoder(weights, source, backend=backend)[:, :2], atol=1e-3)
    else:
        assert fixed is None


def test_each_weight_vector_works_on_its_own_sources_alone() -> None:
    decoder = Decoder((3, 16, 16), norm="batch")
    weights, source = _drawn(decoder, 3, 4)
    together = decoder(weights, source)
    for i in range(3):
        torch.testing.assert_close(decoder(weights[i : i + 1], source[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-4)


def test_a_cell_of_the_source_makes_its_own_patch() -> None:
    """No layer mixes neighbouring cells: one cell's numbers reach 2^levels by 2^levels pixels."""
    decoder = Decoder((1, 28, 28), norm="none")
    weights, source = _drawn(decoder, 1, 1)
    before = decoder(weights, source)[0, 0, 0]
    moved = source.view(1, 1, decoder.channels, *decoder.grid).clone()
    moved[..., 1, 2] += 1
    changed = (decoder(weights, moved.view_as(source))[0, 0, 0] - before).abs() > 1e-7
    side = 2**decoder.levels
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[side : 2 * side, 2 * side : 3 * side] = True
    assert bool(changed.any()) and not bool((changed & ~expected).any())
    assert float(changed[expected].float().mean()) > 0.9


def test_a_zero_start_is_no_prompt_and_a_random_one_is_torchs() -> None:
    decoder = Decoder((3, 96, 96))
    zero, drawn = (decoder.start(torch.Generator().manual_seed(0), zero=flag) for flag in (True, False))
    source = torch.randn(1, 2, decoder.source)
    assert torch.equal(decoder(zero[None], source), torch.zeros(1, 2, 3, 96, 96))
    last = 4 * 3 * decoder.stages[-1][2]
    assert torch.equal(zero[:-last], drawn[:-last]) and not bool(zero[-last:].any())
    at = 0
    for name, shape in decoder.layout:
        part, at = drawn[at : at + math.prod(shape)], at + math.prod(shape)
        if name.startswith("norm"):
            assert set(part.tolist()) == {0.0 if "bias" in name else 1.0}
        elif "bias" not in name:
            layer = nn.Conv2d(shape[1], shape[0], 1) if name.startswith("mix") else nn.ConvTranspose2d(*shape[:2], 2)
            expected = layer.weight.detach()
            assert expected.numel() == part.numel()
            assert float(part.abs().max()) == pytest.approx(float(expected.abs().max()), rel=0.1), name
            assert float(part.std()) == pytest.approx(float(expected.std()), rel=0.2), name


@pytest.mark.parametrize(("least", "channels"), [(0, 16), (784, 16), (785, 32), (4000, 128)])
def test_the_source_grows_until_it_holds_the_features(least: int, channels: int) -> None:
    decoder = Decoder((1, 28, 28), least=least)
    assert (decoder.grid, decoder.channels, decoder.source) == ((7, 7), channels, 49 * channels)
    weights, source = _drawn(decoder, 2, 2)
    found = decoder(weights, source)
    torch.testing.assert_close(found, decoder(weights, source, backend="loop"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 224, 224), (3, 300, 200), (1, 1, 1)], ids=str)
def test_the_grid_covers_the_image_with_about_seven_cells(shape: tuple[int, int, int]) -> None:
    decoder = Decoder(shape)
    side = 2**decoder.levels
    for pixels, cells in zip(shape[1:], decoder.grid, strict=True):
        assert (cells - 1) * side < pixels <= cells * side
    if 20 <= max(shape[1:]) <= 300:
        assert 5 <= max(decoder.grid) <= 10
