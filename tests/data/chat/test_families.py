"""Over the families' templates, what is learnt is what a slow rendering of one prefix after another says."""

# ruff: noqa: RUF001  DeepSeek writes its tokens with these bars.

from __future__ import annotations

import json
import random
from typing import Any

import datasets
import pytest
from families import CHATML, FAMILIES, NO_LIMIT, Family, conversation, encode, said, tokenizer_of

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.rows import Rows
from ost_hf.errors import ModelError

Message = dict[str, Any]

MISTRAL_V1 = """\
{{- bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}
{%- else %}{{- ' ' + m.content + eos_token }}{%- endif %}{%- endfor %}"""

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


def visible(family: Family, messages: list[Message]) -> list[Message]:
    """Without the thoughts that templates drop: all before the last question."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    return [
        {**message, "content": message["content"].split("</think>")[-1].lstrip("\n")}
        if family.thinks and message["role"] == "assistant" and i < last
        else message
        for i, message in enumerate(messages)
    ]


def slow_reference(family: Family, tokenizer: Any, messages: list[Message]) -> tuple[str, list[str]]:
    """Each answer begins where its prompt ends, and ends with what closes it."""

    def render(part: list[Message], add_generation_prompt: bool = False) -> str:
        return tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=add_generation_prompt)

    if family is FAMILIES["deepseek"]:  # its template wants a call's arguments as text
        messages = [_with_json(message) for message in messages]
    text, shown, runs = render(messages), visible(family, messages), []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or not (message["content"].strip() or message.get("tool_calls")):
            continue
        prompt = render(shown[:index], add_generation_prompt=True)
        assert text.startswith(prompt)
        end = text.index(family.closes, len(prompt)) + len(family.closes)
        runs.append(text[len(prompt) : end].lstrip(" "))
    return text, runs


def _with_json(message: Message) -> Message:
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message.get("tool_calls") or []
    ]
    return {**message, **({"tool_calls": calls} if calls else {})}


@pytest.mark.parametrize("turns", [1, 2, 7])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_supervised_text_is_that_of_the_slow_reference(name: str, turns: int, vlm_path: str) -> None:
    family, rng = FAMILIES[name], random.Random(turns)
    tokenizer = tokenizer_of(family, vlm_path)
    for _ in range(12):
        messages = conversation(family, rng, turns)
        expected = slow_reference(family, tokenizer, messages)
        encoded = encode(tokenizer, {"messages": messages})
        if not expected[1]:
            assert encoded.status == "no_labels"
        else:
            text, runs = said(tokenizer, encoded)
            assert (text, [run.lstrip(" ") for run in runs]) == expected


def test_what_is_asked_of_a_template_does_not_grow_with_the_turns(
    vlm_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    for family in FAMILIES.values():
        tokenizer = tokenizer_of(family, vlm_path)
        apply = type(tokenizer).apply_chat_template
        counts = []
        for turns in (4, 200):
            messages = conversation(family, random.Random(1), turns)

            def counted(self: Any, part: list[Message], _apply: Any = apply, **options: Any) -> Any:
                asked.append(len(part))
                return _apply(self, part, **options)

            with monkeypatch.context() as patch:
                patch.setattr(type(tokenizer), "apply_chat_template", counted)
                asked.clear()
                assert encode(tokenizer, {"messages": messages}).status == "ok"
            counts.append(sum(size > len(messages) // 2 for size in asked))
            assert len(asked) <= 12
        assert counts[1] <= 4, counts


@pytest.mark.slow
def test_four_hundred_turns_are_those_of_the_slow_reference(vlm_path: str) -> None:
    family = FAMILIES["qwen3"]
    tokenizer, messages = tokenizer_of(family, vlm_path), conversation(family, random.Random(4), 200)
    assert said(tokenizer, encode(tokenizer, {"messages": messages})) == slow_reference(family, tokenizer, messages)


def test_a_row_that_is_too_long_is_not_searched_for_answers(vlm_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ost_hf.data.encoding.encoder.answer_spans", None)
    messages = conversation(FAMILIES["chatml"], random.Random(1), 40)
    encoded = encode(tokenizer_of(FAMILIES["chatml"], vlm_path), {"messages": messages}, EncodingConfig(100))
    assert encoded.status == "too_long"


CONTROL = [(name, token) for name, family in FAMILIES.items() for token in family.special]
CONTROL += [("deepseek", token) for token in ("<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>")]


@pytest.mark.parametrize(("name", "token"), CONTROL)
@pytest.mark.parametrize("place", [0, 1])
def test_a_typed_control_token_is_a_status_that_names_it(name: str, token: str, place: int, vlm_path: str) -> None:
    words = ["What is it?", "it is red"]
    words[place] += f"{token}\nuser\nmore"
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), words, strict=True)]
    encoded = encode(tokenizer_of(FAMILIES[name], vlm_path), {"messages": messages})
    assert (encoded.status, encoded.features) == ("bad_row", None)
    assert f"holds {token}," in encoded.detail


def test_a_control_token_is_found_in_parts_roles_calls_and_arguments(vlm_path: str) -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"], vlm_path)
    asked, answered = {"role": "user", "content": "sum?"}, {"role": "assistant", "content": "7"}
    call = {"type": "function", "function": {"name": "add", "arguments": {"of": "3<|im_end|>"}}}
    split = [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": split}, {"role": "assistant", "content": [split[0]]}]},
        {"messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]},
        {"messages": [asked, answered], "tools": [{"name": "a<|im_start|>"}]},
        {"messages": [asked, {**answered, "reasoning_content": "so <|im_end|>"}]},
    ]
    assert [encode(tokenizer, row).status for row in rows] == ["bad_row"] * 4


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("qwen3", "<think>\nwell\n</think>\n\n7"),
        ("qwen3", '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'),
        ("chatml", "write <|im_start or |im_end|> or <image>"),
        ("mistral", "the list [INS] and [0]"),
        ("llama3.1", "<think>well</think> 7"),
    ],
)
def test_thoughts_calls_and_what_only_looks_like_a_token_are_text(name: str, answer: str, vlm_path: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name], vlm_path)
    encoded = encode(tokenizer, {"question": "What is 3 + 4?", "answer": answer})
    assert said(tokenizer, encoded)[1][0].endswith(answer + FAMILIES[name].closes)


def test_thought_tags_that_a_user_made_special_stay_text(vlm_path: str) -> None:
    tokenizer = tokenizer_of(FAMILIES["chatml"], vlm_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    encoded = encode(tokenizer, {"question": "What is 3 + 4?", "answer": "<think>so</think>7"})
    assert said(tokenizer, encoded)[1] == ["<think>so</think>7<|im_end|>"]


def test_words_by_which_an_old_template_marks_turns_are_a_status(vlm_path: str) -> None:
    family = Family(MISTRAL_V1, ("<s>", "</s>"))
    encoded = encode(tokenizer_of(family, vlm_path), {"question": "q", "answer": "7 [INST] more [/INST]"})
    assert (encoded.status, "holds [INST]," in encoded.detail) == ("bad_row", True)


ASKED = {"role": "user", "content": "find k1"}


def called(arguments: Any, **more: Any) -> dict[str, Any]:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    return {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}], **more}


@pytest.mark.parametrize("arguments", [{"key": "k1"}, '{"key": "k1"}'])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3.1", '{"name": "look_up", "parameters": {"key": "k1"}}<|eot_id|>'),
        ("mistral", '[TOOL_CALLS][{"name": "look_up", "arguments": {"key": "k1"}}]</s>'),
        (
            "qwen3",
            "<think>\n\n</think>\n\n<tool_call>\n"
            '{"name": "look_up", "arguments": {"key": "k1"}}\n</tool_call><|im_end|>',
        ),
        (
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n"
            '{"key": "k1"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>',
        ),
    ],
)
def test_a_call_is_learnt_whichever_way_its_arguments_are_stored(
    name: str, arguments: Any, expected: str, vlm_path: str
) -> None:
    tokenizer = tokenizer_of(FAMILIES[name], vlm_path)
    assert said(tokenizer, encode(tokenizer, called(arguments)))[1] == [expected]


def test_nulls_that_arrow_adds_are_no_arguments(vlm_path: str) -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"], vlm_path)
    rows = Rows(datasets.Dataset.from_list([called({"key": "k1", "n": None}), called({"key": None, "n": 2})]))
    encoded = [Encoder(tokenizer, NO_LIMIT).encode(rows, row) for row in range(2)]
    assert ['"arguments": {"key": "k1"}}' in said(tokenizer, encoded[0])[0], "null" in str(encoded)] == [True, False]
    assert '"arguments": {"n": 2}}' in said(tokenizer, encoded[1])[0]


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS), [json.dumps(TOOLS[0])], TOOLS[0]])
@pytest.mark.parametrize("name", ["qwen3", "llama3.1", "mistral", "named"])
def test_tools_are_shown_and_not_learnt(name: str, tools: Any, vlm_path: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name], vlm_path)
    row = {"messages": [ASKED, {"role": "assistant", "content": "no"}]}
    rows = Rows(datasets.Dataset.from_list([{**row, "tools": tools}]))
    encoded = Encoder(tokenizer, NO_LIMIT).encode(rows, 0)
    text, runs = said(tokenizer, encoded)
    shown = tokenizer.apply_chat_template(row["messages"], tools=TOOLS, tokenize=False)
    assert text == shown
    assert "".join(runs).count("look_up") == 0
    assert rows.content_hashes != Rows(datasets.Dataset.from_list([row])).content_hashes
    features, _ = Encoder(tokenizer).encode_prompt(rows, 0)
    assert "look_up" in tokenizer.decode(features["input_ids"])


def test_documents_and_arguments_by_name_reach_the_template_and_the_hash(vlm_path: str) -> None:
    template = "{% for d in documents or [] %}{{ d.title }} {% endfor %}{{ style or '' }}" + CHATML
    tokenizer = tokenizer_of(Family(template, FAMILIES["chatml"].special), vlm_path)
    row = {"question": "q", "answer": "a"}
    more = [{}, {"documents": [{"title": "sums"}]}, {"chat_template_kwargs": {"style": "brief", "unread": "x"}}]
    rows = [Rows(datasets.Dataset.from_list([{**row, **one}])) for one in more]
    begins = [said(tokenizer, Encoder(tokenizer).encode(one, 0))[0].split("<|im_start|>")[0] for one in rows]
    assert begins == ["", "sums ", "brief"]
    assert len({one.content_hashes[0] for one in rows}) == 3


def test_empty_cells_for_the_template_leave_a_row_as_it_is(vlm_path: str) -> None:
    row = {"question": "q", "answer": "a"}
    dataset = datasets.Dataset.from_list([{**row, "tools": TOOLS}, {**row, "tools": []}, {**row, "tools": None}])
    hashes = Rows(dataset).content_hashes
    assert hashes[1] == hashes[2] == Rows(datasets.Dataset.from_list([row])).content_hashes[0] != hashes[0]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"tools": "no JSON"}, "tools is text, but no JSON"),
        ({"tools": [["a"]]}, "each of the tools must be a mapping, or JSON of one, not list"),
        ({"tools": "[" * 5000}, "tools is text, but no JSON"),
        ({"documents": 3}, "documents must be a list, not int"),
        ({"chat_template_kwargs": {"add_generation_prompt": True}}, "chat_template_kwargs may not set add_generation"),
    ],
)
def test_malformed_cells_for_the_template_are_a_status(cells: dict[str, Any], reason: str, vlm_path: str) -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"], vlm_path)
    encoded = encode(tokenizer, {"question": "q", "answer": "a", **cells})
    assert (encoded.status, reason in encoded.detail) == ("bad_row", True), encoded.detail


def test_thinking_is_turned_off_by_an_argument_of_the_row(vlm_path: str) -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"], vlm_path)
    row = {"question": "q", "answer": "a", "chat_template_kwargs": {"enable_thinking": False}}
    assert said(tokenizer, encode(tokenizer, row))[1] == ["a<|im_end|>"]
    features, _ = Encoder(tokenizer).encode_prompt(Rows(datasets.Dataset.from_list([row])), 0)
    assert tokenizer.decode(features["input_ids"]).endswith("<think>\n\n</think>\n\n")
    del row["chat_template_kwargs"]
    assert said(tokenizer, encode(tokenizer, row))[1] == ["<think>\n\n</think>\n\na<|im_end|>"]


@pytest.mark.parametrize("adds", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", FAMILIES)
def test_tokenizers_that_add_begin_and_end_change_no_chat(name: str, adds: tuple[bool, bool], vlm_path: str) -> None:
    family = FAMILIES[name]
    row = {"question": "What is it?", "answer": "red"}
    tokenizer = tokenizer_of(family, vlm_path, adds)
    expected = said(tokenizer, encode(tokenizer_of(family, vlm_path), row))
    assert said(tokenizer, encode(tokenizer, row)) == expected
    features, _ = Encoder(tokenizer).encode_prompt(Rows(datasets.Dataset.from_list([row])), 0)
    assert features["input_ids"][-1] != tokenizer.eos_token_id


@pytest.mark.parametrize("adds", [(False, False), (True, False), (False, True), (True, True)])
def test_plain_text_begins_as_the_tokenizer_says_and_ends_once(adds: tuple[bool, bool], vlm_path: str) -> None:
    tokenizer = tokenizer_of(Family(None, ("<s>", "</s>")), vlm_path, adds)
    row = {"prompt": "2 + 2 =", "completion": " 4"}
    begin = "<s>" if adds[0] else ""
    assert said(tokenizer, encode(tokenizer, row)) == (f"{begin}2 + 2 = 4</s>", [" 4</s>"])
    features, _ = Encoder(tokenizer).encode_prompt(Rows(datasets.Dataset.from_list([row])), 0)
    assert tokenizer.decode(features["input_ids"]) == f"{begin}2 + 2 ="


def test_a_template_that_closes_every_text_does_not_close_a_prompt(vlm_path: str) -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}{{ eos_token }}"
    tokenizer = tokenizer_of(Family(template, ("<s>", "</s>")), vlm_path)
    features, _ = Encoder(tokenizer).encode_prompt(
        Rows(datasets.Dataset.from_list([{"question": "q", "answer": "a"}])), 0
    )
    assert tokenizer.decode(features["input_ids"]) == "user: q\n"


def test_named_templates_without_a_default_are_refused_in_one_sentence(vlm_path: str) -> None:
    tokenizer = tokenizer_of(Family({"rag": CHATML, "plan": CHATML}, ("<s>", "</s>")), vlm_path)
    with pytest.raises(
        ModelError, match="has chat templates named rag, plan and none named default; name a Jinja file"
    ):
        encode(tokenizer, {"question": "q", "answer": "a"})
