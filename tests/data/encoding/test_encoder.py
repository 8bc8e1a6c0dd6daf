"""Labels lie on the answer and nowhere else, images stay whole, and what is wrong with a row is its status."""

from __future__ import annotations

import dataclasses
import io
import struct
from pathlib import Path
from typing import Any

import datasets
import pytest
import tokenizers
import torch
import transformers
from families import FAMILIES, GEMMA3, tokenizer_of
from PIL import Image

from ost_hf.data.config import DatasetConfig, EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import IGNORE_INDEX, Encoded
from ost_hf.data.example import RowError
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError, ModelError

Record = dict[str, Any]

THINKING = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "<think>left</think>\n\nsum"},
    {"role": "user", "content": "second"},
    {"role": "assistant", "content": "<think>right</think>\n\nproduct"},
]


@pytest.fixture
def tokenizer(text_path: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(text_path)


@pytest.fixture
def bare(tokenizer: Any) -> Any:
    """A tokenizer without a chat template."""
    tokenizer.chat_template = None
    return tokenizer


def png(size: tuple[int, int] = (32, 16)) -> Record:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def make_rows(*records: Record, **config: Any) -> Rows:
    return Rows(datasets.Dataset.from_list(list(records)), DatasetConfig(path="in memory", **config))


def encode(processing_class: Any, record: Record, config: EncodingConfig | None = None, **columns: Any) -> Encoded:
    return Encoder(processing_class, config).encode(make_rows(record, **columns), 0)


def decode(processing_class: Any, encoded: Encoded) -> tuple[str, str]:
    """All of the row's text, and its supervised text."""
    assert encoded.features is not None, encoded
    ids, labels = encoded.features["input_ids"], encoded.features["labels"]
    marked = labels != IGNORE_INDEX
    assert torch.equal(labels[marked], ids[marked])
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    return tokenizer.decode(ids), tokenizer.decode(ids[marked])


def word(text: str) -> Record:
    return {"type": "text", "text": text}


def template_file(folder: Path, text: str) -> EncodingConfig:
    (folder / "chat.jinja").write_text(text)
    return EncodingConfig(chat_template=str(folder / "chat.jinja"))


def test_answer_and_closing_token_are_supervised_and_nothing_else(pool: EncodedDataset, processor: Any) -> None:
    for row, record in enumerate(pool.rows.dataset):
        text, supervised = decode(processor, pool.encode(row))
        assert supervised == record["answer"] + "<|im_end|>"
        assert text.endswith(f"{record['question']}<|im_end|>\n<|im_start|>assistant\n{supervised}\n")


@pytest.mark.parametrize("sizes", [[(32, 16)], [(64, 32)], [(16, 48)], [(32, 16), (64, 32), (32, 16)]])
def test_images_are_as_many_tokens_as_their_patches_merge_to(processor: Any, sizes: list[tuple[int, int]]) -> None:
    encoded = encode(processor, {"question": "sum?", "answer": "7", "images": [png(size) for size in sizes]})
    assert encoded.features is not None
    is_image = encoded.features["input_ids"] == processor.image_token_id
    assert is_image.sum() == encoded.features["image_grid_thw"].prod(-1).sum() // 4
    assert encoded.features["image_grid_thw"].shape == (len(sizes), 3)
    assert (encoded.features["labels"][is_image] == IGNORE_INDEX).all()
    assert torch.equal(encoded.features["mm_token_type_ids"] == 1, is_image)
    assert decode(processor, encoded)[1] == "7<|im_end|>"


def test_every_assistant_turn_around_images_is_supervised(processor: Any) -> None:
    picture = {"type": "image", "text": None}
    messages = [
        {"role": "user", "content": [word("left"), picture, word("?")]},
        {"role": "assistant", "content": [word("3")]},
        {"role": "user", "content": [picture, word("and"), picture]},
        {"role": "assistant", "content": [word("4 and 5")]},
    ]
    encoded = encode(processor, {"messages": messages, "images": [png(), png((64, 32)), png()]})
    assert decode(processor, encoded)[1] == "3<|im_end|>4 and 5<|im_end|>"


def test_dropped_thinking_is_not_supervised_and_kept_thinking_is(tokenizer: Any) -> None:
    text, supervised = decode(tokenizer, encode(tokenizer, {"messages": THINKING}))
    assert "left" not in text
    assert supervised == "sum<|im_end|><think>right</think>\n\nproduct<|im_end|>"


def test_plain_text_without_a_template_is_prompt_completion_and_end(bare: Any) -> None:
    encoded = encode(bare, {"prompt": "2 + 2 =", "completion": " 4"})
    assert decode(bare, encoded) == ("2 + 2 = 4<|im_end|>", " 4<|im_end|>")


@pytest.mark.parametrize("prompt", ["What is the", "What is the "])
def test_first_token_of_a_completion_is_supervised_with_the_space_before_it(bare: Any, prompt: str) -> None:
    encoded = encode(bare, {"prompt": prompt, "completion": "sum" if prompt.endswith(" ") else " sum"})
    assert decode(bare, encoded)[1] == " sum<|im_end|>"


def test_first_token_of_an_answer_is_supervised_with_the_space_before_it(tokenizer: Any, tmp_path: Path) -> None:
    config = template_file(
        tmp_path,
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}<|im_end|>",
    )
    encoded = encode(tokenizer, {"question": "What?", "answer": "sum"}, config)
    assert decode(tokenizer, encoded) == ("[user] What?[assistant] sum<|im_end|>", " sum<|im_end|>")


