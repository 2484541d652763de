"""One picture: written and read on the same grid, and every kind that is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from bbox.data import read_image, save_image
from bbox.errors import InputError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [torch.from_numpy, np.asarray])
def test_round_trip_is_the_8_bit_grid(tmp_path, channels, make):
    array = np.random.default_rng(0).random((channels, 16, 9), dtype=np.float32)
    save_image(tmp_path / "a.png", make(array))
    read = read_image(tmp_path / "a.png")
    assert read.dtype == torch.float32 and read.shape == (channels, 16, 9)
    assert torch.equal(read, torch.round(torch.from_numpy(array) * 255) / 255)
    save_image(tmp_path / "b.png", read)
    assert torch.equal(read_image(tmp_path / "b.png"), read)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_all_256_levels_come_back(tmp_path):
    levels = torch.arange(256).reshape(1, 16, 16).to(torch.float32) / 255
    save_image(tmp_path / "a.png", levels)
    assert torch.equal(read_image(tmp_path / "a.png"), levels)


def test_every_format_of_pillow_agrees(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for name in ("a.bmp", "a.tif", "a.ppm", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert torch.equal(read_image(tmp_path / name), torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True)
    assert torch.equal(read_image(tmp_path / "a.webp"), read_image(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (torch.zeros(2, 4, 4), r"picture has shape \(2, 4, 4\), expected \(1 or 3, height, width\)"),
        (torch.zeros(4, 4), r"shape \(4, 4\)"),
        (torch.zeros(1, 3, 4, 4), r"shape \(1, 3, 4, 4\)"),
        (torch.zeros(3, 0, 4), r"shape \(3, 0, 4\)"),
        (torch.full((1, 2, 2), float("nan")), "not finite"),
        (torch.full((1, 2, 2), 1.5), r"from 1.5 to 1.5, expected \[0, 1\]"),
        (torch.full((1, 2, 2), -0.1), "from -0.1"),
    ],
)
def test_save_refuses(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        save_image(tmp_path / "a.png", array)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_image(path, torch.zeros(1, 4, 4))
    before = path.read_bytes()

    def fail(self, file, format):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_image(path, torch.ones(1, 4, 4))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grayscale_has_one_channel(tmp_path, mode):
    Image.new(mode, (4, 3), 1).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (1, 3, 4)


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "png"), ("P", "png"), ("CMYK", "jpg"), ("YCbCr", "jpg")])
def test_colour_has_three(tmp_path, mode, suffix):
    Image.new("RGB", (4, 3), (10, 20, 30)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}").shape == (3, 3, 4)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("LA", 1)])
def test_opaque_alpha_is_dropped(tmp_path, mode, channels):
    Image.new("RGB", (4, 3), (10, 10, 10)).convert(mode).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read.shape == (channels, 3, 4) and torch.allclose(read, torch.full_like(read, 10 / 255))


def test_transparent_pixels_are_refused(tmp_path):
    image = Image.new("RGBA", (4, 3), (10, 20, 30, 255))
    image.putpixel((1, 1), (0, 0, 0, 254))
    image.save(tmp_path / "a.png")
    palette = Image.new("P", (4, 3))
    palette.save(tmp_path / "p.png", transparency=0)
    for name in ("a.png", "p.png"):
        with pytest.raises(InputError, match=f"{name}: has transparent pixels; flatten it"):
            read_image(tmp_path / name)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 8, 4)


def sixteen_bit_rgb(path):
    """A PNG of 16 bits a channel, which Pillow reads as 8 bits without a word."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x12\x34" * 3 * 2) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_more_than_8_bits_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "gray.png")
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)).save(tmp_path / "int.tif")
    sixteen_bit_rgb(tmp_path / "rgb.png")
    for name in ("gray.png", "float.tif", "int.tif", "rgb.png"):
        with pytest.raises(InputError, match=f"{name}: more than 8 bits a channel"):
            read_image(tmp_path / name)


def test_animation_is_refused(tmp_path):
    frames = [Image.new("L", (4, 4), level) for level in (0, 100, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"a.gif: holds 3 frames"):
        read_image(tmp_path / "a.gif")


def test_broken_files_are_named(tmp_path):
    save_image(tmp_path / "good.png", torch.rand(3, 64, 64))
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_bytes(b"hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "flipped.png").write_bytes(whole[:60] + bytes(20) + whole[80:])
    for name in ("cut.png", "text.png", "empty.jpg", "flipped.png"):
        with pytest.raises(InputError, match=f"{name}: broken image") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"gone.png: no such file"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("limit", [10, 20])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    Image.new("L", (6, 6)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=r"a.png: too many pixels"):
        read_image(tmp_path / "a.png")
