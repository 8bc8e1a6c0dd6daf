"""Examples to token sequences with labels on the answers only, for one tokenizer or processor."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from ost_hf.data.chat.answers import Span, answer_spans
from ost_hf.data.chat.closing import ClosingTokens
from ost_hf.data.chat.control_tokens import ControlTokens
from ost_hf.data.chat.template import ChatTemplate, plain_text
from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding.encoded import IGNORE_INDEX, Encoded, Features
from ost_hf.data.encoding.marks import spread_marks
from ost_hf.data.example import Example, RowError
from ost_hf.data.images import read_picture
from ost_hf.data.pictures.files import Places
from ost_hf.data.pictures.formats import Picture
from ost_hf.data.placement import placeholders
from ost_hf.data.rows import Rows
from ost_hf.errors import ModelError, OSTError, brief
from ost_hf.tables.statuses import BAD_IMAGE, BAD_ROW, NO_LABELS, OK, TOO_LONG, TRUNCATED


class _Tokens:
    """A text's tokens, and which characters they are; these are asked for where they are needed, which is not often.

    Args:
        ids: The tokens.
        encoding: The tokenizer's own record of them.
    """

    def __init__(self, ids: list[int], encoding: Any):
        self.ids = ids
        self._encoding = encoding

    def in_spans(self, spans: list[Span]) -> np.ndarray:
        """Whether each token lies in one of some spans of characters.

        A token that takes in the space before an answer is the answer's first: it is what is generated.
        """
        marks, places = np.zeros(len(self.ids), dtype=bool), range(len(self.ids))
        for start, end in spans:
            first = bisect_right(places, start, key=lambda place: self._characters(place)[1])
            marks[first : bisect_left(places, end, lo=first, key=lambda place: self._characters(place)[0])] = True
        return marks

    def _characters(self, place: int) -> Span:
        return self._encoding.token_to_chars(place) or (0, 0)  # what a tokenizer adds in front is no text


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
        self.template = ChatTemplate(processing_class, self.config.read_chat_template())
        self._control: dict[str, ControlTokens] = {}

    @cached_property
    def fingerprint(self) -> str:
        """A hash over all that an encoding depends on beside the row."""
        parts = (
            repr(self.processing_class),
            self.tokenizer.backend_tokenizer.to_str(),
            self.template.source,
            self.config.identity(),
        )
        return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()

    def encode(self, rows: Rows, row: int) -> Encoded:
        """Encodes one row; what is wrong with it becomes its status, nothing is raised for it.

        Raises:
            ModelError: For what is wrong with all rows, such as a chat template that is missing or no Jinja.
        """
        example_id = rows.example_ids[row]
        try:
            features, pictures = self._features(self._read(rows, row), rows.places)
            status = self._fit(features)
        except RowError as error:
            return Encoded(example_id, row, error.status, error.detail)
        except OSTError:
            raise
        except Exception as error:  # whatever libraries make of this row
            reason = RowError.of(error, "the row cannot be encoded")
            return Encoded(example_id, row, reason.status, reason.detail)
        encoded = Encoded(example_id, row, status, _notes(pictures), features)
        if encoded.tokens == 0:
            return Encoded(example_id, row, NO_LABELS, "no answer tokens to supervise")
        return encoded

    def encode_prompt(self, rows: Rows, row: int) -> tuple[Features, str]:
        """The conversation up to its last assistant turn, ready to be continued, and that turn's text.

        Raises:
            RowError: If the row has no assistant turn at its end or cannot be encoded.
        """
        example = self._read(rows, row)
        if example.tokens is not None:
            raise RowError(BAD_ROW, "tokenised rows cannot be evaluated by generation")
        if not example.messages or example.messages[-1]["role"] != "assistant":
            raise RowError(NO_LABELS, "the row does not end with an assistant message to compare with")
        try:
            return self._prompt(example, rows.places), plain_text(example.messages[-1:])
        except (RowError, OSTError):
            raise
        except Exception as error:
            raise RowError.of(error, "the row cannot be encoded") from error

    def _read(self, rows: Rows, row: int) -> Example:
        """The row, its tool calls as this model's template writes them."""
        example = rows[row]
        if example.messages and not self._is_plain(example):
            example.messages = self.template.with_fitting_calls(example.messages, example.arguments)
        return example

    def _prompt(self, example: Example, places: Places) -> Features:
        """The model's inputs before the last turn; no end of sequence follows them."""
        asked = example.messages[:-1]
        shown = sum(part.get("type") == "image" for message in asked for part in message["content"])
        pictures = self._read_pictures(example.images[:shown], places)
        is_plain = self._is_plain(example)
        text = plain_text(asked) if is_plain else self._templated_prompt(example)
        unexpanded = self._tokenize(text, is_plain)
        self._control_tokens(example).check(unexpanded.ids, asked, example.arguments)
        return self._expand(text, pictures, unexpanded, is_plain)

    def _templated_prompt(self, example: Example) -> str:
        render = partial(self.template.render, arguments=example.arguments)
        text = render(example.messages[:-1], add_generation_prompt=True)
        end = self.tokenizer.eos_token
        # Some templates close every text they write; what is to be continued is not closed.
        if end and text.endswith(end) and not render(example.messages).startswith(text):
            text = text.removesuffix(end)
        return text

    def _features(self, example: Example, places: Places) -> tuple[Features, list[Picture]]:
        """The row's features, and the pictures that they show."""
        if example.tokens is not None:
            return self._given_tokens(example.tokens), []
        if example.images and not self.is_processor:
            raise ModelError(f"{self.tokenizer.name_or_path} reads text only, but the rows hold images")
        # To a model without pictures `<image>` is a word.
        if self.is_processor and not example.images and (held := placeholders(example.messages)):
            raise RowError(
                BAD_IMAGE, f"{len(held)} image placeholders, but no images: name their column in images_column"
            )
        is_plain = self._is_plain(example)
        prompt = plain_text(example.messages[:-1])
        render = partial(self.template.render, arguments=example.arguments)
        if is_plain:
            text = prompt + plain_text(example.messages[-1:]) + (self.tokenizer.eos_token or "")
        else:
            text = render(example.messages)
        unexpanded = self._tokenize(text, is_plain)
        length = len(unexpanded.ids)
        if self.config.overflow == "skip" and self._is_over(length):
            # Images add tokens; how many is not looked at.
            at_least = "at least " if example.images else ""
            raise RowError(TOO_LONG, f"{at_least}{length} tokens, limit {self.config.max_length}")
        self._control_tokens(example).check(unexpanded.ids, example.messages, example.arguments)
        pictures = self._read_pictures(example.images, places)
        features = self._expand(text, pictures, unexpanded, is_plain)
        if is_plain:
            spans = [(len(prompt), len(text))] if plain_text(example.messages[-1:]).strip() else []
        else:
            spans = answer_spans(text, render, example.messages, self._closing_tokens)
        return self._with_labels(features, unexpanded, spans), pictures

    def _given_tokens(self, tokens: dict[str, list[int]]) -> Features:
        ids, labels = torch.tensor(tokens["input_ids"]), torch.tensor(tokens["labels"])
        for name, values in (("input_ids", ids), ("labels", labels[labels != IGNORE_INDEX])):
            outside = values[(values < 0) | (values >= self._vocabulary_size)]
            if len(outside):
                raise RowError(
                    BAD_ROW,
                    f"{name} hold {int(outside[0])}, and the vocabulary has tokens 0 to {self._vocabulary_size - 1}",
                )
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def _is_plain(self, example: Example) -> bool:
        return self.template.source is None and not example.templated

    @cached_property
    def _vocabulary_size(self) -> int:
        return max(self.tokenizer.get_vocab().values()) + 1

    @cached_property
    def _closing_tokens(self) -> ClosingTokens:
        return ClosingTokens(map(str, self.tokenizer.added_tokens_decoder.values()), [self.tokenizer.eos_token])

    @cached_property
    def _placeholder_id(self) -> int | None:
        """The token that templates write where an image stands."""
        token_id = getattr(self.processing_class, "image_token_id", None)
        if token_id is None and getattr(self.processing_class, "image_token", None):
            token_id = self.tokenizer.convert_tokens_to_ids(str(self.processing_class.image_token))
        return token_id

    @cached_property
    def _image_token_ids(self) -> frozenset[int]:
        """All that stands for images; Gemma 3 has one token for the place and another for an image's pieces."""
        tokens = (self._placeholder_id, getattr(self.tokenizer, "image_token_id", None))
        return frozenset(token for token in tokens if token is not None)

    @cached_property
    def _closing_special_tokens(self) -> int:
        """How many tokens the tokenizer puts behind a text of its own accord."""
        return self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"][::-1].index(0)

    def _control_tokens(self, example: Example) -> ControlTokens:
        text = "" if self._is_plain(example) else self.template.text_for(example.arguments)
        if text not in self._control:
            self._control[text] = ControlTokens(self.processing_class, text)
        return self._control[text]

    def _read_pictures(self, images: list[Any], places: Places) -> list[Picture]:
        if images and not self.is_processor:
            raise ModelError(f"{self.tokenizer.name_or_path} reads text only, but the rows hold images")
        return [read_picture(image, places) for image in images]

    def _tokenize(self, text: str, special_tokens: bool) -> _Tokens:
        """The tokens of a text before image placeholders are expanded.

        Args:
            text: The whole text of a row.
            special_tokens: Whether the tokenizer adds its own in front; templates write them themselves.
        """
        output = self.tokenizer(text, add_special_tokens=special_tokens)
        kept = len(output["input_ids"]) - (self._closing_special_tokens if special_tokens else 0)
        return _Tokens(output["input_ids"][:kept], output.encodings[0])

    def _expand(self, text: str, pictures: list[Picture], unexpanded: _Tokens, special_tokens: bool) -> Features:
        """The model's inputs."""
        if not self.is_processor:
            ids = torch.from_numpy(np.array(unexpanded.ids, dtype=np.int64))  # many times faster than torch.tensor
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if not pictures and self._placeholder_id in unexpanded.ids:
            raise RowError(BAD_ROW, "the text holds image tokens, but the row has no image")
        try:
            output = self.processing_class(
                text=[text],
                images=[picture.image for picture in pictures] or None,
                add_special_tokens=special_tokens,
                return_tensors="pt",
            )
        except (IndexError, StopIteration) as error:  # how processors run out of images
            raise RowError(BAD_IMAGE, f"the text holds more image tokens than its {len(pictures)} images") from error
        except Exception as error:  # e.g. an aspect ratio that the image processor refuses
            status = BAD_IMAGE if pictures else BAD_ROW
            raise RowError.of(error, "the processor refuses the row", status) from error
        length = output["input_ids"].shape[1]
        features = {
            key: value[0] if value.shape[:2] == (1, length) else value
            for key, value in output.items()
            if isinstance(value, torch.Tensor)
        }
        _cut(features, length - (self._closing_special_tokens if special_tokens else 0))
        return features

    def _with_labels(self, features: Features, unexpanded: _Tokens, spans: list[Span]) -> Features:
        ids = features["input_ids"]
        marks = unexpanded.in_spans(spans)
        if self.is_processor:
            marks = np.array(spread_marks(unexpanded.ids, marks.tolist(), ids.tolist(), self._placeholder_id))
        features["labels"] = torch.where(torch.from_numpy(marks), ids, torch.full_like(ids, IGNORE_INDEX))
        return features

    def _is_over(self, length: int) -> bool:
        return self.config.max_length is not None and length > self.config.max_length

    def _fit(self, features: Features) -> str:
        """Applies the length limit in place; returns ``ok`` or ``truncated``, or raises ``too_long``."""
        limit, length = self.config.max_length, len(features["input_ids"])
        if limit is None or length <= limit:
            return OK
        cuts_image = not self._image_token_ids.isdisjoint(features["input_ids"][limit:].tolist())
        leaves_answer = bool((features["labels"][1:limit] != IGNORE_INDEX).any())
        if self.config.overflow == "skip" or cuts_image or not leaves_answer:
            raise RowError(TOO_LONG, f"{length} tokens, limit {limit}")
        _cut(features, limit)
        return TRUNCATED


def _notes(pictures: list[Picture]) -> str:
    """What of a row's images is not shown."""
    return brief("; ".join(f"image {number} {each.note}" for number, each in enumerate(pictures, 1) if each.note))


def _cut(features: Features, length: int) -> None:
    """Leaves the first so many tokens, in everything that has a value for each token."""
    whole = len(features["input_ids"])
    for key, value in features.items():
        # A picture may have as many patches as the row has tokens: only what is flat is of tokens.
        if value.dim() == 1 and len(value) == whole and length < whole:
            features[key] = value[:length]
