"""Tokenizers and chat templates in the manner of the main families of models, and conversations for them."""

# ruff: noqa: RUF001  DeepSeek writes its tokens with these bars.

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import datasets
import tokenizers
import transformers

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.encoded import IGNORE_INDEX, Encoded
from ost_hf.data.rows import Rows

Message = dict[str, Any]

NO_LIMIT = EncodingConfig(max_length=None)

CHATML = """\
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA31 = """\
{{- bos_token }}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}
{%- set messages = messages[1:] %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system }}
{%- for tool in tools or [] %}{{- '\\n' + tool | tojson }}{%- endfor %}{{- '<|eot_id|>' }}
{%- for m in messages %}
{%- if 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{- raise_exception('only single tool-calls at once') }}{%- endif %}
{%- set call = m.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
{%- elif m.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

GEMMA3 = """\
{{- bos_token }}
{%- set first = '' %}
{%- if messages[0].role == 'system' %}{%- set first = messages[0].content + '\\n\\n' %}
{%- set messages = messages[1:] %}{%- endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (first if loop.first else '') }}
{{- m.content | trim }}{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

MISTRAL = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}
{%- set messages = messages[1:] %}{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and loop.first %}{{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{{- '[INST] ' + (system + '\\n\\n' if system is defined and loop.first else '') + m.content + '[/INST]' }}
{%- elif m.tool_calls %}{{- '[TOOL_CALLS][' }}
{%- for call in m.tool_calls %}
{%- if not call.id or call.id | length != 9 %}{{- raise_exception('Tool call IDs should be alphanumeric') }}{%- endif %}
{{- ', ' if not loop.first else '' }}{{- call.function | tojson }}
{%- endfor %}{{- ']' + eos_token }}
{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]{"content": ' + m.content | tojson + '}[/TOOL_RESULTS]' }}
{%- else %}{{- ' ' + m.content | trim + eos_token }}{%- endif %}
{%- endfor %}"""

QWEN3 = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n<tools>' }}{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}
{{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(last=messages | length - 1, looking=true) %}
{%- for m in messages[::-1] %}
{%- set index = messages | length - 1 - loop.index0 %}
{%- if ns.looking and m.role == 'user' and not (m.content.startswith('<tool_response>')) %}
{%- set ns.looking = false %}{%- set ns.last = index %}{%- endif %}
{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{%- set content = m.content %}{%- set thought = '' %}
{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}
{%- elif '</think>' in content %}
{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- if loop.index0 > ns.last and (loop.last or thought) %}
{{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
{%- else %}{{- '<|im_start|>assistant\\n' + content }}{%- endif %}
{%- for call in m.tool_calls or [] %}
{%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
{%- set call = call.function or call %}
{{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}{%- endif %}"""

# Its tokens of roles and tools are not special, and it joins a call's arguments to text.
DEEPSEEK = """\
{%- set ns = namespace(tool=false) %}
{{- bos_token }}{%- for m in messages if m.role == 'system' %}{{- m.content }}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{%- set ns.tool = false %}{{- '<｜User｜>' + m.content }}
{%- elif m.role == 'tool' %}
{%- if not ns.tool %}{{- '<｜tool▁outputs▁begin｜>' }}{%- endif %}{%- set ns.tool = true %}
{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<｜tool▁outputs▁end｜>' }}{%- endif %}
{%- elif m.role == 'assistant' %}
{%- if not ns.tool %}{{- '<｜Assistant｜>' }}{%- endif %}{%- set ns.tool = false %}
{{- m.content.split('</think>')[-1].lstrip('\\n') }}
{%- if m.tool_calls %}{{- '<｜tool▁calls▁begin｜>' }}
{%- for call in m.tool_calls %}
{{- '<｜tool▁call▁begin｜>' + call['type'] + '<｜tool▁sep｜>' + call['function']['name'] + '\\n```json\\n' }}
{{- call['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}
{%- endfor %}{{- '<｜tool▁calls▁end｜>' }}{%- endif %}
{{- eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.tool %}{{- '<｜Assistant｜>' }}{%- endif %}"""


@dataclass(frozen=True)
class Family:
    """One family: its template, its tokens, and what conversations it takes.

    Attributes:
        template: The chat template, or several by name.
        special: Its special tokens; the first two begin and end a sequence.
        added: Tokens that are not special.
        closes: What closes an assistant's turn.
        calls: Whether assistants may call tools.
        thinks: Whether the template knows thoughts.
    """

    template: str | dict[str, str] | None
    special: tuple[str, ...]
    added: tuple[str, ...] = ()
    closes: str = "<|im_end|>"
    calls: bool = False
    thinks: bool = False


_TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_THOUGHTS = ("<think>", "</think>")
_DEEPSEEK_PARTS = ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep", "outputs▁begin", "outputs▁end")
_DEEPSEEK_TOOLS = tuple(f"<｜tool▁{part}｜>" for part in (*_DEEPSEEK_PARTS, "output▁begin", "output▁end"))

FAMILIES = {
    "chatml": Family(CHATML, ("<s>", "<|im_end|>", "<|im_start|>")),
    "llama3.1": Family(
        LLAMA31,
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|python_tag|>"),
        closes="<|eot_id|>",
        calls=True,
    ),
    "gemma3": Family(GEMMA3, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), closes="<end_of_turn>"),
    "mistral": Family(
        MISTRAL,
        ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]"),
        closes="</s>",
        calls=True,
    ),
    "qwen3": Family(
        QWEN3, ("<|endoftext|>", "<|im_end|>", "<|im_start|>"), _THOUGHTS + _TOOL_TAGS, calls=True, thinks=True
    ),
    "deepseek": Family(
        DEEPSEEK,
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("<｜User｜>", "<｜Assistant｜>", *_THOUGHTS, *_DEEPSEEK_TOOLS),
        closes="<｜end▁of▁sentence｜>",
        calls=True,
        thinks=True,
    ),
    "named": Family({"default": CHATML, "tool_use": QWEN3}, ("<s>", "<|im_end|>", "<|im_start|>"), _TOOL_TAGS),
}


def tokenizer_of(family: Family, vlm_path: str, adds: tuple[bool, bool] = (False, False)) -> Any:
    """A tiny tokenizer with the family's tokens and template; ``adds`` says whether it adds begin and end itself."""
    base = tokenizers.Tokenizer.from_file(f"{vlm_path}/tokenizer.json")
    bare = tokenizers.Tokenizer(tokenizers.models.BPE())
    bare.model, bare.pre_tokenizer, bare.decoder = base.model, base.pre_tokenizer, base.decoder
    begin, end = family.special[:2]
    bare.add_special_tokens(list(family.special))
    bare.add_tokens([tokenizers.AddedToken(token, special=False, normalized=False) for token in family.added])
    single = [begin] * adds[0] + ["$A"] + [end] * adds[1]
    bare.post_processor = tokenizers.processors.TemplateProcessing(
        single=single, special_tokens=[(token, bare.token_to_id(token)) for token in (begin, end)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bare, bos_token=begin, eos_token=end)
    tokenizer.chat_template = family.template
    return tokenizer


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


_WORDS = ["sum", "of 3 and 4?", "assistant", "user\n", "a", "  lead", ".", "x\ny", '{"a": 1}', "<b>t</b>", "é漢"]


def conversation(family: Family, rng: random.Random, turns: int) -> list[Message]:
    """A conversation of so many questions, with calls, thoughts, blank turns and a system prompt here and there."""

    def words() -> str:
        return " ".join(rng.choices(_WORDS, k=rng.choice([1, 2, 5])))

    messages = [{"role": "system", "content": words()}] if rng.random() < 0.3 else []
    for _ in range(turns):
        messages.append({"role": "user", "content": words()})
        while family.calls and rng.random() < 0.3:
            call = {"name": rng.choice(["look_up", "add"]), "arguments": {"key": words(), "n": rng.randrange(9)}}
            calls = [{"id": "abcdefghi", "type": "function", "function": call}]
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            messages.append({"role": "tool", "content": words()})
        answer = "" if rng.random() < 0.1 else words().strip()
        if family.thinks and rng.random() < 0.4:
            answer = f"<think>\n{words()}\n</think>\n\n{answer or 'so'}"
        messages.append({"role": "assistant", "content": answer})
    return messages + ([{"role": "user", "content": "more"}] if rng.random() < 0.1 else [])
