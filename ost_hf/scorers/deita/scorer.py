"""DEITA: rated complexity of the questions times rated quality of the answers (arXiv 2312.15685).

Two causal language models rate on a scale from 1 to 6. Neither writes anything: with l_k the logit of the token of the
digit k at the place where it would follow the prompt, a rating is the expectation

    r = sum_k k softmax(l)_k,   k = 1, ..., 6

and a row of turns t has the utility ``sum_t complexity_t quality_t``. The embedding of the row, which the diversity
filter compares (:mod:`ost_hf.selection.diversity`), is the mean of an embedding model's last hidden states.

Letters: B sequences, T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.errors import ModelError
from ost_hf.models import load_model
from ost_hf.parallel import free_memory, on_accelerator, outside_deepspeed, state
from ost_hf.scorers.deita.options import DeitaOptions
from ost_hf.scorers.inputs import forward_batch_tokens
from ost_hf.scorers.prompt_files import load_prompt
from ost_hf.scorers.prompts import Conversation, named_model, read_conversation, render, require_text
from ost_hf.scorers.protocol import Score
from ost_hf.tables.statuses import TOO_LONG

logger = logging.getLogger(__name__)

_DIGITS = "123456"

Ids = list[int]


class DeitaScorer:
    """Complexity times quality, with the sentence embedding as the row's sketch.

    Args:
        config: Batch limits.
        options: The three models and two prompts.
        pool: The candidates.

    Raises:
        ConfigError: If a prompt cannot be used.
        DataError: If the rows are tokens already.
        ModelError: If a model does not write the digits 1 to 6 as one token each.
    """

    def __init__(self, config: Any, options: DeitaOptions, pool: EncodedDataset, **unused: Any):
        require_text("deita", pool)
        if pool.rows.images_column is not None:
            logger.warning("scorer 'deita' reads text only: its ratings and embeddings know nothing of the images")
        self.rows = pool.rows
        self.batch_size = config.batch_size
        self.batch_tokens = forward_batch_tokens(config)
        # Asked for by the options' check.
        assert options.complexity_model and options.quality_model and options.embedding_model
        complexity = RatingModel(options.complexity_model)
        same = options.quality_model == options.complexity_model
        quality = complexity if same else RatingModel(options.quality_model)
        self.raters = {"complexity": complexity, "quality": quality}
        self.prompts = {name: load_prompt("deita", options, f"{name}_prompt_file") for name in self.raters}
        self.embedder = EmbeddingModel(options.embedding_model)

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Scores of a batch of candidates."""
        conversations = [read_conversation(self.rows[row.row], mark_images=False) for row in batch]
        ids = {name: [self._prompt_ids(name, row) for row in conversations] for name in self.raters}
        scores = [self._too_long({name: ids[name][place] for name in ids}) for place in range(len(batch))]
        places = [place for place, score in enumerate(scores) if score is None]
        ratings = {
            name: self._rate(rater, [ids[name][place] for place in places]) for name, rater in self.raters.items()
        }
        texts = [_plain_text(conversations[place]) for place in places]
        embeddings = in_batches(self.embedder, [self.embedder.encode(text) for text in texts], self.batch_tokens)
        for number, place in enumerate(places):
            complexity, quality = ratings["complexity"][number], ratings["quality"][number]
            scores[place] = Score(
                float(complexity @ quality),
                columns={
                    "complexity": float(complexity.sum()),
                    "quality": float(quality.sum()),
                    "sketch": embeddings[number].tolist(),
                },
            )
        return [score for score in scores if score is not None]

    def _prompt_ids(self, name: str, conversation: Conversation) -> list[Ids]:
        rater = self.raters[name]
        return [rater.encode(render(self.prompts[name], conversation, turn)) for turn in conversation.turns]

    def _too_long(self, ids: dict[str, list[Ids]]) -> Score | None:
        """The score of a row that a rater cannot read whole: a rating of its beginning would be another row's."""
        for name, prompts in ids.items():
            limit, longest = self.raters[name].limit, max(map(len, prompts))
            if limit is not None and longest > limit:
                detail = f"{name}: a prompt of {longest} tokens, and the model reads {limit}"
                return Score(None, status=TOO_LONG, detail=detail)
        return None

    def _rate(self, rater: RatingModel, rows: list[list[Ids]]) -> list[Tensor]:
        """One rating per turn, row by row, in float64."""
        ratings = in_batches(rater, [prompt for row in rows for prompt in row], self.batch_tokens)
        return list(torch.stack(ratings).split([len(row) for row in rows])) if ratings else []


