"""What a model sees of a picture is what `datasets` decodes, and no file takes more than a bounded time and memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms  # noqa: F401  LAB is converted through it

from ost_hf.data.encoding import Encoder
from ost_hf.data.example import RowError
from ost_hf.data.images import image_file, image_key, open_image, read_picture
from ost_hf.data.pictures.formats import FORMATS
from ost_hf.data.pictures.pixels import MOST_PIXELS
from ost_hf.data.rows import Rows

MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "I;16")
# What datasets gives through `.convert("RGB")` is cut off at 255, or shows colours that are transparent.
GREYS, TRANSPARENT = ("I", "F", "I;16", "I;16B"), ("RGBA", "LA", "PA", "RGBa", "La")


def sample(mode: str, size: tuple[int, int] = (40, 48)) -> Image.Image:
    """Noise; opaque where there is transparency, and within 8 bits where there are more."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    noise[..., 3] = 255
    if mode in ("I", "F"):
        return Image.fromarray(noise[..., 0].astype(np.int32 if mode == "I" else np.float32))
    if mode == "I;16":
        return Image.fromarray(noise[..., 0].astype(np.uint16))
    rgba = Image.fromarray(noise)
    if mode in ("LAB", "HSV", "YCbCr", "CMYK", "P", "1"):
        return rgba.convert("RGB").convert(mode)
    return rgba.convert("P").convert("PA") if mode == "PA" else rgba.convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cell(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": None}


def files_of(kind: str) -> Iterator[tuple[str, bytes]]:
    """A file of each mode that a format stores, with each orientation that it stores."""
    for mode in MODES:
        for orientation in range(1, 9 if kind in ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF") else 2):
            exif = Image.Exif()
            exif[0x0112] = orientation
            try:
                yield f"{kind} {mode} {orientation}", saved(sample(mode), kind, exif=exif)
            except (OSError, ValueError, KeyError):  # not stored in this format
                break


def as_datasets_shows(data: bytes) -> Image.Image:
    """What ``datasets`` decodes, in RGB. Greys of more than 8 bits are scaled; there is no transparent pixel."""
    decoded = datasets.Image().decode_example(cell(data))
    if decoded.mode in GREYS:
        wide = np.asarray(decoded).astype(np.float64)
        is_16_bit = decoded.mode.startswith("I;16") or (decoded.format == "PPM" and decoded.mode == "I")
        decoded = Image.fromarray((wide / 257 if is_16_bit else np.floor(wide)).round().astype(np.uint8))
    return decoded.convert("RGBA" if decoded.mode in TRANSPARENT else "RGB").convert("RGB")


@pytest.mark.parametrize("kind", FORMATS)
def test_the_processor_makes_the_same_tensor_as_of_what_datasets_decodes(kind: str, processor: Any) -> None:
    for name, data in files_of(kind):
        pair = (open_image(cell(data), None), as_datasets_shows(data))
        ours, theirs = (processor.image_processor(images=[each], return_tensors="pt") for each in pair)
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"]), name
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"]), name


@pytest.mark.parametrize("mode", [*MODES, "La", "I;16B"])
def test_pictures_in_memory_of_every_mode_are_read(mode: str) -> None:
    image = sample(mode) if mode in MODES else Image.new(mode, (4, 6))
    assert open_image(image, None).mode == "RGB"
    assert image_key(image, None) == image_key(image.copy(), None)


def black_stroke(kind: str) -> bytes:
    """A black line on transparent black, as it is drawn on a transparent page."""
    alpha = np.zeros((16, 16), np.uint8)
    alpha[8] = 255
    black = np.zeros_like(alpha)
    if kind == "RGBA":
        return saved(Image.fromarray(np.stack([black, black, black, alpha], axis=-1)), "PNG")
    if kind == "LA":
        return saved(Image.fromarray(np.stack([black, alpha], axis=-1)), "PNG")
    if kind == "P, one transparent entry" or kind == "P, alpha for each entry":
        picture = Image.fromarray((alpha > 0).astype(np.uint8)).convert("L")
        palette = Image.frombytes("P", (16, 16), picture.tobytes())
        palette.putpalette([0] * 768)
        return saved(palette, "PNG", transparency=0 if "one" in kind else bytes([0, 255]))
    if kind == "GIF":
        palette = Image.frombytes("P", (16, 16), (alpha > 0).astype(np.uint8).tobytes())
        palette.putpalette([0] * 768)
        return saved(palette, "GIF", transparency=0)
    if kind == "RGB with a key colour":  # black is drawn as nearly black
        line = Image.fromarray(np.where(alpha[..., None] > 0, 1, 0).repeat(3, axis=-1).astype(np.uint8))
        return saved(line, "PNG", transparency=(0, 0, 0))
    if kind == "16 bits with a key grey":
        return saved(Image.fromarray((alpha > 0).astype(np.uint16)), "PNG", transparency=0)
    if kind == "2 bits with a key grey":
        return saved(Image.fromarray(np.where(alpha > 0, 0, 85).astype(np.uint8)), "PNG", bits=2, transparency=1)
    return saved(Image.fromarray(np.stack([black, black, black, alpha], axis=-1)), kind, **{"lossless": True})


@pytest.mark.parametrize(
    "kind",
    [
        *("RGBA", "LA", "P, one transparent entry", "P, alpha for each entry", "GIF", "RGB with a key colour", "WEBP"),
        *("16 bits with a key grey", "2 bits with a key grey", "TIFF"),
    ],
)
def test_what_is_transparent_shows_white(kind: str) -> None:
    pixels = np.asarray(open_image(cell(black_stroke(kind)), None))
    assert (pixels[8] <= 1).all()
    assert (np.delete(pixels, 8, axis=0) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa", "P"])
def test_transparent_pictures_in_memory_show_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        image = Image.new("P", (4, 4))
        image.putpalette([0, 0, 0, 0] * 256, "RGBA")
    elif mode == "La":
        image = Image.new("La", (4, 4))
    elif mode == "PA":
        image = Image.merge("PA", (Image.new("P", (4, 4)), Image.new("L", (4, 4), 0)))
    else:
        image = image.convert(mode)
    assert open_image(image, None).getextrema() == ((255, 255),) * 3


def test_half_transparent_colours_are_mixed_with_white() -> None:
    image = Image.new("RGBA", (2, 2), (0, 100, 255, 51))
    assert open_image(image, None).getpixel((0, 0)) == (204, 224, 255)


@pytest.mark.parametrize(
    ("values", "dtype", "kind", "shown"),
    [
        ([0, 257, 32896, 65535], "uint16", "PNG", [0, 1, 128, 255]),
        ([0, 257, 32896, 65535], "uint16", "TIFF", [0, 1, 128, 255]),
        ([0, 1, 2, 200], "uint16", "PNG", [0, 0, 0, 1]),
        ([0, 257, 32896, 65535], "int32", "TIFF", [0, 1, 128, 255]),
        ([0, 1, 128, 255], "int32", "TIFF", [0, 1, 128, 255]),
        ([-1000, 0, 1000, 3000], "int32", "TIFF", [0, 64, 128, 255]),
        ([0.0, 0.2, 0.5, 1.0], "float32", "TIFF", [0, 51, 128, 255]),
        ([0.0, 1.0, 128.0, 255.0], "float32", "TIFF", [0, 1, 128, 255]),
        ([-1.0, -0.5, 0.0, 1.0], "float32", "TIFF", [0, 64, 128, 255]),
    ],
)
def test_greys_of_more_than_eight_bits_are_scaled(values: list[float], dtype: str, kind: str, shown: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype))
    for given in (image, cell(saved(image, kind))):
        assert np.asarray(open_image(given, None))[0, :, 0].tolist() == shown


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_a_status(value: float) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[3, 3] = value
    image = Image.fromarray(values)
    for given in (image, cell(saved(image, "TIFF")), values, values.tolist()):
        with pytest.raises(RowError, match="pixels that are NaN or infinite"):
            open_image(given, None)


COLOURS = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "given",
    [
        COLOURS,
        COLOURS.tolist(),
        np.moveaxis(COLOURS, -1, 0),
        COLOURS.astype(np.float32) / 255,
        np.concatenate([COLOURS, np.full((6, 8, 1), 255, np.uint8)], axis=-1).tolist(),
    ],
)
def test_arrays_and_lists_of_pixels_are_pictures(given: Any) -> None:
    assert np.array_equal(np.asarray(open_image(given, None)), COLOURS)


@pytest.mark.parametrize("given", [[[1, 2], [3]], [[["a"]]], np.zeros((2, 2, 2, 2)), [[[0, 256, 0]]], [[[0, -1, 0]]]])
def test_other_lists_are_a_status(given: Any) -> None:
    with pytest.raises(RowError, match=r"shape \[H, W\]|colours must be|an array of shape|image cell"):
        open_image(given, None)


def test_broken_exif_is_no_reason_to_refuse_a_picture() -> None:
    image = sample("RGB")
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x05", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert open_image(cell(saved(image, "JPEG", exif=exif)), None).size == image.size


def test_a_picture_is_turned_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(saved(sample("RGB"), "JPEG", exif=exif)))
    assert open_image(opened, None).size == (48, 40)
    assert not open_image(opened, None).getexif()  # `transformers` turns by what is left there
    assert image_key(opened, None) != image_key(opened.convert("RGB").transpose(Image.Transpose.ROTATE_270), None)


