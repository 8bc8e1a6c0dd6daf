"""Scores a pool: any number of processes, resumable, one table."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ost_hf.data.collator import Collator
from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import EncodedDataset, Encoder
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.find import Evaluation, evaluation_sets
from ost_hf.duplicates.policy import Excluded, exclude_rows, write_report
from ost_hf.errors import DataError, RunDirectoryError
from ost_hf.models import describe_weights, load_processing_class
from ost_hf.parallel import barrier, free_memory, is_main, state
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy, check_gradients, load_proxy, read_origin, save_proxy
from ost_hf.proxy.warmup import warm_up
from ost_hf.scorers.base import ANCHORS, PROXY, build_scorer, find_scorer
from ost_hf.scorers.inputs import check_group_by
from ost_hf.scorers.prompts import prompt_digests
from ost_hf.scoring.anchor_scores import anchor_file, score_rows_and_anchors
from ost_hf.scoring.cascade import run_cascade
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.second_look.proxies import check_trainable
from ost_hf.scoring.second_look.rounds import run_second_look
from ost_hf.tables.score_table import ScoreTable, name_differences

logger = logging.getLogger(__name__)

Record = dict[str, Any]

# These change speed and memory, not what is computed: a run may be resumed with others.
_NOT_IDENTITY = (
    "batch_size",
    "batch_tokens",
    "part_size",
    "num_workers",
    "judge_api_key_env",
    "judge_concurrency",
    "judge_timeout",
    "judge_retries",
)


def score_pool(
    run_dir: str | Path,
    pool: Rows,
    anchors: Rows | None,
    proxy: ProxyConfig,
    scoring: ScoringConfig | None = None,
    encoding: EncodingConfig | None = None,
    overlap: str = "error",
    duplicates: DuplicatesConfig | None = None,
    evaluation: Evaluation = None,
) -> ScoreTable:
    """Scores every row of a pool and writes ``run_dir/scores`` (and ``run_dir/proxy``).

    Called on every process of the run; what was killed goes on from what is there, with any number of processes.

    Args:
        run_dir: The run directory.
        pool: The candidates.
        anchors: The anchor set; only a scorer that asks no anchors does without.
        proxy: The proxy and its warm-up.
        scoring: The scorer and the loop.
        encoding: How rows become tokens.
        overlap: Anchors found in the pool: ``error``, or ``drop`` to give those rows a status.
        duplicates: What is done about rows that repeat another; what is found goes into ``duplicates.json``.
        evaluation: The rows that the target will be evaluated on, in one set or several, to be held against the pool.

    Returns:
        The complete score table.

    Raises:
        DataError: If anchors are needed and missing, or cannot be used, or there are duplicates where none may be.
        RunDirectoryError: If the folder holds scores of another configuration or dataset, or by other weights.
    """
    scoring, encoding = scoring or ScoringConfig(), encoding or EncodingConfig()
    duplicates = duplicates or DuplicatesConfig()
    _check_scorer(scoring, anchors)
    for rows in (pool, *evaluation_sets(evaluation)):
        rows.hash_together()
    exclude, report = exclude_rows(pool, anchors, overlap, duplicates, evaluation)
    table = ScoreTable(Path(run_dir) / "scores")
    _open(table, _identity(pool, anchors, proxy, scoring, encoding, overlap, duplicates, evaluation), len(pool))
    if is_main():
        write_report(report, Path(run_dir) / "duplicates.json")

    remaining = sorted(set(range(len(pool))) - table.rows_done())
    if not remaining:
        logger.info("all %d rows are scored already", len(pool))
        return table
    encoded = EncodedDataset(pool, Encoder(load_processing_class(proxy), encoding))
    _score_rows(Path(run_dir), encoded, anchors, proxy, table, remaining, exclude, scoring)
    free_memory()
    if is_main():
        statuses = Counter(table.read(columns=["row", "status"])["status"].to_pylist())
        logger.info("scored %d rows: %s", len(pool), ", ".join(f"{n} {s}" for s, n in statuses.most_common()))
    return table


def _check_scorer(scoring: ScoringConfig, anchors: Rows | None) -> None:
    """Raises ``DataError`` where anchors are not what the scorer asks for; warns of settings that it does not read."""
    if ANCHORS in find_scorer(scoring.scorer).needs:
        if anchors is None:
            raise DataError(
                f"the {scoring.scorer} scorer needs anchors: a small clean set that stands for the target tasks"
            )
        check_group_by(anchors, scoring.group_by)
    if scoring.idle and is_main():
        logger.warning("scorer %r does not read %s: without effect", scoring.scorer, ", ".join(scoring.idle))


def _score_rows(
    run_dir: Path,
    pool: EncodedDataset,
    anchor_rows: Rows | None,
    proxy: ProxyConfig,
    table: ScoreTable,
    remaining: list[int],
    exclude: Excluded,
    config: ScoringConfig,
) -> None:
    """Makes what the scorer needs, and writes the missing rows with it."""
    needs = find_scorer(config.scorer).needs
    uses: dict[str, Any] = {"pool": pool, "exclude": exclude, "folder": table.folder}
    if ANCHORS in needs:
        assert anchor_rows is not None
        uses[ANCHORS] = EncodedDataset(anchor_rows, pool.encoder)
    if PROXY in needs:
        _hold_weights(table, proxy)
        uses[PROXY] = prepare_proxy(run_dir / "proxy", proxy, pool, exclude)
    build = partial(build_scorer, config.scorer, **uses)
    if config.scorer == "one_step" and config.estimator == "cascade":
        run_cascade(build, pool, table, exclude, config)
    elif config.second_look:
        check_trainable(uses[PROXY].model.get_base_model(), uses[PROXY].config, config)
        run_second_look(build, pool, uses[ANCHORS], uses[PROXY].config, table, exclude, config)
    else:
        scorer = build(config=config)
        score_rows_and_anchors(scorer, pool, uses.get(ANCHORS), table, remaining, exclude, config)


def _open(table: ScoreTable, identity: Record, rows: int) -> None:
    """Checks or writes the manifest; every process raises if it is another run's."""
    has_rows = table.check_manifest(identity)
    barrier()
    if not has_rows and is_main():
        # Of a run that ended before its first row, and was perhaps another.
        anchor_file(table).unlink(missing_ok=True)
        shutil.rmtree(table.folder / "less", ignore_errors=True)
        names = ("ost-hf", "torch", "transformers", "accelerate", "peft", "datasets")
        versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
        table.write_manifest(identity, rows=rows, versions=versions)
    barrier()


