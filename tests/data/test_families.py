"""Over the families' templates, what is learnt is what a slow rendering of one prefix after another says."""

from __future__ import annotations

import random
from typing import Any

import datasets
import pytest

from families import FAMILIES, Family, conversation, tokenizer_of
from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoded import IGNORE_INDEX, Encoded
from ost_hf.data.encoding import Encoder
from ost_hf.data.rows import Rows

Message = dict[str, Any]
NO_LIMIT = EncodingConfig(max_length=None)

# DatasetS give all mappings all keys; JSON text is what people store for that reason.
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


def encode(tokenizer: Any, row: dict[str, Any], config: EncodingConfig = NO_LIMIT) -> Encoded:
    return Encoder(tokenizer, config).encode(Rows(datasets.Dataset.from_list([row])), 0)


def said(tokenizer: Any, encoded: Encoded) -> tuple[str, list[str]]:
    """The row's text, and its supervised runs."""
    assert encoded.features is not None, encoded
    ids, labels = encoded.features["input_ids"].tolist(), encoded.features["labels"].tolist()
    runs: list[list[int]] = []
    for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label != IGNORE_INDEX:
            if place == 0 or labels[place - 1] == IGNORE_INDEX:
                runs.append([])
            runs[-1].append(token)
    return tokenizer.decode(ids), [tokenizer.decode(run) for run in runs]


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
    import json

    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}}
        for call in message.get("tool_calls") or []
    ]
    return {**message, **({"tool_calls": calls} if calls else {})}


@pytest.mark.parametrize("turns", [1, 2, 7])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_supervised_text_is_that_of_the_slow_reference(name: str, turns: int, vlm_path: str) -> None:
    family, rng = FAMILIES[name], random.Random(turns)
    tokenizer = tokenizer_of(family, vlm_path)
    for _ in range(25):
        messages = conversation(family, rng, turns)
        expected = slow_reference(family, tokenizer, messages)
        encoded = encode(tokenizer, {"messages": messages})
        if not expected[1]:
            assert encoded.status == "no_labels"
        else:
            text, runs = said(tokenizer, encoded)
            assert (text, [run.lstrip(" ") for run in runs]) == expected
