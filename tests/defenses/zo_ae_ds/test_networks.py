"""Denoisers start as the identity; the autoencoder's bottleneck is linear and standardised."""

from __future__ import annotations

import pytest
import torch

from bbox.defenses.zo_ae_ds.networks import DENOISERS, Autoencoder, Purifier, Student

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 7), (2, 17, 30)]


@pytest.mark.parametrize("name", list(DENOISERS))
@pytest.mark.parametrize("shape", SHAPES)
def test_an_untrained_denoiser_is_the_identity(name: str, shape: tuple[int, ...]) -> None:
    rows = torch.rand(3, *shape)
    assert torch.equal(DENOISERS[name](shape[0])(rows), rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_autoencoder_keeps_the_shape_and_answers_pixels(shape: tuple[int, ...]) -> None:
    rows = torch.rand(40, *shape)
    autoencoder = Autoencoder(shape, 6)
    autoencoder.standardise(rows)
    with torch.no_grad():
        features, back = autoencoder.encode(rows), autoencoder(rows)
    assert features.shape == (40, 6)
    assert back.shape == rows.shape and float(back.min()) >= 0 and float(back.max()) <= 1
    torch.testing.assert_close(features.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(6), atol=1e-3, rtol=0)
    assert bool((features < 0).any()), "a bottleneck behind a ReLU has no negative features"


def test_without_an_autoencoder_a_point_is_the_image_and_leaves_as_pixels() -> None:
    purifier = Purifier(DENOISERS["dncnn"](1), None)
    points = torch.tensor([-0.5, 0.25, 1.5]).view(1, 1, 1, 3).requires_grad_(True)
    image = purifier.image(points)
    assert image.tolist() == [[[[0.0, 0.25, 1.0]]]]
    (gradient,) = torch.autograd.grad(image.sum(), points)
    assert gradient.tolist() == [[[[1.0, 1.0, 1.0]]]]  # the cut is not in the gradient


def test_the_decoder_is_not_trained() -> None:
    autoencoder = Autoencoder((1, 8, 8), 4)
    trained = {id(p) for p in Purifier(DENOISERS["unet"](1), autoencoder).trainable()}
    assert not trained & {id(p) for p in autoencoder.decoder.parameters()}
    assert trained >= {id(p) for p in autoencoder.encoder.parameters()}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_student_takes_any_size(shape: tuple[int, ...]) -> None:
    assert Student(shape[0], 7)(torch.rand(2, *shape)).shape == (2, 7)
