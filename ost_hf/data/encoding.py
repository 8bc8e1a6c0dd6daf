"""Examples to token sequences with labels on the answers only, for one tokenizer or processor."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import jinja2
import torch

from ost_hf.data.chat import find_answer_spans
from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoded import IGNORE_INDEX, Encoded, Features
from ost_hf.data.example import Example, Message, RowError
from ost_hf.data.images import read_picture
from ost_hf.data.marks import spread_marks
from ost_hf.data.picture_files import Places
from ost_hf.data.picture_formats import Picture
from ost_hf.data.rows import Rows
from ost_hf.errors import ModelError
from ost_hf.tables.statuses import BAD_IMAGE, BAD_ROW, NO_LABELS, OK, TOO_LONG, TRUNCATED


class Encoder:
    """Formats, tokenises and labels examples for one model.

    Args:
        processing_class: A fast tokenizer, or a processor that holds one.
        config: Length limit and chat template.

    Raises:
        ModelError: If the tokenizer is not a fast one: labels are placed by character offsets.
        ConfigError: If there is no such chat template file.
    """

    def __init__(self, processing_class: Any, config: EncodingConfig | None = None):
        self.config = config or EncodingConfig()
        self.processing_class = processing_class
        self.tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.is_processor = self.tokenizer is not processing_class
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(f"{type(self.tokenizer).__name__} has no character offsets; a fast tokenizer is needed")
        self.chat_template: str | None = self.config.read_chat_template()
        if self.config.chat_template is None:
            self.chat_template = getattr(processing_class, "chat_template", None) or self.tokenizer.chat_template

    @cached_property
    def fingerprint(self) -> str:
        """A hash over all that an encoding depends on beside the row."""
        parts = (
            repr(self.processing_class),
            self.tokenizer.backend_tokenizer.to_str(),
            self.chat_template,
            self.config.identity(),
        )
        return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()

    def encode(self, rows: Rows, row: int) -> Encoded:
        """Encodes one row; what is wrong with it becomes its status, nothing is raised for it."""
        example_id = rows.example_ids[row]
        try:
            example = rows[row]
            pictures = self._read_pictures(example, rows.places)
            features = self._features(example, [picture.image for picture in pictures])
            status = self._fit(features)
        except RowError as error:
            return Encoded(example_id, row, error.status, error.detail)
        encoded = Encoded(example_id, row, status, _notes(pictures), features)
        if encoded.tokens == 0:
            return Encoded(example_id, row, NO_LABELS, "no answer tokens to supervise")
        return encoded

    def encode_prompt(self, rows: Rows, row: int) -> tuple[Features, str]:
        """The conversation up to its last assistant turn, ready to be continued, and that turn's text.

        Raises:
            RowError: If the row has no assistant turn at its end or cannot be encoded.
        """
        example = rows[row]
        if example.tokens is not None:
            raise RowError(BAD_ROW, "tokenised rows cannot be evaluated by generation")
        if not example.messages or example.messages[-1]["role"] != "assistant":
            raise RowError(NO_LABELS, "the row does not end with an assistant message to compare with")
        reference = "".join(part.get("text", "") for part in example.messages[-1]["content"])
        images = [picture.image for picture in self._read_pictures(example, rows.places)]
        if self.chat_template is None and not example.templated:
            text = _plain_text(example.messages[:-1])
            return self._tokenize(text, images, special_tokens=True)[0], reference
        text = self.render(example.messages[:-1], add_generation_prompt=True)
        return self._tokenize(text, images)[0], reference

    def render(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        """The chat template's text for ``messages``."""
        if self.chat_template is None:
            raise ModelError(
                f"{self.tokenizer.name_or_path} has no chat template and the rows are messages; name a Jinja file in "
                "encoding.chat_template, or give prompt/completion rows as plain text"
            )
        # Text templates concatenate strings; only a processor's template knows typed content.
        if not self.is_processor:
            messages = [{**m, "content": _plain_text([m])} for m in messages]
        try:
            return self.processing_class.apply_chat_template(
                messages,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(f"the chat template is not valid Jinja: {error}") from error
        except jinja2.TemplateError as error:  # raise_exception(...), as for roles that do not alternate
            raise RowError(BAD_ROW, f"the chat template refuses the conversation: {error}") from error

    @cached_property
    def _closing_tokens(self) -> list[str]:
        return [str(token) for token in self.tokenizer.added_tokens_decoder.values()] + [self.tokenizer.eos_token]

    @cached_property
    def _image_token_id(self) -> int | None:
        token_id = getattr(self.processing_class, "image_token_id", None)
        if token_id is None and getattr(self.processing_class, "image_token", None):
            token_id = self.tokenizer.convert_tokens_to_ids(str(self.processing_class.image_token))
        return token_id

    def _features(self, example: Example, images: list[Any]) -> Features:
        if example.tokens is not None:
            ids = torch.tensor(example.tokens["input_ids"])
            return {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "labels": torch.tensor(example.tokens["labels"]),
            }
        if self.chat_template is None and not example.templated:
            return self._plain_features(example, images)
        text, spans = find_answer_spans(self.render, example.messages, self._closing_tokens)
        features, unexpanded = self._tokenize(text, images)
        # A token that takes in the space before an answer is the answer's first: it is what is generated.
        marks = [any(start < b and end > a for a, b in spans) for start, end in unexpanded["offset_mapping"]]
        return self._with_labels(features, unexpanded["input_ids"], marks)

    def _plain_features(self, example: Example, images: list[Any]) -> Features:
        """Prompt + completion + end-of-sequence, for tokenizers without a chat template."""
        prompt, completion = _plain_text(example.messages[:-1]), _plain_text(example.messages[-1:])
        text = prompt + completion + (self.tokenizer.eos_token or "")
        features, unexpanded = self._tokenize(text, images, special_tokens=True)
        says_something = bool(completion.strip())
        marks = [says_something and end > len(prompt) for _, end in unexpanded["offset_mapping"]]
        return self._with_labels(features, unexpanded["input_ids"], marks)

    def _read_pictures(self, example: Example, places: Places) -> list[Picture]:
        if example.images and not self.is_processor:
            raise ModelError(f"{self.tokenizer.name_or_path} reads text only, but the rows hold images")
        return [read_picture(image, places) for image in example.images]

    def _tokenize(self, text: str, images: list[Any], special_tokens: bool = False) -> tuple[Features, dict[str, Any]]:
        """The model's inputs, and the same text's tokens before image placeholders are expanded."""
        unexpanded = self.tokenizer(text, add_special_tokens=special_tokens, return_offsets_mapping=True)
        if not self.is_processor:
            ids = torch.tensor(unexpanded["input_ids"])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, unexpanded
        if not images and self._image_token_id in unexpanded["input_ids"]:
            raise RowError(BAD_ROW, "the text holds image tokens, but the row has no image")
        try:
            output = self.processing_class(
                text=[text], images=images or None, add_special_tokens=special_tokens, return_tensors="pt"
            )
        except (IndexError, StopIteration) as error:  # how processors run out of images
            raise RowError(BAD_IMAGE, f"the text holds more image tokens than its {len(images)} images") from error
        except ValueError as error:  # e.g. an aspect ratio that the image processor refuses
            raise RowError(BAD_IMAGE if images else BAD_ROW, str(error)) from error
        length = output["input_ids"].shape[1]
        features = {
            key: value[0] if value.shape[:2] == (1, length) else value
            for key, value in output.items()
            if isinstance(value, torch.Tensor)
        }
        return features, unexpanded

    def _with_labels(self, features: Features, unexpanded_ids: list[int], marks: list[bool]) -> Features:
        ids = features["input_ids"]
        marks = spread_marks(unexpanded_ids, marks, ids.tolist(), self._image_token_id)
        features["labels"] = torch.where(torch.tensor(marks), ids, torch.full_like(ids, IGNORE_INDEX))
        return features

    def _fit(self, features: Features) -> str:
        """Applies the length limit in place; returns ``ok`` or ``truncated``, or raises ``too_long``."""
        limit, length = self.config.max_length, len(features["input_ids"])
        if limit is None or length <= limit:
            return OK
        cut_off = features["input_ids"][limit:]
        cuts_image = self._image_token_id is not None and bool((cut_off == self._image_token_id).any())
        leaves_answer = bool((features["labels"][1:limit] != IGNORE_INDEX).any())
        if self.config.overflow == "skip" or cuts_image or not leaves_answer:
            raise RowError(TOO_LONG, f"{length} tokens, limit {limit}")
        for key, value in features.items():
            if value.dim() == 1 and len(value) == length:
                features[key] = value[:limit]
        return TRUNCATED


def _notes(pictures: list[Picture]) -> str:
    """What of a row's images is not shown."""
    return "; ".join(f"image {number} {each.note}" for number, each in enumerate(pictures, 1) if each.note)[:300]


def _plain_text(messages: list[Message]) -> str:
    return "".join(part.get("text", "") for message in messages for part in message["content"])
