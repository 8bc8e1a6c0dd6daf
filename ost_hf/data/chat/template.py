"""A model's chat template: messages to text, whichever of its named templates and forms of tool calls they need."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

import jinja2
import jinja2.meta

from ost_hf.data.chat.arguments import TOOLS
from ost_hf.data.example import Message, RowError
from ost_hf.errors import ModelError
from ost_hf.tables.statuses import BAD_ROW

_NAMED_FOR_TOOLS, _NAMED_DEFAULT = "tool_use", "default"
_PROBE = {"key": "value"}
# transformers' own tag, which marks what the assistant says; the extensions are those that it loads.
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_ENVIRONMENT = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])


class ChatTemplate:
    """Renders conversations.

    Args:
        processing_class: The tokenizer or processor that applies the template.
        source: The template, or several by name; ``None`` takes the processor's or tokenizer's own.
    """

    def __init__(self, processing_class: Any, source: str | None = None):
        self.processing_class = processing_class
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        own = getattr(processing_class, "chat_template", None) or tokenizer.chat_template
        self.source: str | dict[str, str] | None = own if source is None else source
        self._name = tokenizer.name_or_path
        # Text templates concatenate strings; only a processor's template knows typed content.
        self._takes_parts = tokenizer is not processing_class
        self._forms: dict[str, tuple[bool, bool]] = {}

    def text_for(self, arguments: dict[str, Any]) -> str:
        """The template that a row with these arguments is rendered with.

        Raises:
            ModelError: If there is none.
        """
        if isinstance(self.source, dict):
            names = (_NAMED_FOR_TOOLS, _NAMED_DEFAULT) if arguments.get(TOOLS) else (_NAMED_DEFAULT,)
            found = next((self.source[name] for name in names if name in self.source), None)
            if found is None:
                raise ModelError(
                    f"{self._name} has chat templates named {', '.join(self.source)} and none named {_NAMED_DEFAULT}; "
                    "name a Jinja file in encoding.chat_template"
                )
            return found
        if self.source is None:
            raise ModelError(
                f"{self._name} has no chat template and the rows are messages; name a Jinja file in "
                "encoding.chat_template, or give prompt/completion rows as plain text"
            )
        return self.source

    @cached_property
    def variables(self) -> frozenset[str]:
        """What the template, or any of its named ones, reads beside constants and what it sets itself."""
        texts = self.source.values() if isinstance(self.source, dict) else [self.source or ""]
        found: set[str] = set()
        for text in texts:
            try:
                tree = _ENVIRONMENT.parse(_GENERATION.sub("", text))
            except jinja2.TemplateSyntaxError:  # said where it is rendered
                continue
            found |= jinja2.meta.find_undeclared_variables(tree)
        return frozenset(found)

    def render(
        self, messages: list[Message], add_generation_prompt: bool = False, arguments: dict[str, Any] | None = None
    ) -> str:
        """The text of a conversation.

        Args:
            messages: Messages with typed content.
            add_generation_prompt: End where the assistant's next answer begins.
            arguments: What the row gives the template beside its messages; what it does not read is left out.

        Raises:
            RowError: If the template refuses the conversation or fails on it.
            ModelError: If there is no template, or it is not valid Jinja.
        """
        text = self.text_for(arguments or {})
        arguments = {name: value for name, value in (arguments or {}).items() if _speaks_of(text, name)}
        return self._render(text, messages, add_generation_prompt, arguments)

    def _render(
        self, text: str, messages: list[Message], add_generation_prompt: bool, arguments: dict[str, Any]
    ) -> str:
        # An empty list of calls is Arrow's too: templates ask whether there is one.
        shown = [{k: v for k, v in message.items() if k != "tool_calls" or v} for message in messages]
        if not self._takes_parts:
            for message in shown:
                message["content"] = plain_text([message])
        try:
            return self.processing_class.apply_chat_template(
                shown, chat_template=text, tokenize=False, add_generation_prompt=add_generation_prompt, **arguments
            )
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(f"the chat template is not valid Jinja: {error}") from error
        except jinja2.TemplateError as error:  # raise_exception(...), as for roles that do not alternate
            raise RowError(BAD_ROW, f"the chat template refuses the conversation: {str(error)[:300]}") from error
        except Exception as error:  # a template is a program, and fails on this conversation as programs do
            raise RowError.of(error, "the chat template fails on the conversation") from error

    def with_fitting_calls(self, messages: list[Message], arguments: dict[str, Any]) -> list[Message]:
        """Messages whose tool calls have their arguments as the template writes them: as a mapping, or as JSON text.

        Args:
            messages: Messages with typed content.
            arguments: As for :meth:`render`.
        """
        if not any(message.get("tool_calls") for message in messages):
            return messages
        text = self.text_for(arguments)
        if text not in self._forms:
            as_text = json.dumps(_PROBE)
            self._forms[text] = (_shows_mapping(self._probe(text, _PROBE)), as_text in self._probe(text, as_text))
        takes_mapping, takes_text = self._forms[text]
        if takes_mapping == takes_text:
            return messages
        fit = _as_mapping if takes_mapping else _as_json
        return [
            {**message, "tool_calls": [_with_arguments(call, fit) for call in message["tool_calls"]]}
            if message.get("tool_calls")
            else message
            for message in messages
        ]

    def _probe(self, text: str, arguments: Any) -> str:
        call = {"id": "call00000", "type": "function", "function": {"name": "name", "arguments": arguments}}
        asked = {"role": "user", "content": [{"type": "text", "text": "question"}]}
        called = {"role": "assistant", "content": [], "tool_calls": [call]}
        try:
            return self._render(text, [asked, called], False, {})
        except RowError:
            return ""


def plain_text(messages: list[Message]) -> str:
    """All text parts, joined."""
    return "".join(part.get("text", "") for message in messages for part in message["content"])


def _speaks_of(template: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def _shows_mapping(rendered: str) -> bool:
    """Whether the probe's arguments were written, and not as Python would write a mapping."""
    return "value" in rendered and str(_PROBE) not in rendered


def _with_arguments(call: dict[str, Any], fit: Any) -> dict[str, Any]:
    inner = call.get("function")
    if isinstance(inner, dict):
        return {**call, "function": _with_arguments(inner, fit)}
    return {**call, "arguments": fit(call["arguments"])} if "arguments" in call else call


def _as_mapping(arguments: Any) -> Any:
    """Arguments as a mapping; text that is none stays text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _as_json(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
