"""Exact match of final answers, as an `evaluate` module that loads from its own folder."""

import datasets
import evaluate

from ost_hf.evaluation.answers import answers_match, extract_answer

_DESCRIPTION = "Share of predictions whose final answer equals the reference's, as mathematics or as text."

_KWARGS = """
Args:
    predictions: list of generated texts.
    references: list of reference texts (a chain of thought or the bare answer).
    match: "math" (default) compares as mathematics through math-verify, "text" as text.
Returns:
    exact_match: share of matches in [0, 1].
    matches: list of booleans, one for each prediction.
Examples:
    >>> metric = evaluate.load(ost_hf.exact_match_path())
    >>> metric.compute(predictions=["3 + 4 = 7. answer: 7"], references=["7"])["exact_match"]
    1.0
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS)
class ExactMatch(evaluate.Metric):
    """Compares final answers."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references, match="math"):
        matches = [
            answers_match(extract_answer(prediction), extract_answer(reference), match)
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {"exact_match": sum(matches) / len(matches), "matches": matches}