def test_indentation_is_supervised_by_tokenizers_that_trim_offsets(bare: Any) -> None:
    bare.backend_tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    encoded = encode(bare, {"prompt": "What is  ", "completion": "    sum  "})
    assert decode(bare, encoded)[1].endswith("    sum  <|im_end|>")


def test_messages_without_a_template_are_refused(bare: Any) -> None:
    with pytest.raises(ModelError, match=r"has no chat template and the rows are messages; name a Jinja file"):
        encode(bare, {"messages": THINKING})
    with pytest.raises(ModelError, match=r"has no chat template"):
        encode(bare, {"prompt": "2 + 2 =", "completion": " 4"}, system_prompt="Be brief.")


def test_template_file_replaces_the_models_own(tokenizer: Any, tmp_path: Path) -> None:
    config = template_file(tmp_path, "{% for m in messages %}({{ m.content }}){% endfor %}")
    encoded = encode(tokenizer, {"question": "What?", "answer": "7"}, config)
    assert decode(tokenizer, encoded) == ("(What?)(7)", "7")


def test_missing_template_file_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoding\.chat_template: there is no file .*nope\.jinja"):
        Encoder(tokenizer, EncodingConfig(chat_template=str(tmp_path / "nope.jinja")))


def test_a_chat_template_is_known_by_its_text(tmp_path: Path) -> None:
    before = template_file(tmp_path, "one").identity()
    assert template_file(tmp_path, "one").identity() == before
    assert template_file(tmp_path, "two").identity() != before
    assert EncodingConfig().identity().keys() < before.keys()


def test_template_that_is_not_jinja_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the chat template is not valid Jinja"):
        encode(tokenizer, {"messages": THINKING}, template_file(tmp_path, "{% for m in"))


def test_conversation_that_the_template_refuses_is_a_bad_row(tokenizer: Any, tmp_path: Path) -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    config = template_file(tmp_path, refusal + tokenizer.chat_template)
    encoded = encode(tokenizer, {"messages": [{"role": "system", "content": "Be brief."}, *THINKING]}, config)
    assert (encoded.status, encoded.features) == ("bad_row", None)
    assert "no system role" in encoded.detail
    assert encode(tokenizer, {"messages": THINKING}, config).status == "ok"