def test_the_mode_of_a_column_is_applied_as_datasets_does() -> None:
    features = datasets.Features({"question": datasets.Value("string"), "answer": datasets.Value("string")})
    rows = [{"question": "q", "answer": "a", "image": sample("RGB")}]
    plain, grey = (
        Rows(datasets.Dataset.from_list(rows, features=datasets.Features({**features, "image": datasets.Image(mode)})))
        for mode in (None, "L")
    )
    ours = open_image(grey[0].images[0], grey.places)
    assert ours.tobytes() == grey.dataset[0]["image"].convert("RGB").tobytes()
    assert grey.content_hashes != plain.content_hashes


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_shown_and_said_so(kind: str, processor: Any) -> None:
    frames = [Image.new("RGB", (32, 32), shade) for shade in ("red", "green", "blue")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert open_image(cell(data), None).getpixel((5, 5)) == pytest.approx((255, 0, 0), abs=6)
    assert read_picture(cell(saved(frames[0], kind)), None).note == ""
    rows = Rows(datasets.Dataset.from_list([{"question": "q", "answer": "a", "images": [cell(data)]}]))
    encoded = Encoder(processor).encode(rows, 0)
    assert encoded.status == "ok"
    assert encoded.detail == f"image 1 has several frames ({kind}), of which the first is shown"


def test_the_second_picture_of_a_phones_file_is_no_frame() -> None:
    data = saved(sample("RGB"), "MPO", save_all=True, append_images=[sample("RGB")])
    assert read_picture(cell(data), None).note == ""


def test_what_stands_behind_a_picture_is_no_part_of_it() -> None:
    """Phones put a film there."""
    image = saved(sample("RGB"), "JPEG", progressive=True)
    film = np.random.default_rng(0).bytes(20 * 2**20)
    assert film.count(b"\xff\xda") > 200
    assert open_image(cell(image + film), None).tobytes() == open_image(cell(image), None).tobytes()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "ICO", "DDS", "XBM", "SVG"])
