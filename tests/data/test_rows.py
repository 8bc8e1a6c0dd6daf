"""Every accepted layout becomes the same example, and every row has an id that stays its own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from ost_hf.data.config import DatasetConfig
from ost_hf.data.example import RowError
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError

Record = dict[str, Any]


def text(words: str) -> Record:
    return {"type": "text", "text": words}


def turn(role: str, content: Any) -> Record:
    return {"role": role, "content": content}


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def stored(data: bytes | None) -> Record:
    return {"bytes": data, "path": None}


def make_rows(records: list[Record], **config: Any) -> Rows:
    return Rows(datasets.Dataset.from_list(records), DatasetConfig(path="in memory", **config))


def numbered(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"question": f"{i} + 1?", "answer": str(i + 1), "n": i} for i in range(count)])


CONVERSATION = [turn("user", [text("2 + 2?")]), turn("assistant", [text("4")])]
STRINGS = [turn("user", "2 + 2?"), turn("assistant", "4")]


@pytest.mark.parametrize(
    ("record", "config"),
    [
        ({"messages": STRINGS}, {}),
        ({"messages": CONVERSATION}, {}),
        ({"chat": STRINGS}, {"messages_column": "chat"}),
        ({"prompt": "2 + 2?", "completion": "4"}, {}),
        ({"prompt": STRINGS[:1], "completion": STRINGS[1:]}, {}),
        ({"p": "2 + 2?", "c": "4"}, {"prompt_column": "p", "completion_column": "c"}),
        ({"question": "2 + 2?", "answer": "4"}, {}),
        ({"question": "2 + 2?", "answer": 4}, {}),
        ({"q": "2 + 2?", "a": "4"}, {"question_column": "q", "answer_column": "a"}),
    ],
)
def test_every_layout_gives_the_same_example_and_id(record: Record, config: Record) -> None:
    rows = make_rows([record], **config)
    assert rows[0].messages == CONVERSATION
    assert rows[0].images == []
    assert rows.example_ids == make_rows([{"messages": CONVERSATION}]).example_ids


def test_padding_of_tokenized_rows_is_left_out() -> None:
    plain = make_rows([{"input_ids": [5, 6], "labels": [-100, 6]}])
    padded = make_rows([{"input_ids": [0, 5, 6], "labels": [-100, -100, 6], "attention_mask": [0, 1, 1]}])
    assert padded[0].tokens == plain[0].tokens
    assert padded.example_ids == plain.example_ids


def test_tokenized_rows_keep_their_tokens() -> None:
    example = make_rows([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "messages": STRINGS}])[0]
    assert example.tokens == {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}
    assert example.messages == []


@pytest.mark.parametrize(
    ("column", "config"), [("image", {}), ("images", {}), ("picture", {"images_column": "picture"})]
)
def test_images_open_the_first_user_message(column: str, config: Record) -> None:
    value: Any = stored(png(1)) if column != "images" else [stored(png(1))]
    example = make_rows([{"question": "Which?", "answer": "4", column: value}], **config)[0]
    assert example.messages[0]["content"] == [{"type": "image"}, text("Which?")]
    assert [image["bytes"] for image in example.images] == [png(1)]


def test_placeholders_take_the_columns_images_in_order() -> None:
    content = [text("left"), {"type": "image", "text": None}, text("right"), {"type": "image", "text": None}]
    messages = [turn("user", content), turn("assistant", [text("4")])]
    example = make_rows([{"messages": messages, "images": [stored(png(1)), stored(png(2))]}])[0]
    assert example.messages[0]["content"] == [text("left"), {"type": "image"}, text("right"), {"type": "image"}]
    assert [image["bytes"] for image in example.images] == [png(1), png(2)]


@pytest.mark.parametrize("key", ["image", "path", "url"])
def test_images_may_stand_inside_the_messages(key: str) -> None:
    messages = [turn("user", [{"type": "image", key: "a.png"}, text("Which?")]), turn("assistant", [text("4")])]
    example = make_rows([{"messages": messages}])[0]
    assert example.images == ["a.png"]
    assert example.messages[0]["content"] == [{"type": "image"}, text("Which?")]


def test_null_image_makes_a_text_row() -> None:
    records = [{"question": "2 + 2?", "answer": "4", "image": image} for image in (stored(png(1)), None)]
    assert make_rows(records)[1].messages == CONVERSATION


def test_bare_numbers_of_a_csv_are_text(tmp_path: Path) -> None:
    (tmp_path / "pool.csv").write_text("question,answer\n1+1,2\n7/2,3.5\n3+3,\n")
    rows = Rows.load(DatasetConfig(str(tmp_path / "pool.csv")))
    assert [rows[row].messages[-1]["content"][0]["text"] for row in (0, 1)] == ["2", "3.5"]
    with pytest.raises(RowError, match="expected text or a list of messages"):
        rows[2]


def test_system_prompt_comes_before_rows_that_bring_none() -> None:
    own = [turn("system", "Be brief."), *STRINGS]
    rows = make_rows([{"messages": STRINGS}, {"messages": own}], system_prompt="Think.")
    assert rows[0].messages == [turn("system", [text("Think.")]), *CONVERSATION]
    assert rows[1].messages[0] == turn("system", [text("Be brief.")])
    assert len(rows[1].messages) == 3


def test_system_prompt_leaves_ids_alone() -> None:
    records = [{"messages": STRINGS}]
    assert make_rows(records).example_ids == make_rows(records, system_prompt="Think.").example_ids


def test_ids_do_not_depend_on_row_order() -> None:
    dataset = numbered(6)
    ids = Rows(dataset).example_ids
    assert len(set(ids)) == 6
    assert Rows(dataset.select([5, 3, 1, 0, 2, 4])).example_ids == [ids[i] for i in (5, 3, 1, 0, 2, 4)]


def test_ids_do_not_depend_on_other_columns() -> None:
    dataset = numbered(4)
    changed = dataset.remove_columns("n").add_column("kind", ["a", "b", "c", "d"])
    assert Rows(changed).example_ids == Rows(dataset).example_ids


def test_exact_duplicates_are_numbered() -> None:
    same, other = {"question": "2 + 2?", "answer": "4"}, {"question": "2 + 3?", "answer": "5"}
    ids = make_rows([same, other, same, same]).example_ids
    assert [name.rsplit("-", 1)[1] for name in ids] == ["0", "0", "1", "2"]
    assert ids[0][:-2] == ids[2][:-2] == ids[3][:-2] != ids[1][:-2]


def test_images_belong_to_the_content() -> None:
    records = [{"question": "Which?", "answer": "4", "image": stored(png(shade))} for shade in (1, 2, 1)]
    hashes = make_rows(records).content_hashes
    assert hashes[0] == hashes[2] != hashes[1]


def test_an_image_has_one_hash_as_bytes_and_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    values = (stored(png(1)), {"bytes": None, "path": str(tmp_path / "a.png")})
    records = [{"question": "Which?", "answer": "4", "image": value} for value in values]
    hashes = make_rows(records, allow_paths=[str(tmp_path)]).content_hashes
    assert hashes[0] == hashes[1]


def test_relative_image_paths_start_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "rows.jsonl").write_text('{"question": "Which?", "answer": "4", "image": "a.png"}\n')
    rows = Rows(
        datasets.Dataset.from_list([{"question": "Which?", "answer": "4", "image": "a.png"}]),
        DatasetConfig(path=str(tmp_path / "rows.jsonl")),
    )
    assert rows.folder == tmp_path
    assert (
        rows.content_hashes
        == make_rows([{"question": "Which?", "answer": "4", "image": stored(png(1))}]).content_hashes
    )


def test_id_column_names_the_rows() -> None:
    assert Rows(numbered(3), DatasetConfig(path="in memory", id_column="n")).example_ids == ["0", "1", "2"]


def test_duplicates_in_the_id_column_are_refused() -> None:
    rows = make_rows([{"question": "q", "answer": "a", "name": name} for name in ("x", "y", "x")], id_column="name")
    with pytest.raises(DataError, match=r"id_column 'name' is not unique: 1 values .* such as 'x'"):
        _ = rows.example_ids


def test_selected_rows_keep_their_ids() -> None:
    same = {"question": "2 + 2?", "answer": "4"}
    rows = make_rows([same, same, {"question": "2 + 3?", "answer": "5"}])
    chosen = rows.select([2, 1])
    assert chosen.example_ids == [rows.example_ids[2], rows.example_ids[1]]
    assert chosen.content_hashes == [rows.content_hashes[2], rows.content_hashes[1]]
    assert chosen[1].example_id == rows.example_ids[1]


def test_fingerprint_changes_with_order_and_content_only() -> None:
    dataset = numbered(3)
    fingerprint = Rows(dataset).fingerprint
    assert Rows(dataset.remove_columns("n")).fingerprint == fingerprint
    assert Rows(dataset.select([1, 0, 2])).fingerprint != fingerprint
    assert Rows(dataset.select([0, 1])).fingerprint != fingerprint
    named = [make_rows([{"question": "q", "answer": a, "name": "x"}], id_column="name").fingerprint for a in ("a", "b")]
    assert named[0] != named[1]


def test_the_users_columns_stay_readable() -> None:
    assert list(Rows(numbered(3)).dataset["n"]) == [0, 1, 2]


def test_missing_columns_are_named_with_those_there_are() -> None:
    with pytest.raises(DataError, match=r"no accepted layout fits the columns text, label\. Needed: 'messages'"):
        make_rows([{"text": "a", "label": 1}])


def test_columns_that_are_named_are_meant_whatever_others_there_are() -> None:
    row = {"messages": [turn("user", "a"), turn("assistant", "b")], "prompt": "c", "completion": "d"}
    row |= {"problem": "e", "solution": "f", "answer": "g"}
    assert make_rows([row]).layout == "messages"
    named = make_rows([row], question_column="problem", answer_column="solution")
    assert named.layout == "question_answer"
    assert [message["content"][0]["text"] for message in named[0].messages] == ["e", "f"]
    assert make_rows([row], question_column="problem").layout == "question_answer"
    with pytest.raises(DataError, match="question_column: there is no column 'problm'; there are: messages, prompt"):
        make_rows([row], question_column="problm")


def test_missing_images_column_is_named_with_those_there_are() -> None:
    with pytest.raises(DataError, match=r"images_column: there is no column 'nope'; there are: question, answer, n"):
        Rows(numbered(2), DatasetConfig(path="in memory", images_column="nope"))


def test_missing_id_column_is_named_with_those_there_are() -> None:
    rows = Rows(numbered(2), DatasetConfig(path="in memory", id_column="nope"))
    with pytest.raises(DataError, match=r"id_column: there is no column 'nope'; there are: question, answer, n"):
        _ = rows.example_ids


def test_rows_that_a_function_makes_when_they_are_read_are_refused_by_its_name() -> None:
    def shout(batch: Record) -> Record:
        return {"question": [text.upper() for text in batch["question"]], "answer": batch["answer"]}

    for made in (numbered(3).with_transform(shout), numbered(3).with_format("custom", transform=shout)):
        with pytest.raises(
            DataError, match=r"makes its rows by shout when they are read .* dataset\.map\(shout, batched"
        ):
            Rows(made)
    assert Rows(numbered(3).map(shout, batched=True))[0].messages[0]["content"] == [text("0 + 1?")]


@pytest.mark.parametrize("form", ["numpy", "torch", "pandas"])
def test_a_format_changes_neither_rows_nor_columns(form: str) -> None:
    rows = Rows(numbered(3).with_format(form))
    assert rows.content_hashes == Rows(numbered(3)).content_hashes
    assert list(rows.dataset["n"]) == [0, 1, 2]


def test_columns_that_a_format_hides_are_no_content() -> None:
    record = {"messages": STRINGS, "question": "q", "answer": "a", "example_id": "x"}
    dataset = datasets.Dataset.from_list([record]).with_format(None, columns=["question", "answer"])
    rows = Rows(dataset, DatasetConfig(path="in memory", id_column="example_id"))
    assert (rows.layout, rows.example_ids) == ("question_answer", ["x"])


def test_dataset_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="the dataset has no rows"):
        Rows(datasets.Dataset.from_dict({"question": [], "answer": []}))


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        [None],
        [{"role": None, "content": "hi"}],
        [{"content": "hi"}],
        [turn("user", 5)],
        [turn("user", ["hi"])],
        [turn("user", {"type": "text"})],
    ],
)
def test_malformed_messages_fail_at_their_own_row_and_keep_an_id(messages: Any) -> None:
    rows = Rows(datasets.Dataset.from_dict({"messages": [messages]}))
    assert rows.example_ids[0].endswith("-0")
    with pytest.raises(RowError, match="message") as caught:
        rows[0]
    assert caught.value.status == "bad_row"


@pytest.mark.parametrize(
    "record",
    [
        {"question": "2 + 2?", "answer": None},
        {"question": "2 + 2?", "answer": float("nan")},
        {"input_ids": [1, 2], "labels": [1]},
        {"input_ids": [1, None], "labels": [1, 2]},
        {"input_ids": [1.0, 2.5], "labels": [1, 2]},
        {"input_ids": [[1, 2]], "labels": [[1, 2]]},
        {"input_ids": ["a"], "labels": [1]},
        {"messages": [turn("user", [{"type": "text", "text": 5}]), turn("assistant", [])]},
        {"messages": [STRINGS[0], {**STRINGS[1], "tool_calls": "none"}]},
        {"messages": [STRINGS[0], {**STRINGS[1], "tool_calls": ["look_up"]}]},
        {"input_ids": [], "labels": []},
        {"messages": STRINGS[1:], "images": [stored(png(1))]},
    ],
)
def test_unusable_rows_are_bad_rows(record: Record) -> None:
    with pytest.raises(RowError) as caught:
        make_rows([record])[0]
    assert caught.value.status == "bad_row"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_placeholders_must_be_as_many_as_images(count: int) -> None:
    messages = [turn("user", [{"type": "image"}, {"type": "image"}]), turn("assistant", [])]
    rows = make_rows([{"messages": messages, "images": [stored(png(1))] * count}])
    with pytest.raises(RowError, match=f"2 image placeholders but {count} images") as caught:
        rows[0]
    assert caught.value.status == "bad_image"


def test_missing_image_in_a_list_is_a_bad_image() -> None:
    rows = make_rows([{"question": "Which?", "answer": "4", "images": images} for images in ([stored(png(1))], [None])])
    with pytest.raises(RowError, match="the image is missing") as caught:
        rows[1]
    assert caught.value.status == "bad_image"


WORD, PICTURE = datasets.Value("string"), datasets.Image()
PART = {"type": WORD, "text": WORD, "image": PICTURE}


@pytest.mark.parametrize(
    ("record", "features"),
    [
        ({"image": stored(b"damaged")}, {"image": PICTURE}),
        ({"images": [stored(b"damaged")]}, {"images": datasets.List(PICTURE)}),
        ({"images": [stored(b"damaged")]}, {"images": datasets.List(PICTURE, length=1)}),
        ({"images": [stored(b"damaged")]}, {"images": datasets.LargeList(PICTURE)}),
    ],
)
def test_damaged_images_in_a_column_are_not_decoded_for_the_id(record: Record, features: Record) -> None:
    features = datasets.Features({"question": WORD, "answer": WORD, **features})
    rows = Rows(datasets.Dataset.from_list([{"question": "Which?", "answer": "4", **record}], features=features))
    assert rows.example_ids[0].endswith("-0")
    assert rows[0].images[0]["bytes"] == b"damaged"


def test_damaged_images_inside_messages_are_not_decoded_for_the_id() -> None:
    parts = [{"type": "image", "text": None, "image": stored(b"damaged")}]
    features = datasets.Features({"messages": datasets.List({"role": WORD, "content": datasets.List(PART)})})
    rows = Rows(datasets.Dataset.from_list([{"messages": [turn("user", parts)]}], features=features))
    assert rows.example_ids[0].endswith("-0")
    assert rows[0].images[0]["bytes"] == b"damaged"


@pytest.mark.parametrize("kind", ["image_url", "video", None])
def test_content_parts_of_another_kind_are_refused(kind: str | None) -> None:
    rows = Rows(datasets.Dataset.from_list([{"messages": [turn("user", [{"type": kind, "text": "x"}])]}]))
    with pytest.raises(RowError, match=f"content parts may be text or image, not {kind}"):
        rows[0]


def call(arguments: Any) -> Record:
    return {"type": "function", "function": {"name": "look_up", "arguments": arguments}}


def hash_of(*messages: Record, **columns: Any) -> str:
    return Rows(datasets.Dataset.from_list([{"messages": list(messages), **columns}])).content_hashes[0]


def test_ways_to_store_one_conversation_give_one_id() -> None:
    asked, called = turn("user", "q"), turn("assistant", "") | {"tool_calls": [call({"key": "v"})]}
    assert hash_of(asked, called) == hash_of(asked, called | {"tool_calls": [call('{"key":  "v"}')]})
    assert hash_of(asked, called) == hash_of(asked, called | {"content": None})
    assert hash_of(asked, turn("assistant", "a")) == hash_of(asked, turn("assistant", "a") | {"tool_calls": []})
    answer = turn("assistant", [text("a")])
    assert hash_of(turn("user", [text("qr")]), answer) == hash_of(turn("user", [text("q"), text("r")]), answer)


def test_what_a_template_writes_in_another_order_has_another_id() -> None:
    first, second = call({"a": 1, "b": 2}), call({"b": 2, "a": 1})
    asked = turn("user", "q")
    one, other = ({"role": "assistant", "content": "", "tool_calls": [each]} for each in (first, second))
    assert hash_of(asked, one) != hash_of(asked, other)
    tools = ['[{"name": "f", "x": 1}]', '[{"x": 1, "name": "f"}]']
    assert hash_of(asked, tools=tools[0]) != hash_of(asked, tools=tools[1])
