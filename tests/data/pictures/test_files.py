"""Rows name pictures of their own folder and no others: what is read may be pushed."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from ost_hf.data.config import DatasetConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.example import RowError
from ost_hf.data.images import open_image
from ost_hf.data.pictures.files import Places
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.hub.push import _with_files

Record = dict[str, Any]
QA = {"question": "What is shown?", "answer": "A square."}


def png(shade: int = 200) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool's folder with a picture, and a secret beside the folder."""
    pool = tmp_path / "pool"
    (pool / "sub").mkdir(parents=True)
    (pool / "a.png").write_bytes(png())
    (pool / "sub" / "a b%20.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png(7))
    (pool / "link.png").symlink_to(tmp_path / "secret.png")
    (pool / "out").symlink_to(tmp_path)
    (pool / "within.png").symlink_to(pool / "a.png")
    (pool / "loop.png").symlink_to(pool / "loop.png")
    os.mkfifo(pool / "pipe.png")
    return pool


def from_jsonl(folder: Path, image: Any, **config: Any) -> Rows:
    (folder / "pool.jsonl").write_text(json.dumps({**QA, "image": image}) + "\n")
    return Rows.load(DatasetConfig(str(folder / "pool.jsonl"), **config))


def in_memory(image: Any, feature: Any = None, **config: Any) -> Rows:
    dataset = datasets.Dataset.from_list([{**QA, "image": image}])
    dataset = dataset if feature is None else dataset.cast_column("image", feature)
    return Rows(dataset, DatasetConfig("in memory", **config))


def opened(rows: Rows) -> Image.Image:
    return open_image(rows[0].images[0], rows.places)


def refusal(rows: Rows) -> str:
    """Why a row's picture is refused; its id must not depend on the file that it may not read."""
    assert rows.example_ids[0].endswith("-0")
    with pytest.raises(RowError) as caught:
        opened(rows)
    assert caught.value.status == "bad_image"
    assert len(caught.value.detail) < 300
    assert "/tmp" not in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize(
    "named",
    [
        *("a.png", "./sub/../a.png", "within.png", "{folder}/a.png", "file://{folder}/a.png", "FILE:///{folder}/a.png"),
        *("file://localhost{folder}/a.png", "file://a.png", "sub/a b%20.png", "file://{folder}/sub/a b%20.png"),
        *("file://{folder}/sub/a%20b%2520.png", "out/pool/a.png"),
    ],
)
def test_files_of_the_pools_own_folder_are_read(folder: Path, named: str) -> None:
    rows = from_jsonl(folder, named.format(folder=folder))
    assert opened(rows).getpixel((0, 0)) == (200, 0, 0)
    assert rows.content_hashes == in_memory({"bytes": png(), "path": None}).content_hashes


@pytest.mark.parametrize(
    "named",
    [
        *("../secret.png", "sub/../../secret.png", "{folder}/../secret.png", "link.png", "out/secret.png"),
        *("file://{folder}/../secret.png", "file://../secret.png", "file:../secret.png", "file://%2e%2e/secret.png"),
        *("{folder}/../pool2/../secret.png", "/dev/zero", "/etc/hostname", "~/secret.png"),
    ],
)
def test_files_outside_the_pools_folder_are_refused(folder: Path, named: str) -> None:
    rows = from_jsonl(folder, named.format(folder=folder))
    assert "outside the folder of the rows; name its folder in allow_paths" in refusal(rows)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("none.png", "no image file at 'none.png'"),
        ("loop.png", "cannot be read|no image file"),
        ("pipe.png", "no regular file"),
        ("sub", "no regular file|cannot be read"),
        ("a\0.png", "is no path: ValueError: embedded null"),
        ("~a\0b/c.png", "is no path: ValueError"),
        ([[["a"]]], "needs bytes or a path|list that holds no picture|not list"),
        ([[1, 2], [3]], "list that holds no picture"),
        ([1, 2.5], "numbers from 0 to 255"),
        ("~no-such-user/a.png", "no image file at"),
        ("", "no regular file|cannot be read"),
        ("x" * 5000, "a text of 5,000 characters is no path"),
        ("y" * 300 + ".png", "cannot be read: File name too long"),
        *((f"{scheme}://host/{'k' * 99}.png", f"{scheme}://") for scheme in ("http", "https", "s3", "hf", "zip", "gs")),
        ("data:image/png;base64,####", "no base64"),
        ("data:image/svg+xml,<svg/>", "the formats read are"),
        ({"bytes": "no base64!", "path": "a.png"}, "stands where bytes should"),
        ({"bytes": [1, 256], "path": None}, "numbers from 0 to 255"),
        ({"bytes": {"a": 1}, "path": None}, "numbers from 0 to 255"),
        ({"width": 3}, "needs bytes or a path; this one has width"),
        (7, "not int"),
        (True, "not bool"),
    ],
)
def test_what_is_no_picture_is_a_status(folder: Path, named: Any, why: str) -> None:
    assert re.search(why, refusal(from_jsonl(folder, named)))


