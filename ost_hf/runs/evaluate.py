"""``ost-hf evaluate``: exact match of the fine-tuned target."""

from __future__ import annotations

import json
import logging

from ost_hf.runs.config import RunConfig
from ost_hf.runs.train import check_trained
from ost_hf.files import write_whole
from ost_hf.models import ModelConfig

logger = logging.getLogger(__name__)


def run(config: RunConfig) -> None:
    """Evaluates ``run_dir/target`` (or ``evaluation.model``) into ``metrics.json`` and ``predictions.jsonl``."""
    from ost_hf.data.encoding import Encoder
    from ost_hf.data.rows import Rows
    from ost_hf.evaluation.evaluator import evaluate_model, write_metrics
    from ost_hf.models import load_model, load_processing_class
    from ost_hf.parallel import is_main, main_process_first, outside_deepspeed, state

    config.require("evaluation")
    assert config.evaluation is not None
    model_config = evaluated_model(config)
    with main_process_first():
        rows = Rows.load(config.evaluation)
    # A model that generates must be whole, also in a process that has trained under ZeRO-3.
    with outside_deepspeed():
        model = load_model(model_config).to(state().device)
    encoder = Encoder(load_processing_class(model_config), config.encoding)
    metrics, records = evaluate_model(model, encoder, rows, config.evaluation)
    write_metrics({"model": model_config.model, **metrics}, config.folder / "metrics.json")
    if is_main():
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_whole(config.folder / "predictions.jsonl", lambda path: path.write_text(lines))
        logger.info("exact match %.1f %% of %d rows", 100 * metrics["exact_match"], metrics["rows"])


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
