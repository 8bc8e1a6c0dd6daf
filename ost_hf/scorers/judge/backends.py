"""Where a judge's replies come from: an OpenAI-compatible server, or a model in this process."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from ost_hf.data.example import RowError
from ost_hf.data.images import image_file, open_image
from ost_hf.data.pictures.files import Places
from ost_hf.errors import ConfigError, ModelError
from ost_hf.models import load_model, load_processing_class, reads_images
from ost_hf.parallel import outside_deepspeed, state
from ost_hf.scorers.judge.options import JudgeOptions
from ost_hf.scorers.prompts import named_model

logger = logging.getLogger(__name__)

# So many rows one after another without an answer are the server's fault: better to stop, and to go on from there
# when it is back, than to fill the table with failures that a resumed run would keep.
_GIVE_UP_AFTER = 32
# Rows handed over at once, for each request that may be under way: the threads run dry only at the end of a batch.
_ROWS_PER_REQUEST = 8
# Seconds until a server that has said nothing is spoken of.
_SILENCE = 10.0
# What the client asks again after, besides 5xx.
_LATER = (408, 409, 429)
# The client insists on some key; servers that ask for none ignore it.
_NO_KEY = "none"


@dataclass(frozen=True)
class Request:
    """One prompt and the images it speaks of, as they lie in the row; files are read from ``places``."""

    prompt: str
    images: list[Any] = field(default_factory=list)
    places: Places | None = None


@dataclass(frozen=True)
class Reply:
    """The model's text, or ``None`` and the reason; ``cut_off`` if it reached the limit of tokens.

    ``unavailable``: the server did not get to the request, which says nothing of the row.
    """

    text: str | None
    reason: str = ""
    cut_off: bool = False
    unavailable: bool = False


class Backend(Protocol):
    """Answers prompts; one reply each, in order."""

    # How many requests it wants at once.
    batch_size: int

    def answer(self, requests: list[Request]) -> list[Reply]:
        """One reply per request."""
        ...


class Endpoint:
    """A server that speaks OpenAI's chat completions, asked through OpenAI's own client.

    That client retries with growing pauses. The Hub's client was the alternative; it refuses every address while
    ``HF_HUB_OFFLINE`` is set, and sends the user's Hub token where no other key is given.

    Args:
        options: The endpoint, the model, limits.

    Raises:
        ConfigError: If the client is not installed, or the variable that should hold the key is not set.
    """

    def __init__(self, options: JudgeOptions):
        try:
            import openai
        except ImportError as error:
            raise ConfigError("scoring.judge.endpoint needs OpenAI's client: pip install 'ost-hf[judge]'") from error
        self.options = options
        self.batch_size = _ROWS_PER_REQUEST * options.concurrency
        self._key = _read_key(options.api_key_env)
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=options.endpoint,
            api_key=self._key or _NO_KEY,
            timeout=options.timeout,
            max_retries=options.retries,
        )
        self._asked = False
        self._unanswered = 0
        self._answered = False
        self._refusal = ""

    def answer(self, requests: list[Request]) -> list[Reply]:
        """One reply per request; ``concurrency`` of them are under way at once.

        Raises:
            ModelError: If the server refuses the key or does not know the model, or has answered none of many
                requests.
        """
        if not self._asked:
            self._asked = True
            self._warn_of_silence()
        with ThreadPoolExecutor(self.options.concurrency) as threads:
            replies = []
            for reply in threads.map(self._ask, requests):
                self._answered = self._answered or reply.text is not None
                # A server that says the same of every row, and has answered none, refuses all of them.
                refused = not self._answered and reply.reason == self._refusal
                self._refusal = reply.reason
                in_vain = reply.unavailable or refused
                self._unanswered = self._unanswered + 1 if in_vain else 0
                if self._unanswered >= _GIVE_UP_AFTER:
                    threads.shutdown(cancel_futures=True)
                    raise ModelError(
                        f"{self._unanswered} rows in a row got no answer from scoring.judge.endpoint "
                        f"{self.options.endpoint} ({reply.reason}). The parts of the score table that are "
                        "written stay: start the run again when the server answers, or with other settings"
                    )
                replies.append(reply)
        return replies

    def _warn_of_silence(self) -> None:
        """Says why nothing comes: the client's own retries give no reason, and may take minutes."""
        # Connections of its own: a server that fails at this one closes it, and no row's request must be on it.
        client = self._openai.OpenAI(
            base_url=self.options.endpoint,
            api_key=self._key or _NO_KEY,
            timeout=min(self.options.timeout, _SILENCE),
            max_retries=0,
        )
        try:
            with client:
                client.models.with_raw_response.list()
        except self._openai.APIConnectionError as error:
            reason = self._without_key(str(error.__cause__ or error))
            logger.warning("no answer from %s: %s; retrying", self.options.endpoint, reason)
        except self._openai.OpenAIError:
            pass  # It answers; that is all that was asked.

    def _ask(self, request: Request) -> Reply:
        openai = self._openai
        try:
            content = _content(request)
        except RowError as error:
            return Reply(None, error.detail)
        try:
            completion = self._client.chat.completions.create(
                model=self.options.model,
                messages=[{"role": "user", "content": content}],
                temperature=0,
                max_tokens=self.options.max_tokens,
            )
        except (openai.AuthenticationError, openai.NotFoundError) as error:
            # The same for every row: the key, the address or the model's name is wrong.
            raise ModelError(
                f"scoring.judge.endpoint {self.options.endpoint} refuses model {self.options.model!r}: "
                f"{self._said(error)}. Check scoring.judge.endpoint, model and api_key_env"
            ) from None
        except openai.APIStatusError as error:
            return Reply(None, self._said(error), unavailable=error.status_code in _LATER or error.status_code >= 500)
        except openai.APITimeoutError:
            return Reply(None, f"no answer within {self.options.timeout:g} s", unavailable=True)
        except openai.APIConnectionError as error:
            return Reply(None, f"no connection: {error.__cause__ or error}", unavailable=True)
        except (openai.OpenAIError, ValueError) as error:
            return Reply(None, self._without_key(f"an answer that cannot be read: {error}"))
        choices = getattr(completion, "choices", None)
        if not choices:
            return Reply(None, "an answer without choices")
        text = choices[0].message.content or ""
        return Reply(self._without_key(text), cut_off=choices[0].finish_reason == "length")

    def _said(self, error: Any) -> str:
        body = " ".join(error.response.text.split())[:200]
        return self._without_key(f"HTTP {error.status_code} {body}".strip())

    def _without_key(self, text: str) -> str:
        """What a server says goes into the table; one that repeats the key must not put it there."""
        return text.replace(self._key, "[key]") if self._key else text


