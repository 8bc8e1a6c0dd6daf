"""The linear datamodelling score: do summed utilities predict what real fine-tuning does?

Random subsets of the pool are fine-tuned on, all from the same checkpoint and with the same steps. A method's score is
the Spearman correlation, over the subsets, of the sum of its utilities over a subset with how low the anchors' mean
loss is after that fine-tuning (Park et al. 2023, TRAK, arXiv 2303.14186).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ost_hf.errors import ModelError, RunDirectoryError
from ost_hf.evidence.rank_correlation import spearman
from ost_hf.files import write_json
from ost_hf.runs.config import RunConfig, build_config
from ost_hf.runs.whole import start_stage
from ost_hf.settings import as_mapping
from ost_hf.study.config import StudyConfig
from ost_hf.study.markers import identity, read_done, write_done
from ost_hf.study.plan import Group, configuration

Record = dict[str, Any]

# The scorer that draws the subsets.
RANDOM = "random"

# What of a score table predicts, and whether more of it should mean a lower loss.
_PREDICTORS = {"utility": 1, "late_loss": -1}


def datamodelling_scores(study: StudyConfig, group: Group) -> list[Record]:
    """Fine-tunes on what subsets are missing, and holds every method's scores against all of them.

    Returns:
        A record for each method and column of its score table.

    Raises:
        OSTError: If a stage fails.
    """
    assert study.datamodelling is not None
    outcomes = [_outcome(study, group, number) for number in range(study.datamodelling["subsets"])]
    losses = np.asarray([outcome["loss"] for outcome in outcomes])
    records = []
    for method, sections in study.methods.items():
        if sections.get("untrained"):
            continue
        for column, values in _predictors(configuration(study, group, method)).items():
            # The mean of known scores times the subsets' common size: a row without a score is no row of score zero.
            sums = np.asarray([np.nanmean(values[outcome["rows"]]) for outcome in outcomes])
            if np.ptp(sums) > 0:
                record = {"setting": group.setting, "seed": group.seed, "method": method, "column": column}
                records.append(
                    {**record, "score": spearman(sums.tolist(), (-losses).tolist()), "subsets": len(outcomes)}
                )
    return records


def write_datamodelling(study: StudyConfig, group: Group) -> None:
    """Writes ``datamodelling.json`` of a group: the scores, and a hash of what they were made with."""
    write_json(_marker(group), {"made_with": _made_with(study, group), "records": datamodelling_scores(study, group)})


def read_datamodelling(study: StudyConfig, group: Group) -> list[Record]:
    """What :func:`write_datamodelling` wrote; nothing if it did not.

    Raises:
        RunDirectoryError: If it was made with other methods, settings, data or weights.
    """
    if study.datamodelling is None or not _marker(group).exists():
        return []
    stored = json.loads(_marker(group).read_text())
    if not isinstance(stored, dict) or stored["made_with"] != _made_with(study, group):
        raise RunDirectoryError(
            f"{_marker(group)} was made with other methods, settings, data or models: run the study again without "
            "--methods"
        )
    return stored["records"]


def _marker(group: Group) -> Path:
    return group.folder / "datamodelling.json"


def _made_with(study: StudyConfig, group: Group) -> str:
    methods = {name: identity(configuration(study, group, name)) for name in study.methods}
    text = json.dumps([study.datamodelling, methods], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _outcome(study: StudyConfig, group: Group, number: int) -> Record:
    """A subset's rows and the anchors' loss after fine-tuning on it."""
    settings = study.datamodelling
    assert settings is not None
    folder = group.folder / "datamodelling" / f"subset-{number}"
    marker = folder / "outcome.json"
    method = next(name for name, sections in study.methods.items() if not sections.get("untrained"))
    config = configuration(study, group, method)
    given = {name: values for name, values in config.given.items() if name != "strategy"}
    config = build_config(
        {
            **given,
            "run_dir": str(folder),
            "duplicates": as_mapping(config.duplicates),
            "scoring": {"scorer": RANDOM, "seed": 10_000 * group.seed + number},
            "selection": {"keep_ratio": settings["share"]},
            "training": {**config.training, "max_steps": settings["max_steps"]},
        }
    )
    done = read_done(marker, config)
    if done is not None:
        return done
    made_with = identity(config)
    for stage in ("score", "select", "train"):
        start_stage(config, stage)
    loss = anchor_loss(config)
    if not math.isfinite(loss):
        raise ModelError(f"the anchors' loss after training on subset {number} is {loss}: lower training.learning_rate")
    outcome = {"rows": _kept_rows(config), "loss": loss}
    shutil.rmtree(folder)
    folder.mkdir()
    write_done(marker, config, made_with, outcome)
    return outcome


def anchor_loss(config: RunConfig) -> float:
    """The mean over the anchors of the fine-tuned target's loss, in nats per supervised token."""
    from ost_hf.data.anchors import load_anchors
    from ost_hf.data.encoding import Encoder
    from ost_hf.data.encoding.dataset import EncodedDataset
    from ost_hf.models import load_model, load_processing_class
    from ost_hf.parallel import state
    from ost_hf.scorers.inputs import mean_anchor_loss

    assert config.target is not None and config.anchors is not None
    target = replace(config.target, model=str(config.folder / "target"), revision=None)
    encoder = Encoder(load_processing_class(config.target), config.encoding)
    anchors = EncodedDataset(load_anchors(config.anchors), encoder)
    return mean_anchor_loss(load_model(target).to(state().device).eval(), anchors)


def _predictors(config: RunConfig) -> dict[str, np.ndarray]:
    """Columns of a method's score table by row of the pool, more meaning better."""
    from ost_hf.tables.score_table import ScoreTable

    table = ScoreTable(config.folder / "scores").read(columns=["row", *_PREDICTORS])
    rows = table["row"].to_numpy()
    found = {}
    for column, sign in _PREDICTORS.items():
        if column in table.column_names:
            found[column] = np.full(len(table), np.nan)
            found[column][rows] = sign * table[column].to_numpy()
    return found


def _kept_rows(config: RunConfig) -> list[int]:
    from ost_hf.selection.kept import read_selection

    table = read_selection(config.folder).table
    return [row for row, kept in zip(table["row"].to_pylist(), table["kept"].to_pylist(), strict=True) if kept]
