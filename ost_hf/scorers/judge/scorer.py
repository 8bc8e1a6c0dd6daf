"""A language model reads each row and rates it: the baseline of `LLM-as-a-judge`."""

from __future__ import annotations

import re
from typing import Any

from ost_hf.data.encoding import Encoded, EncodedDataset
from ost_hf.scorers.base import NO_LIMIT, Score, register
from ost_hf.scorers.config import ScorerConfig
from ost_hf.scorers.judge.backends import Reply, Request, open_backend
from ost_hf.scorers.prompts import load_prompt, read_conversation, render, require_text, scale_of

# Characters of a reply that the table keeps: enough to see what the judge did instead of rating.
_DETAIL = 200


@register("judge", needs=())
class JudgeScorer:
    """The utility is the rating. A row without one has the status ``judge_unparsed`` or ``judge_failed``.

    Args:
        config: The judge, its prompt and scale.
        pool: The candidates.

    Raises:
        ConfigError: If the prompt or the endpoint's key cannot be used.
        DataError: If the rows are tokens already.
        ModelError: If a local model has no chat template.
    """

    def __init__(self, config: ScorerConfig, pool: EncodedDataset, **unused: Any):
        require_text("judge", pool)
        self.config = config
        self.rows = pool.rows
        self.prompt = load_prompt(config, "judge_prompt_file")
        self.backend = open_backend(config)
        self.batch_size: int | None = config.batch_size or self.backend.batch_size
        self.batch_tokens = NO_LIMIT

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Ratings of a batch of candidates.

        Raises:
            ModelError: If the endpoint refuses the key or the model, or many rows in a row get no answer.
        """
        return [self._score(reply) for reply in self.backend.answer([self._request(row) for row in batch])]

    def _request(self, row: Encoded) -> Request:
        example = self.rows[row.row]
        conversation = read_conversation(example, mark_images=True)
        prompt = render(self.prompt, conversation, conversation.turns[-1], **scale_of(self.config))
        return Request(prompt, example.images, self.rows.folder)

    def _score(self, reply: Reply) -> Score:
        if reply.text is None:
            return Score(None, status="judge_failed", detail=reply.reason)
        rating = read_rating(reply.text, self.config)
        if rating is None:
            beginning = " ".join(reply.text.split())[:_DETAIL]
            cut = f" (cut off after {self.config.judge_max_tokens} tokens)" if reply.cut_off else ""
            return Score(None, status="judge_unparsed", detail=f"no rating in{cut}: {beginning}")
        return Score(rating)


def read_rating(text: str, config: ScorerConfig) -> float | None:
    """The last match of ``judge_pattern``, if it is a number on the scale; a judge may name others on the way.

    A rating of another scale (``4/5`` where the highest is 10) is none.
    """
    found = list(re.finditer(config.judge_pattern, text))
    if not found:
        return None
    highest = found[-1].groupdict().get("highest")
    try:
        rating = float(found[-1][1])
        is_ours = highest is None or float(highest) == config.judge_highest
    except (TypeError, ValueError):  # a group that took no part, or that holds no number
        return None
    return rating if is_ours and config.judge_lowest <= rating <= config.judge_highest else None