def test_formats_outside_the_list_are_a_status_that_names_it(kind: str) -> None:
    data = b"<svg/>" if kind == "SVG" else saved(sample("1" if kind == "XBM" else "RGB"), kind)
    with pytest.raises(RowError, match=r"no picture, or a damaged one; the formats read are PNG, JPEG, .*PPM$"):
        open_image(cell(data), None)


def test_no_program_is_started(tmp_path: Path, root: Path) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "pool.eps").write_bytes(saved(sample("RGB"), "EPS"))
    code = f"""
import os
from pathlib import Path
from PIL import Image
from ost_hf.data.images import image_file, image_key, open_image
from ost_hf.data.pictures.files import Places
for read in (open_image, image_file, image_key):
    try:
        read("pool.eps", Places(Path({str(tmp_path)!r})))
    except Exception as error:
        print(error)
print("started by us:", os.path.exists("started"))
try:
    Image.open("pool.eps").load()
except Exception:
    print("started by Pillow:", os.path.exists("started"))
"""
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(root)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "started by us: False" in done.stdout
    assert "started by Pillow: True" in done.stdout


def png_of(width: int, height: int) -> bytes:
    """A small file of a large black picture: a decompression bomb."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    squeeze = zlib.compressobj(9)
    row = bytes(width // 8 + 2)
    body = b"".join([*(squeeze.compress(row) for _ in range(height)), squeeze.flush()])
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff_of_one_tile(side: int) -> bytes:
    """A picture of 64 x 64 pixels in a tile that is far larger."""
    body = zlib.compress(bytes(64 * 64))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8 + 2 + 10 * 12 + 4}
    tags[325] = len(body)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body


def test_bombs_and_files_that_never_end_are_statuses_in_bounded_time_and_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(13304, 13304))
    (tmp_path / "wide.png").write_bytes(png_of(2**31 - 9, 1))
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "tile.tif").write_bytes(tiff_of_one_tile(60000))
    scans = saved(sample("RGB"), "JPEG", progressive=True)
    (tmp_path / "scans.jpg").write_bytes(scans[:-2] + scans[scans.rindex(b"\xff\xda") : -2] * 200 + scans[-2:])
    names = ["bomb.png", "wide.png", "pipe.png", "sparse.png", "tile.tif", "scans.jpg", "/dev/zero", "/dev/stdin"]
    code = f"""