def _hold_weights(table: ScoreTable, proxy: ProxyConfig) -> None:
    """Notes in the manifest which weights the rows are scored with; every process raises if others were."""
    found, noted = describe_weights(proxy), table.manifest().get("weights")
    barrier()
    if noted is None and is_main():
        table.add_to_manifest(weights=found)
    differences = name_differences(noted, found, "weights") if noted is not None else []
    if differences:
        raise RunDirectoryError(
            f"{table.folder} holds scores by other weights of {proxy.model}: {'; '.join(differences)}. Go on with "
            "those, choose another run_dir, or remove its folders scores and proxy to score again"
        )
    barrier()


def _identity(
    pool: Rows,
    anchors: Rows | None,
    proxy: ProxyConfig,
    scoring: ScoringConfig,
    encoding: EncodingConfig,
    overlap: str,
    duplicates: DuplicatesConfig | None = None,
    evaluation: Evaluation = None,
) -> Record:
    tested = sorted(rows.fingerprint for rows in evaluation_sets(evaluation))
    identity = {
        "pool": pool.fingerprint,
        "anchors": anchors.fingerprint if anchors is not None else None,
        "overlap": overlap,
        "duplicates": asdict(duplicates or DuplicatesConfig()),
        "evaluation": tested if len(tested) > 1 else next(iter(tested), None),
        "scoring": _scoring_identity(scoring),
        "proxy": asdict(proxy),
        "encoding": encoding.identity(),
    }
    # Not among what rows hold, so their fingerprints do not cover it.
    of_anchors = anchors.config.system_prompt if anchors is not None else None
    if pool.config.system_prompt or of_anchors:
        identity["system_prompts"] = {"pool": pool.config.system_prompt, "anchors": of_anchors}
    # Not among what a model reads: the same.
    for name, rows, column in (("column", pool, scoring.column), ("group_by", anchors, scoring.group_by)):
        if rows is not None and column is not None and column in rows.dataset.column_names:
            values = json.dumps(list(rows.dataset[column]), default=str)
            identity[f"{name}_digest"] = hashlib.blake2b(values.encode(), digest_size=16).hexdigest()
    return json.loads(json.dumps(identity))


def warn_of_other_settings(table: ScoreTable, scoring: ScoringConfig) -> None:
    """Says where a score table was made with other settings than a configuration has: its replay would differ."""
    differences = name_differences(table.manifest()["identity"].get("scoring"), _scoring_identity(scoring), "scoring")
    if differences and is_main():
        logger.warning(
            "%s was scored with other settings than this configuration has: %s. The selection goes by those scores",
            table.folder, "; ".join(differences),
        )  # fmt: skip


def _scoring_identity(scoring: ScoringConfig) -> Record:
    fields = {key: value for key, value in asdict(scoring).items() if key not in _NOT_IDENTITY}
    if scoring.second_look:
        # Not a setting: tables of before it was so hold mean losses in that column.
        fields["late_loss"] = "root mean square, mixture"
    return json.loads(json.dumps(fields | prompt_digests(scoring)))


def prepare_proxy(folder: Path, config: ProxyConfig, pool: EncodedDataset, exclude: Collection[int]) -> Proxy:
    """The stored proxy of this run, or a new one, warmed up and stored.

    Raises:
        RunDirectoryError: If the stored one was made of another pool, of other weights or with other settings.
    """
    origin = json.loads(
        json.dumps(
            {
                "proxy": asdict(config),
                "weights": describe_weights(config),
                "pool": pool.rows.fingerprint,
                "encoding": pool.encoder.config.identity(),
                "excluded_rows": sorted(exclude),
                **({"system_prompt": prompt} if (prompt := pool.rows.config.system_prompt) else {}),
            }
        )
    )
    stored = (folder / "proxy.json").exists()
    barrier()
    if stored:
        differences = name_differences(read_origin(folder), origin)
        if differences:
            raise RunDirectoryError(
                f"{folder} holds a proxy of another run: {'; '.join(differences)}. "
                "Choose another run_dir, or remove the folder to make the proxy again"
            )
        return load_proxy(folder)
    proxy = build_proxy(config)
    first = next((row for row in map(pool.encode, range(len(pool))) if row.features is not None), None)
    if first is not None and first.features is not None:
        sample = Collator.of(proxy.processing_class)([first.features])
        check_gradients(proxy, {key: value.to(state().device) for key, value in sample.items()})
    warm_up(proxy, pool, set(exclude))
    if is_main():
        save_proxy(proxy, folder, origin)
        logger.info("proxy: %s", proxy.report())
    barrier()
    return proxy