@pytest.mark.parametrize("failing", ["{{ 1 + messages[0].content }}", "{{ messages[7].content.x }}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_on_a_row_is_its_status(failing: str, tokenizer: Any, tmp_path: Path) -> None:
    guarded = "{% if messages[0].content == 'first' %}" + failing + "{% endif %}" + tokenizer.chat_template
    rows = make_rows({"messages": THINKING}, {"messages": THINKING[2:]})
    encoded = [Encoder(tokenizer, template_file(tmp_path, guarded)).encode(rows, row) for row in range(2)]
    assert [item.status for item in encoded] == ["bad_row", "ok"]
    assert encoded[0].detail.startswith("the chat template")


def test_whatever_a_library_raises_for_a_row_is_its_status_in_short(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **options: Any) -> None:
        raise AttributeError(f"<Thing object at 0x7f12ab34> in /home/someone/rows/file.py {'no ' * 2000}")

    monkeypatch.setattr(type(tokenizer), "_encode_plus", failing)
    encoded = encode(tokenizer, {"messages": THINKING})
    assert encoded.status == "bad_row"
    assert encoded.detail.startswith("the row cannot be encoded (AttributeError: <Thing> in file.py no no no")
    assert len(encoded.detail) < 500
    with pytest.raises(RowError, match="the row cannot be encoded"):
        Encoder(tokenizer).encode_prompt(make_rows({"messages": THINKING}), 0)


@pytest.mark.parametrize(
    ("ids", "labels", "reason"),
    [
        ([5, 10**6], [5, 6], "input_ids hold 1000000, and the vocabulary has tokens 0 to 380"),
        ([5, -1], [5, 6], "input_ids hold -1"),
        ([5, 6], [5, 381], "labels hold 381"),
        ([5, 6], [5, -1], "labels hold -1"),
    ],
)
def test_tokens_outside_the_vocabulary_are_a_status(
    ids: list[int], labels: list[int], reason: str, tokenizer: Any
) -> None:
    encoded = encode(tokenizer, {"input_ids": ids, "labels": labels})
    assert (encoded.status, encoded.detail.startswith(reason)) == ("bad_row", True), encoded.detail


def gemma_processor(vlm_path: str) -> Any:
    """A tiny Gemma 3 processor: where an image stands is one token, its pieces are another's."""
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    family = FAMILIES["gemma3"]
    with_images = dataclasses.replace(family, special=(*family.special, *images.values()))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_of(with_images, vlm_path).backend_tokenizer,
        bos_token="<bos>", eos_token="<eos>", extra_special_tokens=images,
    )  # fmt: skip
    pictures = transformers.Gemma3ImageProcessor(size={"height": 16, "width": 16})
    template = GEMMA3.replace(
        "{{- m.content | trim }}",
        "{%- for p in m.content %}{{- '<start_of_image>' if p.type == 'image' else p.text | trim }}{%- endfor %}",
    )
    return transformers.Gemma3Processor(pictures, tokenizer, chat_template=template, image_seq_length=4)


def test_truncation_cuts_all_that_gemma_has_for_each_token_and_no_image(vlm_path: str) -> None:
    gemma = gemma_processor(vlm_path)
    turns = [("user", "What?"), ("assistant", "A sum."), ("user", "And this?\n<image>\n"), ("assistant", "A product.")]
    record = {"messages": [{"role": role, "content": text} for role, text in turns], "images": [png()]}
    whole = encode(gemma, record)
    assert decode(gemma, whole)[1] == "A sum.<end_of_turn>A product.<end_of_turn>"
    for limit in range(2, whole.length):
        encoded = encode(gemma, record, EncodingConfig(limit, "truncate"))
        if encoded.features is not None:
            lengths = {
                len(encoded.features[key]) for key in ("input_ids", "labels", "attention_mask", "token_type_ids")
            }
            assert lengths == {limit}
            assert (encoded.features["input_ids"] == gemma.tokenizer.image_token_id).sum() == 4
    assert encoded.status == "truncated"


def test_a_placeholder_without_a_column_of_images_is_a_word_to_models_of_text_alone(
    processor: Any, tokenizer: Any
) -> None:
    record = {"question": "<image> which colour?", "answer": "red <image>"}
    assert encode(tokenizer, record).status == "ok"
    seen = encode(processor, record)
    assert (seen.status, seen.detail.split(":")[0]) == ("bad_image", "1 image placeholders, but no images")
    assert encode(processor, {"question": "which colour?", "answer": "<image>"}).status == "ok"


def test_system_prompt_is_read_and_not_supervised(processor: Any) -> None:
    encoded = encode(processor, {"question": "sum?", "answer": "7"}, system_prompt="Be brief.")
    text, supervised = decode(processor, encoded)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nsum?")
    assert supervised == "7<|im_end|>"


def test_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="ByT5Tokenizer has no character offsets; a fast tokenizer is needed"):
        Encoder(transformers.ByT5Tokenizer())