class RatingModel:
    """A causal language model that says which digit would come next.

    Args:
        name: On the Hub or a folder.

    Raises:
        ModelError: If its tokenizer does not write the digits 1 to 6 as one token each.
    """

    def __init__(self, name: str):
        self.tokenizer, self.model = _load(name, load_model)
        self.limit = _longest(self.model)
        written = [self.tokenizer(f"Score: {digit}")["input_ids"] for digit in _DIGITS]
        self.digits = [ids[-1] for ids in written]
        if len({tuple(ids[:-1]) for ids in written}) > 1 or len(set(self.digits)) < len(_DIGITS):
            raise ModelError(f"{name} does not write each digit from 1 to 6 as one token of its own at a text's end")
        self._picks = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def encode(self, prompt: str) -> Ids:
        """The tokens before the digit, as they are when a digit follows.

        A space before the digit is a token, a part of the digit's or neither, as the tokenizer likes: it is
        asked with a digit in place.
        """
        *ids, digit = self.tokenizer(f"{prompt}1")["input_ids"]
        if digit == self.digits[0]:
            return ids
        # A tokenizer that joins the space with the digit: the sample in __init__ had one, this prompt's end has none,
        # or the other way round.
        raise ModelError(
            f"the prompt ends in {prompt[-10:]!r}, after which {self.tokenizer.name_or_path} does not write a digit as "
            "after 'Score: '; end the prompt in a colon and a space"
        )

    def __call__(self, sequences: list[Ids]) -> Tensor:
        """Ratings ``[B]`` in float64 on the CPU."""
        batch = pad(sequences, self.tokenizer)
        last_B = torch.tensor([len(ids) - 1 for ids in sequences], device=state().device)
        kept, place_B = torch.unique(last_B, return_inverse=True)
        with torch.inference_mode():
            # Logits at the last places alone: those of every token would be B x T x V numbers.
            more = {"logits_to_keep": kept} if self._picks else {}
            logits_BTV = self.model(**batch, use_cache=False, **more).logits
        rows = torch.arange(len(sequences), device=last_B.device)
        chosen = logits_BTV[rows, place_B if self._picks else last_B][:, self.digits]
        scale = torch.arange(1, len(_DIGITS) + 1, dtype=torch.float64)
        return chosen.double().softmax(-1).cpu() @ scale


class EmbeddingModel:
    """A model, of whatever kind ``AutoModel`` loads, whose mean last hidden state stands for a text.

    Args:
        name: On the Hub or a folder.
    """

    def __init__(self, name: str):
        import transformers

        def load(config: Any) -> Any:
            dtype = "bfloat16" if on_accelerator() else "float32"
            return transformers.AutoModel.from_pretrained(config.model, revision=config.revision, dtype=dtype)

        self.tokenizer, self.model = _load(name, load)
        limits = (_longest(self.model), self.tokenizer.model_max_length)
        # A tokenizer that knows no limit says 10^30.
        self.limit = min((limit for limit in limits if limit is not None and limit < 10**9), default=None)

    def encode(self, text: str) -> Ids:
        """The text's tokens; its beginning, if the model reads no more."""
        return self.tokenizer(text, truncation=self.limit is not None, max_length=self.limit)["input_ids"]

    def __call__(self, sequences: list[Ids]) -> Tensor:
        """Embeddings ``[B, D]`` in float32 on the CPU."""
        batch = pad(sequences, self.tokenizer)
        with torch.inference_mode():
            hidden_BTD = self.model(**batch).last_hidden_state.float()
        mask_BT1 = batch["attention_mask"][..., None]
        # Multiplied and not only left out of the count: a padded place may hold anything, but nothing infinite.
        return ((hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)).cpu()


def in_batches(run: Callable[[list[Ids]], Tensor], sequences: list[Ids], max_tokens: int) -> list[Tensor]:
    """Runs sequences of like length together and gives the results in the order of the sequences.

    Args:
        run: One result per sequence.
        sequences: Token ids.
        max_tokens: Of a batch, padding included; a longer sequence runs alone. What does not fit into the device's
            memory runs in halves.
    """
    results: dict[int, Tensor] = {}
    waiting = sorted(range(len(sequences)), key=lambda place: len(sequences[place]))
    limit = max_tokens
    while waiting:
        size = 1
        while size < len(waiting) and (size + 1) * len(sequences[waiting[size]]) <= limit:
            size += 1
        try:
            results |= zip(waiting[:size], run([sequences[place] for place in waiting[:size]]), strict=True)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            free_memory()
            limit = size // 2 * len(sequences[waiting[size - 1]])
            continue
        waiting = waiting[size:]
    return [results[place] for place in range(len(sequences))]


def pad(sequences: list[Ids], tokenizer: Any) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask [B, T]``, filled on the right, on the run's device."""
    fill = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    width = max(map(len, sequences))
    batch = {
        "input_ids": [ids + [fill] * (width - len(ids)) for ids in sequences],
        "attention_mask": [[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences],
    }
    return {name: torch.tensor(values, device=state().device) for name, values in batch.items()}


def _load(name: str, load: Callable[[Any], Any]) -> tuple[Any, Any]:
    """A tokenizer, and a model on the run's device."""
    import transformers

    named = named_model(name)
    with outside_deepspeed():
        model = load(named).eval().to(state().device)
    return transformers.AutoTokenizer.from_pretrained(named.model, revision=named.revision), model


def _longest(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _plain_text(conversation: Conversation) -> str:
    return "\n\n".join(text for turn in conversation.turns for text in (turn.question, turn.answer))
