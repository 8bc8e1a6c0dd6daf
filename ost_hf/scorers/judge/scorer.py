"""A language model reads each row and rates it: the baseline of `LLM-as-a-judge`."""

from __future__ import annotations

import re
from typing import Any

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.scorers.judge.backends import Reply, Request, open_backend
from ost_hf.scorers.judge.options import JudgeOptions
from ost_hf.scorers.prompt_files import load_prompt
from ost_hf.scorers.prompts import read_conversation, render, require_text
from ost_hf.scorers.protocol import NO_LIMIT, Score

# Characters of a reply that the table keeps: enough to see what the judge did instead of rating.
_DETAIL = 200


class JudgeScorer:
    """The utility is the rating. A row without one has the status ``judge_unparsed`` or ``judge_failed``.

    Args:
        config: Batch limits.
        options: The judge, its prompt and scale.
        pool: The candidates.

    Raises:
        ConfigError: If the prompt or the endpoint's key cannot be used.
        DataError: If the rows are tokens already.
        ModelError: If a local model has no chat template.
    """

    def __init__(self, config: Any, options: JudgeOptions, pool: EncodedDataset, **unused: Any):
        require_text("judge", pool)
        self.options = options
        self.rows = pool.rows
        self.prompt = load_prompt("judge", options, "prompt_file", scale_of(options))
        self.backend = open_backend(options)
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
        prompt = render(self.prompt, conversation, conversation.turns[-1], **scale_of(self.options))
        return Request(prompt, example.images, self.rows.places)

    def _score(self, reply: Reply) -> Score:
        if reply.text is None:
            return Score(None, status="judge_failed", detail=reply.reason)
        rating = read_rating(reply.text, self.options)
        if rating is None:
            beginning = " ".join(reply.text.split())[:_DETAIL]
            cut = f" (cut off after {self.options.max_tokens} tokens)" if reply.cut_off else ""
            return Score(None, status="judge_unparsed", detail=f"no rating in{cut}: {beginning}")
        return Score(rating)


def read_rating(text: str, options: JudgeOptions) -> float | None:
    """The last match of ``pattern``, if it is a number on the scale; a judge may name others on the way.

    A rating of another scale (``4/5`` where the highest is 10) is none.
    """
    found = list(re.finditer(options.pattern, text))
    if not found:
        return None
    highest = found[-1].groupdict().get("highest")
    try:
        rating = float(found[-1][1])
        is_ours = highest is None or float(highest) == options.highest
    except (TypeError, ValueError):  # a group that took no part, or that holds no number
        return None
    return rating if is_ours and options.lowest <= rating <= options.highest else None


def scale_of(options: JudgeOptions) -> dict[str, float]:
    """``lowest`` and ``highest`` of the judge's scale; whole numbers are written without a decimal point."""
    ends = {"lowest": options.lowest, "highest": options.highest}
    return {name: int(end) if float(end).is_integer() else end for name, end in ends.items()}
