"""Prompters: what a vector of parameters makes of images, by hand; nothing at the start; inside the valid box."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bbox.defenses.blackvip.encoders import make_encoder
from bbox.defenses.blackvip.prompters import Coordinator, Prompter, Reprogram, UniversalPrompt, standardise
from tests.defenses.blackvip.boxes import images

SHAPE = (1, 8, 8)
ROWS, _ = images(20)
ENCODER = make_encoder("pca:6", ROWS, device="cpu")


def _coordinator(**options: object) -> Coordinator:
    return Coordinator(ENCODER, SHAPE, **options)  # type: ignore[arg-type]


def _moved(prompter: Prompter, m: int, size: float = 0.3, seed: int = 0) -> Tensor:
    drawn = torch.randn(m, prompter.dim, generator=torch.Generator().manual_seed(seed))
    return prompter.start(seed) + size * drawn


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_the_first_prompt_of_a_zero_start_is_none_to_the_last_bit(norm: str) -> None:
    coordinator = _coordinator(norm=norm, scale=3.0, trigger_scale=30.0)
    rows = coordinator.rows(coordinator.start(0)[None], ROWS, coordinator.context(ROWS))
    assert coordinator.starts_clean
    assert torch.equal(rows[0], ROWS)


def test_a_random_start_is_a_prompt() -> None:
    coordinator = _coordinator(zero=False)
    rows = coordinator.rows(coordinator.start(0)[None], ROWS, coordinator.context(ROWS))
    assert not coordinator.starts_clean
    assert float((rows[0] - ROWS).abs().mean()) > 0.01


def test_a_start_is_replayed_by_its_seed() -> None:
    coordinator = _coordinator()
    assert torch.equal(coordinator.start(3), coordinator.start(3))
    assert not torch.equal(coordinator.start(3), coordinator.start(4))
    assert coordinator.start(3).shape == (coordinator.dim,)


def test_the_trigger_starts_the_same_whatever_its_scale() -> None:
    """As published it is drawn from U(0, 0.1): the scale changes how far a step moves it, not where it starts."""
    plain, scaled = _coordinator(trigger_scale=1.0), _coordinator(trigger_scale=30.0)
    first = plain.start(0)[: plain.trigger]
    torch.testing.assert_close(30.0 * scaled.start(0)[: scaled.trigger], first)
    assert float(first.min()) >= 0 and 0.08 < float(first.max()) <= 0.1


def test_the_coordinator_is_its_equation() -> None:
    """x + scale * decoder([features, trigger_scale * trigger]), clipped, for each weight vector apart."""
    statistics = standardise(ENCODER(ROWS) * 3 + 1)
    coordinator = _coordinator(scale=0.7, trigger_scale=5.0, norm="none", **statistics)
    weights = _moved(coordinator, 3)
    context = coordinator.context(ROWS)
    torch.testing.assert_close(context, (ENCODER(ROWS) - statistics["center"]) / statistics["spread"])
    found = coordinator.rows(weights, ROWS, context)
    for i, vector in enumerate(weights):
        trigger = 5.0 * vector[: coordinator.trigger]
        for row, image in enumerate(ROWS):
            source = torch.cat([context[row], trigger])
            prompt = coordinator.decoder(vector[None, coordinator.trigger :], source[None, None], backend="loop")[0, 0]
            torch.testing.assert_close(found[i, row], (image + 0.7 * prompt).clamp(0, 1), atol=1e-5, rtol=0)


def test_features_give_each_image_its_own_prompt() -> None:
    coordinator = _coordinator(norm="none", scale=0.01)
    grey = torch.full_like(ROWS, 0.5)
    rows = coordinator.rows(_moved(coordinator, 1), grey, coordinator.context(ROWS))[0]
    assert float((rows[0] - rows[1]).abs().max()) > 1e-4


@pytest.mark.parametrize("backend", ["bmm", "loop", "vmap"])
def test_back_ends_make_the_same_rows(backend: str) -> None:
    weights = _moved(_coordinator(), 4)
    found = _coordinator(backend=backend).rows(weights, ROWS, ENCODER(ROWS))
    torch.testing.assert_close(
        found, _coordinator(backend="loop").rows(weights, ROWS, ENCODER(ROWS)), atol=1e-5, rtol=0
    )


def test_group_norm_serves_a_row_as_in_any_batch() -> None:
    coordinator = _coordinator(norm="group")
    weights, context = _moved(coordinator, 1), coordinator.context(ROWS)
    whole = coordinator.rows(weights, ROWS, context)[0]
    assert coordinator.statistics(weights[0], ROWS, context) is None
    for some in ([0], [3, 1], list(range(19, -1, -1))):
        found = coordinator.rows(weights, ROWS[some], context[some])[0]
        torch.testing.assert_close(found, whole[some], atol=1e-6, rtol=0)


def test_batch_norm_serves_with_the_statistics_of_the_training_images() -> None:
    coordinator = _coordinator(norm="batch", zero=False)
    weights, context = _moved(coordinator, 1), coordinator.context(ROWS)
    fixed = coordinator.statistics(weights[0], ROWS, context)
    assert fixed is not None
    whole = coordinator.rows(weights, ROWS, context)[0]  # over all images the batch's own are the fixed ones
    alone = torch.cat([coordinator.rows(weights, ROWS[i : i + 1], context[i : i + 1], fixed)[0] for i in range(20)])
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)
    unfixed = coordinator.rows(weights, ROWS[:1], context[:1])[0]
    assert float((unfixed - whole[:1]).abs().max()) > 1e-3


@pytest.mark.parametrize("frame", [0, 1, 3])
def test_a_universal_prompt_is_added_to_every_image(frame: int) -> None:
    prompter = UniversalPrompt(SHAPE, frame)
    assert prompter.starts_clean and prompter.dim == {0: 64, 1: 28, 3: 60}[frame]
    assert torch.equal(prompter.rows(prompter.start(0)[None], ROWS, prompter.context(ROWS))[0], ROWS)
    weights = _moved(prompter, 2, size=0.5)
    found = prompter.rows(weights, ROWS, prompter.context(ROWS))
    for i, vector in enumerate(weights):
        at, prompt = 0, torch.zeros(8, 8)
        for y in range(8):
            for x in range(8):
                if frame == 0 or min(x, y, 7 - x, 7 - y) < frame:
                    prompt[y, x], at = vector[at], at + 1
        torch.testing.assert_close(found[i], (ROWS + prompt).clamp(0, 1), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("shape", "small"), [((1, 8, 8), (6, 6)), ((3, 28, 20), (24, 18)), ((3, 224, 224), (194, 194))]
)
def test_bar_puts_the_shrunk_image_into_a_program(shape: tuple[int, int, int], small: tuple[int, int]) -> None:
    prompter = Reprogram(shape)
    assert prompter.inner == small and not prompter.starts_clean
    assert prompter.dim == shape[0] * (shape[1] * shape[2] - small[0] * small[1])
    rows = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    weights = torch.linspace(-3, 3, prompter.dim)[None]
    found = prompter.rows(weights, rows, prompter.context(rows))[0]
    top, left = (shape[1] - small[0]) // 2, (shape[2] - small[1]) // 2
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[:, top : top + small[0], left : left + small[1]] = True
    shrunk = F.interpolate(rows, small, mode="bilinear", antialias=True, align_corners=False)
    assert torch.equal(found[:, inside], shrunk.flatten(1))
    assert torch.equal(found[:, ~inside], torch.sigmoid(weights).expand(2, -1))
    dark = prompter.rows(prompter.start(0)[None], rows, prompter.context(rows))[0]
    assert float(dark[:, ~inside].max()) < 0.02


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    size=st.floats(0, 100),
    which=st.sampled_from(["group", "batch", "none", "vp", "frame", "bar"]),
)
def test_rows_stay_in_the_valid_box(seed: int, size: float, which: str) -> None:
    prompter: Prompter
    if which in ("vp", "frame"):
        prompter = UniversalPrompt(SHAPE, 2 if which == "frame" else 0)
    else:
        prompter = Reprogram(SHAPE) if which == "bar" else _coordinator(norm=which, scale=2.0)
    rows = prompter.rows(_moved(prompter, 2, size, seed), ROWS[:5], prompter.context(ROWS[:5]))
    assert rows.shape == (2, 5, *SHAPE)
    assert bool(((rows >= 0) & (rows <= 1)).all())


def test_a_prompter_leaves_the_images_it_is_given_alone() -> None:
    kept = ROWS.clone()
    for prompter in (_coordinator(), UniversalPrompt(SHAPE), Reprogram(SHAPE)):
        prompter.rows(_moved(prompter, 2), ROWS, prompter.context(ROWS))
        assert torch.equal(ROWS, kept)


def test_a_constant_feature_is_not_divided_by_zero() -> None:
    features = torch.rand(9, 3)
    features[:, 1] = 0.5
    found = standardise(features)
    assert float(found["spread"].min()) > 0
    scaled = (features - found["center"]) / found["spread"]
    assert bool(scaled.isfinite().all()) and float(scaled[:, 1].abs().max()) < 1
