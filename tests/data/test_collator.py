"""A batch is its rows side by side: padded where text, joined where images, and unchanged where neither."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ost_hf.data.collator import Collator
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import IGNORE_INDEX, Features
from ost_hf.errors import DataError

PAD = 99


def text_row(*ids: int) -> Features:
    tokens = torch.tensor(ids)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens.clone()}


def image_row(*ids: int, patches: int = 4) -> Features:
    return {
        **text_row(*ids),
        "mm_token_type_ids": torch.ones(len(ids), dtype=torch.long),
        "pixel_values": torch.full((patches, 3), float(patches)),
        "image_grid_thw": torch.tensor([[1, 2, patches // 2]]),
    }


@pytest.mark.parametrize(
    ("side", "ids", "labels", "mask"),
    [
        ("right", [5, 6, PAD], [5, 6, IGNORE_INDEX], [1, 1, 0]),
        ("left", [PAD, 5, 6], [IGNORE_INDEX, 5, 6], [0, 1, 1]),
    ],
)
def test_shorter_rows_are_padded_on_the_side(side: str, ids: list[int], labels: list[int], mask: list[int]) -> None:
    batch = Collator(PAD, side)([text_row(5, 6), text_row(7, 8, 9)])
    assert batch["input_ids"].tolist() == [ids, [7, 8, 9]]
    assert batch["labels"].tolist() == [labels, [7, 8, 9]]
    assert batch["attention_mask"].tolist() == [mask, [1, 1, 1]]


def test_image_tensors_are_joined_in_row_order() -> None:
    rows = [image_row(1, 2, patches=4), image_row(3, patches=8), image_row(4, 5, patches=2)]
    batch = Collator(PAD)(rows)
    assert torch.equal(batch["pixel_values"], torch.cat([row["pixel_values"] for row in rows]))
    assert batch["image_grid_thw"].tolist() == [[1, 2, 2], [1, 2, 4], [1, 2, 1]]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_text_row_among_image_rows_has_no_image_marks(order: tuple[int, int]) -> None:
    rows = [image_row(1, 2, 3), text_row(4, 5, 6)]
    batch = Collator(PAD)([rows[i] for i in order])
    assert batch["mm_token_type_ids"].tolist() == [[[1, 1, 1], [0, 0, 0]][i] for i in order]
    assert torch.equal(batch["pixel_values"], rows[0]["pixel_values"])


def test_text_rows_alone_get_no_image_tensors() -> None:
    assert set(Collator(PAD)([text_row(1), text_row(2, 3)])) == {"input_ids", "attention_mask", "labels"}


def test_unpadded_batch_equals_the_single_rows(pool: EncodedDataset, processor: Any) -> None:
    rows = [pool[row] for row in range(8)]
    for side in ("right", "left"):
        batch = Collator.of(processor, side)(rows)
        images = batch["pixel_values"].split([len(row["pixel_values"]) for row in rows])
        for i, row in enumerate(rows):
            kept = batch["attention_mask"][i].bool()
            assert kept.sum() == len(row["input_ids"])
            for key in ("input_ids", "labels", "attention_mask", "mm_token_type_ids"):
                assert torch.equal(batch[key][i][kept], row[key])
            assert torch.equal(images[i], row["pixel_values"])
            assert torch.equal(batch["image_grid_thw"][i : i + 1], row["image_grid_thw"])


def test_padding_is_neither_attended_nor_supervised(pool: EncodedDataset, processor: Any) -> None:
    batch = Collator.of(processor)([pool[row] for row in range(8)])
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == IGNORE_INDEX).all()
    assert (batch["input_ids"][padding] == processor.tokenizer.pad_token_id).all()
    assert (batch["mm_token_type_ids"][padding] == 0).all()


@pytest.mark.parametrize("side", ["right", "left"])
def test_one_row_is_its_own_batch(pool: EncodedDataset, processor: Any, side: str) -> None:
    batch = Collator.of(processor, side)([pool[0]])
    assert all(torch.equal(batch[key][0], pool[0][key]) for key in ("input_ids", "labels", "mm_token_type_ids"))


def test_end_of_sequence_pads_where_there_is_no_pad_token(text_path: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    assert Collator.of(tokenizer).pad_token_id == tokenizer.pad_token_id
    tokenizer.pad_token = None
    assert Collator.of(tokenizer).pad_token_id == tokenizer.eos_token_id


def test_images_of_different_shapes_ask_for_a_batch_size_of_one() -> None:
    rows = [image_row(1, 2), {**image_row(3, 4), "pixel_values": torch.zeros(4, 5)}]
    with pytest.raises(DataError, match=r"the rows' pixel_values do not fit into one batch .*; use a batch size of 1"):
        Collator(PAD)(rows)