def test_images_for_a_text_model_are_refused(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="reads text only, but the rows hold images"):
        encode(tokenizer, {"question": "sum?", "answer": "7", "image": png()})


def test_first_token_is_never_counted(tokenizer: Any) -> None:
    encoded = encode(tokenizer, {"input_ids": [5, 6, 7, 8], "labels": [5, IGNORE_INDEX, 7, 8]})
    assert (encoded.tokens, encoded.length) == (2, 4)


@pytest.mark.parametrize(
    "record",
    [
        {"messages": THINKING[:1]},
        {"question": "sum?", "answer": ""},
        {"prompt": "sum?", "completion": " \n"},
        {"input_ids": [5, 6], "labels": [IGNORE_INDEX, IGNORE_INDEX]},
        {"input_ids": [5, 6], "labels": [5, IGNORE_INDEX]},
    ],
)
def test_row_without_answer_tokens_has_no_labels(tokenizer: Any, record: Record) -> None:
    encoded = encode(tokenizer, record)
    assert (encoded.status, encoded.features, encoded.tokens) == ("no_labels", None, 0)


# A picture of a kind that Pillow opens and does not decode: NotImplementedError.
DDS = b"DDS " + struct.pack("<7I", 124, 0, 8, 8, 0, 0, 0) + bytes(44) + struct.pack("<2I", 32, 0x9999) + bytes(44)


@pytest.mark.parametrize(
    "image",
    [
        {"bytes": b"damaged", "path": None},
        {"bytes": png()["bytes"][:60], "path": None},
        {"bytes": None, "path": "/nowhere/a.png"},
        {"bytes": DDS, "path": None},
        png((3000, 2)),
        png((500, 500)),
    ],
)
def test_unreadable_image_is_a_status_and_leaves_the_others_alone(
    processor: Any, image: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    records = [{"question": "sum?", "answer": str(i), "image": png()} for i in range(3)]
    alone = [encode(processor, record).features for record in records]
    records[1]["image"] = image
    rows = make_rows(*records)
    encoded = [Encoder(processor).encode(rows, row) for row in range(3)]
    assert [item.status for item in encoded] == ["ok", "bad_image", "ok"]
    assert encoded[1].detail
    for row in (0, 2):
        assert all(torch.equal(value, alone[row][key]) for key, value in encoded[row].features.items())


def test_literal_image_tokens_are_a_status(processor: Any) -> None:
    record = {"question": "What is <|image_pad|>?", "answer": "7"}
    assert encode(processor, record).status == "bad_row"
    assert encode(processor, {**record, "image": png()}).status == "bad_row"


QUESTION = {"question": "What is the sum of the two digits?", "answer": "left 3, right 4. 3 + 4 = 7. answer: 7"}


@pytest.mark.parametrize("overflow", ["skip", "truncate"])
def test_row_that_fits_exactly_is_left_whole(processor: Any, overflow: str) -> None:
    whole = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(max_length=None))
    encoded = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(whole.length, overflow))
    assert (encoded.status, encoded.length) == ("ok", whole.length)


def test_row_over_the_limit_is_skipped(processor: Any) -> None:
    whole = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(max_length=None))
    encoded = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(whole.length - 1))
    assert (encoded.status, encoded.features) == ("too_long", None)
    assert encoded.detail == f"{whole.length} tokens, limit {whole.length - 1}"


def test_truncation_cuts_only_the_end_of_the_answer(processor: Any) -> None:
    whole = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(max_length=None))
    encoded = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(whole.length - 5, "truncate"))
    assert (encoded.status, encoded.length, encoded.tokens) == ("truncated", whole.length - 5, whole.tokens - 4)
    for key, value in encoded.features.items():
        cut = (
            whole.features[key][:-5] if key in ("input_ids", "attention_mask", "labels", "mm_token_type_ids") else None
        )
        assert torch.equal(value, whole.features[key] if cut is None else cut)


