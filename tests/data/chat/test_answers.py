"""Answer spans are what a template shows of the assistant and its closing token, and stay so around images."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jinja2
import pytest

from ost_hf.data.chat.answers import Render, answer_spans
from ost_hf.data.chat.closing import ClosingTokens
from ost_hf.data.encoding.marks import spread_marks
from ost_hf.errors import ModelError

Message = dict[str, Any]

CLOSING = ClosingTokens(["<|im_start|>", "<|im_end|>", "</s>", "<|end|>", "<|user|>", "", None])

CHATML = """\
{%- for m in messages -%}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""

# Qwen3: thinking is split off, dropped before the last question, and opened even where there is none after it.
THINKING = """\
{%- set last = namespace(user=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- set content = m.content -%}
{%- set thought = '' -%}
{%- if '</think>' in content -%}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip() -%}
{%- set content = content.split('</think>')[-1].strip() -%}
{%- endif -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' and loop.index0 > last.user -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

BRACKETS = """\
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{- '[INST] ' + m.content.strip() + ' [/INST]' -}}
{%- else -%}{{- ' ' + m.content.strip() + ' </s>' -}}{%- endif -%}
{%- endfor -%}"""

PLAIN = """\
{%- for m in messages -%}{{- m.role.upper() + ': ' + m.content + '\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT: ' -}}{%- endif -%}"""

LAST_ONLY = """\
{%- for m in messages -%}
{%- if loop.last or m.role == 'user' -%}{{- '<|' + m.role + '|>' + m.content + '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""

TOOLS = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content -}}
{%- for call in m.tool_calls or [] -%}{{- '\\n<tool_call>' + call.name + '</tool_call>' -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def renderer(template: str) -> Render:
    compiled = jinja2.Environment().from_string(template)

    def render(messages: list[Message], add_generation_prompt: bool = False) -> str:
        plain = [{**m, "content": "".join(part["text"] for part in m["content"])} for m in messages]
        return compiled.render(messages=plain, add_generation_prompt=add_generation_prompt)

    return render


def conversation(*contents: str, **extra: Any) -> list[Message]:
    """Turns of user and assistant in alternation; ``extra`` goes to the assistant's."""
    roles = ["user", "assistant"] * len(contents)
    return [
        {"role": role, "content": [{"type": "text", "text": content}], **(extra if role == "assistant" else {})}
        for role, content in zip(roles, contents, strict=False)
    ]


def supervised(template: str, messages: list[Message]) -> list[str]:
    text = renderer(template)(messages)
    spans = answer_spans(text, renderer(template), messages, CLOSING)
    assert all(0 <= a < b <= len(text) for a, b in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    return [text[a:b] for a, b in spans]


@pytest.mark.parametrize(
    ("template", "contents", "expected"),
    [
        (CHATML, ["q", "a"], ["a<|im_end|>"]),
        (CHATML, ["q", "a", "r", "b"], ["a<|im_end|>", "b<|im_end|>"]),
        (CHATML, ["q", "a", "r"], ["a<|im_end|>"]),
        (CHATML, ["q", "", "r", "b"], ["b<|im_end|>"]),
        (CHATML, ["q", " \n"], []),
        (CHATML, ["q", " a\n"], [" a\n<|im_end|>"]),
        (THINKING, ["q", "a"], ["<think>\n\n</think>\n\na<|im_end|>"]),
        (THINKING, ["q", "<think>t</think>a"], ["<think>\nt\n</think>\n\na<|im_end|>"]),
        (
            THINKING,
            ["q", "<think>t</think>a", "r", "<think>u</think>b"],
            ["a<|im_end|>", "<think>\nu\n</think>\n\nb<|im_end|>"],
        ),
        (BRACKETS, ["q", "  a b  ", "r", "b"], ["a b </s>", "b </s>"]),
        (PLAIN, ["q", "a", "r", "b"], ["a", "b"]),
        (LAST_ONLY, ["q", "a", "r", "b"], ["b<|end|>"]),
        (LAST_ONLY, ["q", "a", "r"], []),
    ],
)
def test_spans_are_what_is_visible_of_the_answers(template: str, contents: list[str], expected: list[str]) -> None:
    assert supervised(template, conversation(*contents)) == expected


@pytest.mark.parametrize("template", [CHATML, THINKING, PLAIN])
@pytest.mark.parametrize("word", ["assistant", "assistant\nassistant", "user", "<|im_start|>assistant\n", "{{ q }}"])
def test_repeated_words_do_not_move_spans(template: str, word: str) -> None:
    closed = word if template == PLAIN else f"{word}<|im_end|>"
    # That template writes the last turn's empty thinking out.
    last = f"<think>\n\n</think>\n\n{closed}" if template == THINKING else closed
    assert supervised(template, conversation(word, word, word, word)) == [closed, last]


@pytest.mark.parametrize("template", [CHATML, BRACKETS, PLAIN])
def test_nothing_a_user_says_is_in_a_span(template: str) -> None:
    messages = conversation("question one", "a", "question two", "b")
    assert not any("question" in span for span in supervised(template, messages))


def test_tool_calls_belong_to_the_answer() -> None:
    messages = conversation("q", "I look.", tool_calls=[{"name": "search"}])
    assert supervised(TOOLS, messages) == ["I look.\n<tool_call>search</tool_call><|im_end|>"]


def test_conversation_without_assistant_has_no_spans() -> None:
    assert supervised(CHATML, conversation("q")) == []


def test_conversation_that_opens_with_the_assistant_has_its_span() -> None:
    assert supervised(CHATML, conversation("q", "a")[1:]) == ["a<|im_end|>"]


def test_two_assistant_turns_in_a_row_have_a_span_each() -> None:
    messages = [*conversation("q", "a"), *conversation("q", "b")[1:]]
    assert supervised(CHATML, messages) == ["a<|im_end|>", "b<|im_end|>"]


IMAGE = 9


@pytest.mark.parametrize(
    ("plain", "marked", "full", "expected"),
    [
        ([1, 2, 3], {2}, [1, 2, 3], {2}),
        ([1, IMAGE, 2, 3], {3}, [1, IMAGE, IMAGE, IMAGE, 2, 3], {5}),
        ([IMAGE, 2, 3], {1, 2}, [IMAGE, IMAGE, 2, 3], {2, 3}),
        ([1, IMAGE, 2, IMAGE, 3], {2, 4}, [1, IMAGE, IMAGE, 2, IMAGE, IMAGE, IMAGE, 3], {3, 7}),
        ([1, IMAGE, IMAGE, 3], {3}, [1, IMAGE, IMAGE, IMAGE, 3], {4}),
        ([1, 7, IMAGE, 2, 3], {4}, [1, 8, IMAGE, IMAGE, 8, 2, 3], {6}),
        ([1, IMAGE, 7, 2, 7, IMAGE, 7, 3], {3, 7}, [1, IMAGE, IMAGE, 8, 2, 8, IMAGE, 8, 3], {4, 8}),
        ([1, IMAGE, 2, 2, IMAGE, 2, 2], {5, 6}, [1, IMAGE, 8, IMAGE, 2, 2, IMAGE, 8, 2, 2], {8, 9}),
    ],
)
def test_marks_move_with_their_tokens(plain: list[int], marked: set[int], full: list[int], expected: set[int]) -> None:
    marks = spread_marks(plain, [i in marked for i in range(len(plain))], full, IMAGE)
    assert {i for i, mark in enumerate(marks) if mark} == expected
    assert len(marks) == len(full)


@pytest.mark.parametrize("full", [[5, IMAGE, IMAGE, 2], [1, IMAGE, IMAGE, 5], [1], [1, IMAGE, 2, 5]])
def test_text_rewritten_around_images_is_refused(full: list[int]) -> None:
    with pytest.raises(ModelError, match="the processor rewrites the text around images"):
        spread_marks([1, IMAGE, 2], [False, False, True], full, IMAGE)
