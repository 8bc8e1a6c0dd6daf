"""With templates as models are published with: what is learnt is what TRL's own marks in these templates cover."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
from families import Family, encode, said, tokenizer_of
from transformers.utils.chat_template_utils import render_jinja_template

trl = pytest.importorskip("trl", reason="its chat templates are the reference: pip install 'ost-hf[trl]'")
TEMPLATES = {
    path.stem.removesuffix("_training"): path.read_text()
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*_training.jinja"))
    # Templates of processors take typed content.
    if not re.search("vl|llava|idefics|gemma", path.stem)
}
SPECIAL = re.compile("<[|\N{FULLWIDTH VERTICAL LINE}][^<>{}'\\s]{1,40}?[|\N{FULLWIDTH VERTICAL LINE}]?>|</?s>")
CLOSING = (
    "im_end",
    "eot_id",
    "<|end|>",
    "end\N{LOWER ONE EIGHTH BLOCK}of",
    "END_OF_TURN",
    "</s>",
    "return",
    "endoftext",
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def tool(text: str) -> dict[str, Any]:
    return {"role": "tool", "name": "look_up", "tool_call_id": "abcdefghi", "content": text}


def assistant(text: str, *keys: str, **more: Any) -> dict[str, Any]:
    function = [{"name": "look_up", "arguments": {"key": key, "n": 3}} for key in keys]
    calls = [{"id": "abcdefghi", "type": "function", "function": each} for each in function]
    return {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {}) | more


BAR, GAP = "\N{FULLWIDTH VERTICAL LINE}", "\N{LOWER ONE EIGHTH BLOCK}"
HEADERS = (f"<{BAR}Assistant{BAR}>", f"<{BAR}tool{GAP}outputs{GAP}end{BAR}>", "<think></think>", "<think>")

CONVERSATIONS = {
    "plain": [user("q"), assistant("a"), user("r"), assistant("b")],
    "the same texts": [user("yes"), assistant("yes"), user("yes"), assistant("yes")],
    "the last is a question": [user("q"), assistant("a"), user("r")],
    "a thought": [user("q"), assistant("a", reasoning_content="x"), user("r"), assistant("b", reasoning_content="y")],
    "a call": [user("q"), assistant("", "v"), tool("result"), assistant("done")],
    "a call with text": [user("q"), assistant("let me", "v"), tool("x"), assistant("a"), user("r"), assistant("b")],
    "two calls": [user("q"), assistant("", "v", "w"), tool("result"), tool("other"), assistant("done")],
    "a call at the end": [user("q"), assistant("", "v")],
    "an empty result": [user("q"), assistant("", "v"), tool(""), assistant("done"), user("z"), assistant("y")],
    "a thought and a call": [
        user("q"), assistant("", "v", reasoning_content="hm"), tool("result"), assistant("done", reasoning_content="so")
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("thinking", [None, False])
def test_what_is_learnt_is_what_the_templates_own_marks_cover(
    template: str, name: str, thinking: bool | None, vlm_path: str
) -> None:
    messages, source = CONVERSATIONS[name], TEMPLATES[template]
    special = sorted(set(SPECIAL.findall(source)))
    end = next((token for token in special if any(part in token for part in CLOSING)), "</s>")
    others = [token for token in special if token not in ("<s>", end)]
    family = Family(source, ("<s>", end, *others), ("<think>", "</think>", "<tool_call>", "</tool_call>"))
    tokenizer = tokenizer_of(family, vlm_path)
    arguments = {} if thinking is None else {"enable_thinking": thinking}
    options = {"chat_template": source, "bos_token": "<s>", "eos_token": end, **arguments}
    try:
        prompt = squeezed(render_jinja_template([messages[:1]], add_generation_prompt=True, **options)[0][0])
        (text,), (marked,) = render_jinja_template([messages], return_assistant_tokens_mask=True, **options)
    except jinja2.TemplateError:
        assert encode(tokenizer, {"messages": messages}).status == "bad_row"
        return
    encoded = encode(tokenizer, {"messages": messages, **({"chat_template_kwargs": arguments} if arguments else {})})
    if encoded.features is None:
        assert "does not show" in encoded.detail
        return
    _, learnt = said(tokenizer, encoded)
    assert learnt
    expected = squeezed("".join(text[start:stop] for start, stop in marked))
    place = 0
    for run in map(squeezed, learnt):
        found = expected.index(run, place)
        # TRL's marks begin at the turn's header; what a prompt for generation holds of it is not the model's to write.
        assert prompt.endswith(expected[place:found]) or expected[place:found] in HEADERS, expected[place:found]
        place = found + len(run)
    assert expected[place:] in ("", end)  # Phi writes the end of the sequence behind the end of its last turn


def squeezed(text: str) -> str:
    """White space at the end of a turn is nobody's."""
    return "".join(text.split())
