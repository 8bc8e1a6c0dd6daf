"""The evaluate stage: exact match of the fine-tuned target, in ``run_dir/metrics.json``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from ost_hf.files import write_json, write_text
from ost_hf.models import ModelConfig
from ost_hf.runs.config import RunConfig
from ost_hf.runs.train import check_trained

logger = logging.getLogger(__name__)


def check(config: RunConfig) -> None:
    """Raises for what :func:`prepare` would refuse: a missing library, column or model."""
    from ost_hf.data.rows import Rows
    from ost_hf.evaluation.evaluator import check_columns
    from ost_hf.evaluation.metric import check_installed
    from ost_hf.models import find_model_class
    from ost_hf.parallel import main_process_first

    config.require("evaluation")
    assert config.evaluation is not None
    check_installed(config.evaluation.match)
    named = config.evaluation.model
    # What training will write is not there yet.
    if named is not None and (config.folder / "target").resolve() != Path(named).expanduser().resolve():
        find_model_class(evaluated_model(config))
    with main_process_first():
        rows = Rows.load(config.evaluation)
    check_columns(rows, config.evaluation)


def prepare(config: RunConfig) -> Callable[[], None]:
    """Loads the test rows and the model: ``run_dir/target``, or ``evaluation.model``."""
    from ost_hf.data.encoding import Encoder
    from ost_hf.data.rows import Rows
    from ost_hf.evaluation.evaluator import check_columns, evaluate_model
    from ost_hf.models import load_model, load_processing_class
    from ost_hf.parallel import is_main, main_process_first, outside_deepspeed, state

    config.require("evaluation")
    assert config.evaluation is not None
    model_config, evaluation = evaluated_model(config), config.evaluation
    with main_process_first():
        rows = Rows.load(evaluation)
    check_columns(rows, evaluation)
    # A model that generates must be whole, also in a process that has trained under ZeRO-3.
    with outside_deepspeed():
        model = load_model(model_config).to(state().device)
    encoder = Encoder(load_processing_class(model_config), config.encoding)

    def work() -> None:
        metrics, records = evaluate_model(model, encoder, rows, evaluation)
        if is_main():
            write_json(config.folder / "metrics.json", {"model": model_config.model, **metrics})
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            write_text(config.folder / "predictions.jsonl", lines)
            logger.info("exact match %.1f %% of %d rows", 100 * metrics["exact_match"], metrics["rows"])

    return work


def evaluated_model(config: RunConfig) -> ModelConfig:
    """The model that is evaluated: ``evaluation.model``, or what the train stage has written.

    Raises:
        RunDirectoryError: If it has written nothing yet, or what was trained on another selection.
    """
    name = config.evaluation.model if config.evaluation is not None else None
    if name is None:
        name = str(config.folder / "target")
        check_trained(config)
    if config.target is None:
        return ModelConfig(model=name)
    # The target's revision is one of its own repository, not of another model's and not of what was made of it.
    revision = config.target.revision if name == config.target.model else None
    return ModelConfig(
        model=name,
        revision=revision,
        attn_implementation=config.target.attn_implementation,
        trust_remote_code=config.target.trust_remote_code,
    )