class LocalModel:
    """A pipeline in this process.

    It answers one prompt at a time: in a batch, padding changes the last bits of the logits, with them now and then a
    token, and a row's rating must not depend on its neighbours. For speed, serve the model and name the endpoint.

    Args:
        options: The model, the length of replies.

    Raises:
        ModelError: If the model has no chat template.
    """

    batch_size = 1

    def __init__(self, options: JudgeOptions):
        import transformers

        assert options.model is not None
        named = named_model(options.model)
        self.options = options
        self.sees = reads_images(named)
        with outside_deepspeed():
            model = load_model(named).eval()
        _decode_greedily(model.generation_config)
        processing_class = load_processing_class(named)
        self._tokenizer = getattr(processing_class, "tokenizer", processing_class)
        if not getattr(processing_class, "chat_template", None):
            raise ModelError(
                f"scoring.judge.model {options.model} has no chat template: name a model that follows "
                "instructions, or serve it with a template and name scoring.judge.endpoint"
            )
        self._limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        task, what = ("image-text-to-text", "processor") if self.sees else ("text-generation", "tokenizer")
        self._pipeline = transformers.pipeline(task, model=model, device=state().device, **{what: processing_class})

    def answer(self, requests: list[Request]) -> list[Reply]:
        """One reply per request."""
        return [self._ask(request) for request in requests]

    def _ask(self, request: Request) -> Reply:
        if request.images and not self.sees:
            return Reply(None, "the row has images, and scoring.judge.model reads text only")
        tokens, room = len(self._tokenizer(request.prompt)["input_ids"]), self.options.max_tokens
        if self._limit is not None and tokens + room > self._limit:
            return Reply(None, f"a prompt of {tokens} tokens and a reply of {room} exceed the model's {self._limit}")
        content: Any = request.prompt
        if self.sees:
            try:
                images = [{"type": "image", "image": open_image(image, request.places)} for image in request.images]
            except RowError as error:
                return Reply(None, error.detail)
            content = [*images, {"type": "text", "text": request.prompt}]
        messages = [{"role": "user", "content": content}]
        # Some releases' pipelines sample where nobody forbids it in the call.
        settings = {"max_new_tokens": room, "do_sample": False, "return_full_text": False}
        return Reply(self._pipeline(messages, **settings)[0]["generated_text"])


def open_backend(options: JudgeOptions) -> Backend:
    """The endpoint if one is named, else the model in this process."""
    return Endpoint(options) if options.endpoint else LocalModel(options)


def _content(request: Request) -> list[dict[str, Any]]:
    """OpenAI's typed content: the images as data URLs, then the prompt."""
    return [*_image_parts(request.images, request.places), {"type": "text", "text": request.prompt}]


def _image_parts(images: Iterable[Any], places: Places | None) -> list[dict[str, Any]]:
    files = (image_file(image, places) for image in images)
    urls = (f"data:{media_type};base64,{base64.b64encode(data).decode()}" for data, media_type in files)
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls]


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable}, which scoring.judge.api_key_env names, is not set")
    return key


def _decode_greedily(generation: Any) -> None:
    """Many chat models come with sampling switched on."""
    generation.do_sample = False
    generation.temperature = generation.top_p = generation.top_k = None