def test_no_limit_cuts_an_image_token_or_leaves_no_answer(processor: Any) -> None:
    whole = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(max_length=None))
    before_answer = int((whole.features["labels"] != IGNORE_INDEX).int().argmax())
    for limit in range(2, whole.length):
        encoded = encode(processor, {**QUESTION, "image": png()}, EncodingConfig(limit, "truncate"))
        assert encoded.status == ("truncated" if limit > before_answer else "too_long")


def test_image_after_the_first_answer_is_not_cut(processor: Any) -> None:
    roles = ["user", "assistant", "user", "assistant"]
    contents = [[word("sum " * 10)], [word("sum " * 10)], [{"type": "image", "text": None}], [word("sum " * 10)]]
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    record = {"messages": messages, "images": [png()]}
    whole = encode(processor, record, EncodingConfig(max_length=None))
    image_at = int((whole.features["input_ids"] == processor.image_token_id).int().argmax())
    assert encode(processor, record, EncodingConfig(image_at + 3, "truncate")).status == "too_long"
    assert encode(processor, record, EncodingConfig(whole.length - 3, "truncate")).status == "truncated"


def test_prompt_ends_where_the_answer_begins(processor: Any) -> None:
    rows = make_rows({**QUESTION, "image": png()})
    features, reference = Encoder(processor).encode_prompt(rows, 0)
    whole = Encoder(processor).encode(rows, 0).features
    length = len(features["input_ids"])
    assert torch.equal(features["input_ids"], whole["input_ids"][:length])
    assert (whole["labels"][:length] == IGNORE_INDEX).all() and whole["labels"][length] != IGNORE_INDEX
    assert reference == QUESTION["answer"]
    assert "labels" not in features


def test_plain_prompt_is_not_closed(bare: Any) -> None:
    features, reference = Encoder(bare).encode_prompt(make_rows({"prompt": "2 + 2 =", "completion": " 4"}), 0)
    assert (bare.decode(features["input_ids"]), reference) == ("2 + 2 =", " 4")


@pytest.mark.parametrize(
    ("record", "status"),
    [({"messages": THINKING[:3]}, "no_labels"), ({"input_ids": [5, 6], "labels": [5, 6]}, "bad_row")],
)
def test_row_without_a_last_answer_cannot_be_prompted(tokenizer: Any, record: Record, status: str) -> None:
    with pytest.raises(RowError, match=r"does not end with an assistant message|tokenised rows") as caught:
        Encoder(tokenizer).encode_prompt(make_rows(record), 0)
    assert caught.value.status == status


def test_encoded_dataset_refuses_a_bad_row_by_name_and_serves_the_others(tokenizer: Any) -> None:
    rows = make_rows({"question": "sum?", "answer": "7"}, {"question": "sum?", "answer": None})
    dataset = EncodedDataset(rows, Encoder(tokenizer))
    assert len(dataset) == 2
    assert dataset[0]["labels"][-2] == tokenizer.eos_token_id
    with pytest.raises(DataError, match=rf"row 1 \({rows.example_ids[1]}\) cannot be used: bad_row, expected text"):
        dataset[1]


def test_tokenised_rows_must_name_the_models_own_tokenizer(text_path: str, tokenizer: Any, tmp_path: Path) -> None:
    record = {"input_ids": [5, 6], "labels": [5, 6]}
    with pytest.raises(ModelError, match="name the tokenizer they were made with"):
        EncodedDataset(make_rows(record), Encoder(tokenizer))
    assert len(EncodedDataset(make_rows(record, tokenizer=text_path), Encoder(tokenizer))) == 1
    tokenizer.add_tokens(["<other>"])
    tokenizer.save_pretrained(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(text_path)
    with pytest.raises(ModelError, match=rf"were tokenised with {tmp_path}, whose vocabulary differs from {text_path}"):
        EncodedDataset(make_rows(record, tokenizer=str(tmp_path)), Encoder(other))