import resource
from pathlib import Path
import ost_hf.data.rows, PIL.TiffImagePlugin
from ost_hf.data.images import image_key, open_image
from ost_hf.data.pictures.files import Places
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
places, before = Places(Path({str(tmp_path)!r}), ("/",)), peak()
for name in {names}:
    image_key(name, places)
    try:
        open_image(name, places)
        print("READ", name)
    except ost_hf.data.rows.RowError as error:
        print(error.status, name, error.detail)
print("grown by", peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.PIPE
    )
    *lines, grown = done.stdout.strip().splitlines()
    assert len(lines) == len(names)
    assert all(line.startswith(f"bad_image {name} ") for line, name in zip(lines, names, strict=True)), done.stdout
    assert int(grown.removeprefix("grown by ")) < 60  # MiB


def test_large_scans_are_read_and_larger_pictures_refused_before_they_are_decoded() -> None:
    assert MOST_PIXELS > 7016 * 9921  # A3 at 600 dpi
    with pytest.raises(RowError, match=r"has 13,304 x 13,304 pixels; at most 89,478,485 are read: shrink it"):
        open_image(cell(png_of(13304, 13304)), None)


def test_details_are_short_and_hold_neither_bytes_nor_addresses() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    for given in (cell(noise), noise, {"bytes": noise.hex() + "!"}, "x" * 100_000, object(), {"a" * 900: 1}, cell(b"")):
        with pytest.raises(RowError) as caught:
            open_image(given, None)
        assert caught.value.status == "bad_image"
        assert len(caught.value.detail) < 300
        assert " at 0x" not in caught.value.detail


def test_servers_are_sent_what_the_proxy_sees() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = sample("RGB")
    frames = saved(image, "GIF", save_all=True, append_images=[sample("L")])
    for data in (saved(image, "JPEG", exif=exif), black_stroke("RGBA"), frames):
        sent, media_type = image_file(cell(data), None)
        assert media_type == "image/png"
        assert Image.open(io.BytesIO(sent)).tobytes() == open_image(cell(data), None).tobytes()


def test_a_hash_depends_on_content_alone() -> None:
    def deep(inner: Any) -> Any:
        for _ in range(3000):
            inner = [inner]
        return inner

    for make in (lambda: deep("x"), lambda: deep(1), lambda: [["a", 1]], lambda: "\ud800.png", COLOURS.tolist):
        assert image_key(make(), None) == image_key(make(), None)
        with contextlib.suppress(RowError):
            open_image(make(), None)


def test_plain_pictures_keep_their_hash() -> None:
    """Ids of published recipes are made of it."""
    assert (
        image_key(cell(b"an encoded picture"), None)
        == hashlib.blake2b(b"an encoded picture", digest_size=16).hexdigest()
    )
    assert image_key(Image.new("RGB", (2, 2)), None) == "7de81c117f46dc98e0ffa9cad99a8071"
    assert image_key(Image.new("L", (3, 2), 7), None) == "766608cd16b7fab3d6bd7bcf95b34f37"