@pytest.mark.parametrize(
    "image",
    [
        png(),
        base64_of(png()),
        base64_of(png()).rstrip("="),
        base64.urlsafe_b64encode(png()).decode(),
        "\n".join(base64_of(png())[at : at + 76] for at in range(0, 999, 76)),
        "data:image/png;base64," + base64_of(png()),
        "DATA:image/png;charset=utf-8;BASE64," + base64_of(png()).replace("+", "%2B"),
        {"bytes": base64_of(png()), "path": "1.png"},
        {"bytes": "data:image/png;base64," + base64_of(png()), "path": None},
        {"bytes": list(png()), "path": None},
        {"path": "data:image/png;base64," + base64_of(png())},
        {"url": "data:image/png;base64," + base64_of(png())},
        list(png()),
    ],
)
def test_bytes_are_read_however_they_are_written(image: Any) -> None:
    rows = in_memory(image)
    assert opened(rows).getpixel((0, 0)) == (200, 0, 0)
    assert rows.content_hashes == in_memory({"bytes": png(), "path": None}).content_hashes


@pytest.mark.parametrize("beginning", ["JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_base64_of_every_common_format_is_told_from_a_path(beginning: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 0, 0)).save(buffer, beginning)
    assert opened(in_memory(base64_of(buffer.getvalue()))).size == (32, 32)


def test_lists_of_pictures_and_pictures_of_numbers_are_told_apart() -> None:
    colours = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    for cell, count in (
        (colours.tolist(), 1),
        ([colours.tolist()] * 2, 2),
        (colours[..., 0].tolist(), 1),
        ([list(png()), list(png(3))], 2),
        ([base64_of(png())] * 3, 3),
    ):
        images = in_memory(cell)[0].images
        assert len(images) == count
        assert open_image(images[0], None).mode == "RGB"
    assert in_memory([])[0].images == []


def test_allowed_folders_are_read_too(folder: Path) -> None:
    allowed = [str(folder.parent)]
    for named in ("../secret.png", f"{folder.parent}/secret.png", "link.png"):
        assert opened(from_jsonl(folder, named, allow_paths=allowed)).getpixel((0, 0)) == (7, 0, 0)
    assert opened(in_memory(f"{folder}/a.png", allow_paths=allowed)).size == (32, 32)
    assert "outside" in refusal(from_jsonl(folder, "../secret.png", allow_paths=[f"{folder}/sub"]))
    before, after = from_jsonl(folder, "../secret.png"), from_jsonl(folder, "../secret.png", allow_paths=allowed)
    assert before.fingerprint != after.fingerprint
    with pytest.raises(ConfigError, match="allow_paths must be a list of folders, got '/data'"):
        DatasetConfig("pool.jsonl", allow_paths="/data")  # type: ignore[arg-type]


def test_rows_in_memory_have_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for named in ("a.png", f"{folder}/a.png", f"file://{folder}/a.png", {"bytes": None, "path": f"{folder}/a.png"}):
        assert "rows in memory or from the Hub have no folder; name its folder in allow_paths" in refusal(
            in_memory(named)
        )


def test_pictures_of_datasets_made_in_python_are_read_where_they_lie(folder: Path) -> None:
    (folder / "pool.jsonl").write_text(json.dumps({**QA, "image": f"{folder}/a.png"}) + "\n")
    cast = datasets.load_dataset("json", data_files=str(folder / "pool.jsonl"), split="train")
    with Image.open(folder / "a.png") as picture:
        with_name = datasets.Dataset.from_list([{**QA, "image": picture}])
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(png())
    of_folder = datasets.load_dataset("imagefolder", data_dir=str(folder / "images"), split="train")
    of_folder = of_folder.add_column("question", ["q"]).add_column("answer", ["a"])
    cast.cast_column("image", datasets.Image()).save_to_disk(folder / "saved")
    for dataset in (
        cast.cast_column("image", datasets.Image()),
        cast.cast_column("image", datasets.Image()).map(lambda row: row).select([0]),
        with_name,
        of_folder,
        datasets.load_from_disk(folder / "saved"),
    ):
        rows = Rows(dataset)
        assert opened(rows).getpixel((0, 0)) == (200, 0, 0)
        assert opened(rows.select([0])).getpixel((0, 0)) == (200, 0, 0)
    assert opened(Rows.load(DatasetConfig(str(folder / "saved")))).size == (32, 32)
    assert "no folder" in refusal(Rows(cast))


def test_pictures_that_a_parquet_file_names_are_a_strangers_words(folder: Path) -> None:
    """`datasets` itself would read them, and push them."""
    typed = in_memory(f"{folder.parent}/secret.png", datasets.Image()).dataset
    typed.to_parquet(folder / "pool.parquet")
    assert opened(Rows(typed)).getpixel((0, 0)) == (7, 0, 0)
    loaded = datasets.load_dataset("parquet", data_files=str(folder / "pool.parquet"), split="train")
    assert loaded.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"] is None
    assert "no folder" in refusal(Rows(loaded))
    assert "outside the folder" in refusal(Rows.load(DatasetConfig(str(folder / "pool.parquet"))))


def test_a_hub_pool_may_name_what_was_downloaded_only(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(png())
    dataset = datasets.load_dataset(str(folder / "images"), split="train")
    dataset = dataset.add_column("question", ["q"]).add_column("answer", ["a"])
    assert opened(Rows(dataset)).size == (32, 32)
    assert "from the Hub have no folder" in refusal(Rows(dataset, DatasetConfig("org/images")))


def test_an_image_folder_is_read(folder: Path) -> None:
    images = folder / "images" / "train"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes(png())
    (images / "metadata.jsonl").write_text(json.dumps({**QA, "file_name": "a.png"}) + "\n")
    assert opened(Rows.load(DatasetConfig(str(folder / "images")))).getpixel((0, 0)) == (200, 0, 0)


def test_what_the_libraries_downloaded_is_read_where_a_dataset_says_it_is_a_picture(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    repository = cache / "datasets--org--pool"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "123").write_bytes(png())
    (snapshot / "a.png").symlink_to("../../blobs/123")
    # A folder that was downloaded by itself is a pool like any other: its links lead to the blobs beside.
    assert opened(from_jsonl(snapshot, "a.png")).getpixel((0, 0)) == (200, 0, 0)
    assert "outside" in refusal(from_jsonl(snapshot, "../../../../secret.png"))
    typed = in_memory(f"{snapshot}/a.png", datasets.Image()).dataset
    typed.to_parquet(folder / "pool.parquet")
    loaded = datasets.load_dataset("parquet", data_files=str(folder / "pool.parquet"), split="train")
    assert "no folder" in refusal(Rows(loaded))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    assert opened(Rows(loaded)).getpixel((0, 0)) == (200, 0, 0)
    assert "no folder" in refusal(in_memory(f"{snapshot}/a.png"))


def test_pictures_inside_messages_are_under_the_same_rule(folder: Path, processor: Any) -> None:
    def conversation(image: Any) -> Record:
        content = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": "A square.", "image": None}]}
        return {"messages": [{"role": "user", "content": content}, answer]}

    records = [conversation(each) for each in (f"file://{folder}/a.png", "../secret.png", "a.png")]
    (folder / "pool.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    rows = Rows.load(DatasetConfig(str(folder / "pool.jsonl")))
    encoded = [Encoder(processor).encode(rows, row) for row in range(3)]
    assert [each.status for each in encoded] == ["ok", "bad_image", "ok"]


def test_a_push_takes_no_file_that_the_rows_may_not_name(folder: Path) -> None:
    """Of any column: by itself ``datasets`` puts every file that one names into what it pushes."""
    secret = {"bytes": None, "path": f"{folder.parent}/secret.png"}
    record = {**QA, "image": {"bytes": png(), "path": None}, "thumbnail": secret, "sound": secret}
    for name, kind in (("thumbnail", datasets.Image()), ("sound", datasets.Audio())):
        dataset = datasets.Dataset.from_list([{key: record[key] for key in (*QA, "image", name)}])
        dataset = dataset.cast_column("image", datasets.Image()).cast_column(name, kind)
        dataset.to_parquet(folder / "pool.parquet")
        rows = Rows.load(DatasetConfig(str(folder / "pool.parquet")))
        with pytest.raises(
            DataError, match=rf"column '{name}' of a kept row cannot be pushed: 'secret\.png' is outside"
        ):
            _with_files(rows.dataset, rows)
        allowed = Rows.load(DatasetConfig(str(folder / "pool.parquet"), allow_paths=[str(folder.parent)]))
        pushed = _with_files(allowed.dataset, allowed).with_format("arrow")[0][name].to_pylist()[0]
        assert pushed == {"bytes": png(7), "path": "secret.png"}


@pytest.mark.parametrize(
    "image", ["a.png", {"path": "a.png"}, base64_of(png()), list(png()), ["a.png", "within.png"], [list(png())]]
)
def test_pictures_are_pushed_as_pictures_however_rows_hold_them(folder: Path, image: Any) -> None:
    rows = from_jsonl(folder, image)
    pushed = _with_files(rows.dataset, rows)[0]["image"]
    pictures = pushed if isinstance(pushed, list) else [pushed]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(200, 0, 0)] * len(rows[0].images)


def test_without_places_no_file_is_read(folder: Path) -> None:
    for named in ("a.png", str(folder / "a.png")):
        with pytest.raises(RowError, match="no folder is known"):
            open_image(named, None)
    assert open_image("a.png", Places(folder)).size == (32, 32)
