"""Preparing images as transformers' own image processors do, which are the reference here."""

import pytest
import torch
from transformers import CLIPImageProcessor, ConvNextImageProcessor, SiglipImageProcessor, ViTImageProcessor

from bbox.errors import InputError
from bbox.targets.pixels import Pixels

_PROCESSORS = {
    "clip": lambda: CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
    "siglip": lambda: SiglipImageProcessor(size={"height": 24, "width": 16}),
    "vit, bilinear": lambda: ViTImageProcessor(size={"height": 32, "width": 32}),
    "convnext, cropped": lambda: ConvNextImageProcessor(size={"shortest_edge": 28}),
    "convnext, warped": lambda: ConvNextImageProcessor(size={"shortest_edge": 384}),
    "no resize": lambda: ViTImageProcessor(do_resize=False),
    "no normalisation": lambda: ViTImageProcessor(size={"height": 9, "width": 9}, do_normalize=False),
}


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (61, 33)])
@pytest.mark.parametrize("kind", _PROCESSORS)
def test_as_the_saved_processor(kind, size):
    processor = _PROCESSORS[kind]()
    images = torch.randint(256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    expected = processor(images=list(images), return_tensors="pt")["pixel_values"]
    pixels = Pixels(processor, where="x")
    found = pixels(images / 255)
    # The reference rounds to bytes after each of two passes; a bicubic filter makes half a level at most 5/8 of one.
    assert found.shape == expected.shape
    assert ((found - expected).abs() * pixels.std).max() <= 1.25 / 255


def test_without_a_resize_it_is_exact():
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    rows = torch.rand(2, 3, 8, 8)
    expected = processor(images=list(rows), do_rescale=False, return_tensors="pt")["pixel_values"]
    assert torch.allclose(Pixels(processor, where="x")(rows), expected, atol=1e-6)


def test_grey_images_are_repeated():
    grey = torch.rand(2, 1, 20, 20)
    for kind in ("clip", "no normalisation"):
        pixels = Pixels(_PROCESSORS[kind](), where="x")
        assert torch.equal(pixels(grey), pixels(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match="x takes 3 channels, and the images have 4"):
        pixels(torch.rand(1, 4, 20, 20))


def test_a_crop_larger_than_the_image():
    pixels = Pixels(CLIPImageProcessor(do_resize=False, crop_size={"height": 24, "width": 24}), where="x")
    with pytest.raises(InputError, match=r"x crops images to \(24, 24\), and they have \(20, 30\)"):
        pixels(torch.rand(1, 3, 20, 30))


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (lambda: ViTImageProcessor(do_rescale=False), "does not scale pixels by 1/255"),
        (lambda: ViTImageProcessor(rescale_factor=1 / 127.5), "does not scale pixels by 1/255"),
        (lambda: ViTImageProcessor(image_std=[0.5, 0.0, 0.5]), r"has std \[0.5, 0.0, 0.5\], expected above zero"),
        (lambda: ViTImageProcessor(size={"shortest_edge": 20, "longest_edge": 40}), "expected height and width or"),
    ],
)
def test_refuses_what_it_does_not_know(processor, message):
    with pytest.raises(InputError, match=message):
        Pixels(processor(), where="x")
