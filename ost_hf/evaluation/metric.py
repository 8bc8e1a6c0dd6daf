"""The exact-match metric, loaded from the package's own folder, and its use inside a ``Trainer``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ost_hf.data.encoding.encoded import IGNORE_INDEX
from ost_hf.errors import ConfigError
from ost_hf.evaluation.mathematics import load_math_verify
from ost_hf.evaluation.thoughts import decode_answer


def exact_match_path() -> str:
    """The folder that ``evaluate.load`` takes; nothing is fetched from the Hub."""
    return str(Path(__file__).parent / "exact_match")


def load_exact_match() -> Any:
    """The metric as an ``evaluate.Metric``.

    Raises:
        ConfigError: If ``evaluate`` is not installed.
    """
    try:
        import evaluate
    except ImportError as error:
        raise ConfigError("evaluation needs the evaluate library: pip install 'ost-hf[eval]'") from error
    return evaluate.load(exact_match_path())


def check_installed(match: str) -> None:
    """Raises ``ConfigError`` if a library is missing that comparing answers takes, before any is generated."""
    load_exact_match()
    if match == "math":
        load_math_verify()


def make_compute_metrics(
    tokenizer: Any, match: str = "math", generated: bool = False
) -> Callable[[Any], dict[str, float]]:
    """A ``compute_metrics`` function for ``Trainer``.

    Predictions may be generated token ids (``Seq2SeqTrainer``'s ``predict_with_generate``) or logits or
    their argmax. With the latter two each token was predicted after the *right* preceding ones, so the
    figure says how well answers are followed, not how well they are found: report generated ones.

    Args:
        tokenizer: Tokenizer or processor that decodes.
        match: As in the metric.
        generated: Predictions are generated ids. Ids of another width than the labels are taken for that
            anyway, but ``Seq2SeqTrainer`` pads both to one width, and an argmax looks the same then.
    """
    metric = load_exact_match()
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)

    def compute_metrics(evaluated: Any) -> dict[str, float]:
        predictions = evaluated.predictions[0] if isinstance(evaluated.predictions, tuple) else evaluated.predictions
        labels = np.asarray(evaluated.label_ids)
        predictions = np.asarray(predictions)
        if predictions.ndim == 3:
            predictions = predictions.argmax(-1)
        if predictions.shape == labels.shape and not generated:
            # Teacher forcing: the prediction at t is for the token at t + 1.
            predictions, labels = predictions[:, :-1], labels[:, 1:]
            predictions = np.where(labels == IGNORE_INDEX, IGNORE_INDEX, predictions)
        texts = [_decode(tokenizer, row) for row in predictions]
        references = [_decode(tokenizer, row) for row in labels]
        return {"exact_match": metric.compute(predictions=texts, references=references, match=match)["exact_match"]}

    return compute_metrics


def _decode(tokenizer: Any, ids: np.ndarray) -> str:
    return decode_answer(tokenizer, [int(token) for token in ids if token >= 0])
