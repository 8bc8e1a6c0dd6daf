"""Greedy generation over the test rows, shared by the processes, and the metrics it gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm

from ost_hf.data.collator import Collator
from ost_hf.data.encoding import Encoder
from ost_hf.data.example import RowError
from ost_hf.data.parsing import as_text
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.evaluation.answers import extract_answer
from ost_hf.evaluation.config import EvaluationConfig
from ost_hf.evaluation.metric import check_installed, load_exact_match
from ost_hf.evaluation.thoughts import decode_answer, opened_thought
from ost_hf.parallel import gather_objects, is_main, share, state
from ost_hf.tables.statuses import NO_LABELS, OK

Result = dict[str, Any]


def evaluate_model(model: Any, encoder: Encoder, rows: Rows, config: EvaluationConfig) -> tuple[Result, list[Result]]:
    """Exact match of greedy answers.

    Args:
        model: The model; its training mode is restored afterwards.
        encoder: Its encoder.
        rows: Test rows; the last assistant turn, or ``reference_column``, is the reference.
        config: Generation and comparison settings.

    Returns:
        Metrics (``exact_match``, ``rows``, ``not_evaluated``, ``by_group``), and one record a row with
        prediction, reference and match, in the order of the rows. The same on every process.

    Raises:
        ConfigError: If a library is not installed that comparing answers takes.
        DataError: If a column does not exist or no row can be evaluated.
    """
    check_columns(rows, config)
    check_installed(config.match)
    with _in_evaluation_mode(model):
        mine = _generate(model, encoder, rows, config)
    records = sorted(gather_objects(mine), key=lambda record: record["row"])
    usable = [record for record in records if record["status"] == OK]
    if not usable:
        raise DataError(f"none of the {len(records)} test rows can be evaluated; the first: {records[0]['detail']}")
    computed = load_exact_match().compute(
        predictions=[record["prediction"] for record in usable],
        references=[record["reference"] for record in usable],
        match=config.match,
    )
    groups: dict[str, list[bool]] = defaultdict(list)
    values = rows.dataset[config.group_by] if config.group_by else None
    for record, match in zip(usable, computed["matches"], strict=True):
        record["match"] = match
        if values is not None:
            groups[str(values[record["row"]])].append(match)
    metrics: Result = {
        "exact_match": computed["exact_match"],
        "rows": len(usable),
        "not_evaluated": len(records) - len(usable),
    }
    if groups:
        metrics["by_group"] = {name: sum(group) / len(group) for name, group in sorted(groups.items())}
    return metrics, records


def check_columns(rows: Rows, config: EvaluationConfig) -> None:
    """Raises ``DataError`` if the test rows lack a column that the configuration names."""
    for option, column in (("reference_column", config.reference_column), ("group_by", config.group_by)):
        if column is not None and column not in rows.dataset.column_names:
            names = ", ".join(rows.dataset.column_names)
            raise DataError(f"evaluation.{option}: there is no column {column!r}; there are: {names}")


def _generate(model: Any, encoder: Encoder, rows: Rows, config: EvaluationConfig) -> list[Result]:
    """This process's records."""
    tokenizer = encoder.tokenizer
    collate = Collator.of(encoder.processing_class, padding_side="left")
    references = rows.dataset[config.reference_column] if config.reference_column else None
    mine = share(list(range(len(rows))))
    records: list[Result] = []
    progress = tqdm(total=len(mine), desc="generating", unit="row", disable=not is_main())
    for start in range(0, len(mine), config.batch_size):
        batch, pending = [], []
        for row in mine[start : start + config.batch_size]:
            record: Result = {"row": row, "example_id": rows.example_ids[row], "status": OK, "detail": ""}
            records.append(record)
            try:
                features, text = encoder.encode_prompt(rows, row)
            except RowError as error:
                record |= {"status": error.status, "detail": error.detail}
                continue
            given = extract_answer(text) if references is None else references[row]
            reference = "" if given is None else str(as_text(given))
            if not reference.strip():
                where = "the last turn" if references is None else config.reference_column
                record |= {"status": NO_LABELS, "detail": f"{where} is empty"}
                continue
            record["reference"] = reference
            record["prediction"] = opened_thought(tokenizer, features["input_ids"].tolist())
            batch.append(features)
            pending.append(record)
        if batch:
            inputs = {key: value.to(state().device) for key, value in collate(batch).items()}
            with torch.inference_mode():
                output = model.generate(
                    **inputs,
                    max_new_tokens=config.max_new_tokens,
                    do_sample=False,
                    pad_token_id=collate.pad_token_id,
                )
            new = output[:, inputs["input_ids"].shape[1] :]
            for record, ids in zip(pending, new.tolist(), strict=True):
                record["prediction"] += decode_answer(tokenizer, ids)
        progress.update(len(mine[start : start + config.batch_size]))
    progress.close()
    return records


@contextmanager
def _in_evaluation_mode(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
