"""Makes pool, held-out and test rows of multimodal maths out of public sets, as Parquet.

    python recipes/qwen3_vl_math/prepare.py --output data/qwen3_vl_math

Sources: the geometry and maths parts of HuggingFaceM4/FineVision, whose answers are synthetic chains of
thought. 500 rows are held out for the anchors and 1,000 for the test before the rest becomes the pool. Rows
that show the same image are never on two sides.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

REPOSITORY = "HuggingFaceM4/FineVision"
SOURCES = ("mavis_math_rule_geo", "mavis_math_metagen", "geo170k(qa)", "geomverse")


def main() -> None:
    """Loads, splits and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--held_out", type=int, default=500, help="rows that anchors are drawn from")
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts = []
    for source in args.sources:
        raw = datasets.load_dataset(REPOSITORY, source, split="train").cast_column(
            "images", datasets.List(datasets.Image(decode=False))
        )
        parts.append(to_rows(raw, source))
    pool, held_out, test = split(datasets.concatenate_datasets(parts), args.held_out, args.test, args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pool", pool), ("held_out", held_out), ("test", test)):
        rows.to_parquet(args.output / f"{name}.parquet")
        print(f"{name}: {len(rows):,} rows")


def to_rows(raw: datasets.Dataset, source: str) -> datasets.Dataset:
    """FineVision's `images` and `texts` (user/assistant pairs) as `images`, `messages`, `source`, `image_key`."""
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image(decode=False)),
            "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
            "source": datasets.Value("string"),
            "image_key": datasets.Value("string"),
        }
    )
    rows = raw.map(_convert, fn_kwargs={"source": source}, remove_columns=raw.column_names, features=features)
    return rows.cast_column("images", datasets.List(datasets.Image()))


def split(rows: datasets.Dataset, held_out: int, test: int, seed: int) -> tuple[datasets.Dataset, ...]:
    """Pool, held-out and test rows; all rows with one image go to the same side.

    Raises:
        ValueError: If nothing would be left for the pool.
    """
    if held_out + test >= len(rows):
        raise ValueError(f"{len(rows)} rows cannot give {held_out} held-out and {test} test rows and a pool")
    rows = rows.shuffle(seed=seed)
    keys = rows["image_key"]
    sides: dict[str, str] = {}
    counts = {"held_out": 0, "test": 0}
    places: dict[str, list[int]] = {"pool": [], "held_out": [], "test": []}
    for index, key in enumerate(keys):
        if key not in sides:
            sides[key] = next(
                (side for side, full in (("held_out", held_out), ("test", test)) if counts[side] < full), "pool"
            )
        side = sides[key]
        # A full side takes no further row of its images: they are dropped, not given to the pool.
        if side == "pool" or counts[side] < {"held_out": held_out, "test": test}[side]:
            places[side].append(index)
        if side != "pool":
            counts[side] += 1
    return tuple(rows.select(places[side]) for side in ("pool", "held_out", "test"))


def _convert(example: dict[str, Any], source: str) -> dict[str, Any]:
    return {
        "images": example["images"],
        "messages": list(_messages(example["texts"])),
        "source": source,
        "image_key": hashlib.blake2b(
            b"".join(image["bytes"] for image in example["images"]), digest_size=10
        ).hexdigest(),
    }


def _messages(texts: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    for turn in texts:
        yield {"role": "user", "content": turn["user"]}
        yield {"role": "assistant", "content": turn["assistant"]}


if __name__ == "__main__":
    main()
