"""What is said about a row is short, and holds nothing of the picture, the memory or the machine."""

from __future__ import annotations

import copy

import pytest

from ost_hf.data.example import RowError
from ost_hf.errors import DETAIL_LENGTH, brief, reason_of

PNG = b"\x89PNG\r\n\x1a\n'\"\\" + bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("cannot identify <_io.BytesIO object at 0x7f3a1c2b9d10>", "cannot identify <_io.BytesIO>"),
        (f"got {PNG!r} there", "got [bytes]"),
        (f"got {PNG[:20]!r} there", "got [bytes] there"),
        (f"{{'bytes': {PNG!r}, 'path': None}}", "{'bytes': [bytes]"),
        ("a picture of iVBORw0KGgo" + "AAAANSUhEUg" * 2000, "a picture of [...]"),
        ("[Errno 2] No such file: '/home/me/my pool/x.png'", "[Errno 2] No such file: 'x.png'"),
        ("no image file at /home/me/pool/x.png", "no image file at x.png"),
        ("file:///home/me/x.png is refused", "x.png is refused"),
        ("C:\\Users\\me\\x.png and 'C:\\My pool\\y.png'", "x.png and 'y.png'"),
        ("images/x.png, ../x.png and https://host/a/b/x.png", "images/x.png, ../x.png and https://host/a/b/x.png"),
        ("3/4 of </think> and/or 1/2/3", "3/4 of </think> and/or 1/2/3"),
        ("two\nlines\tand \x00 a half \ud83d", "two lines and a half"),
    ],
)  # fmt: skip
def test_details_are_clean(said: str, kept: str) -> None:
    assert brief(said) == kept
    assert RowError("bad_row", said).detail == kept


def test_details_are_short() -> None:
    detail = brief("word " * 1_000_000)
    assert len(detail) <= DETAIL_LENGTH
    assert detail.endswith(" ...")


def test_reasons_name_the_type() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert reason_of(KeyError("role")) == "KeyError: 'role'"
    assert reason_of(StopIteration()) == "StopIteration"
    assert reason_of(Mute()) == "Mute"


def test_a_row_error_travels_as_it_is() -> None:
    again = copy.copy(RowError("bad_image", "too dark"))
    assert (again.status, again.detail) == ("bad_image", "too dark")
