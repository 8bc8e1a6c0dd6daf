"""What a score table must share with a run that wants to finish it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ost_hf.errors import RunDirectoryError
from ost_hf.models import describe_weights
from ost_hf.parallel import barrier, is_main
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.settings import Section, as_mapping, name_differences
from ost_hf.tables.score_table import ScoreTable


def identity_of(request: ScoringRequest) -> Section:
    """The rows, and every setting that decides a number, as plain values that JSON gives back unchanged."""
    pool, anchors = request.pool, request.anchors
    tested = sorted(rows.fingerprint for rows in request.evaluation)
    identity: dict[str, Any] = {
        "pool": pool.fingerprint,
        "anchors": anchors.fingerprint if anchors is not None else None,
        "overlap": request.overlap,
        "duplicates": as_mapping(request.duplicates),
        "evaluation": tested if len(tested) > 1 else next(iter(tested), None),
        "scoring": request.scoring.identity(),
        "proxy": as_mapping(request.proxy),
        "encoding": request.encoding.identity(),
    }
    # Not among what rows hold, so their fingerprints do not cover it.
    of_anchors = anchors.config.system_prompt if anchors is not None else None
    if pool.config.system_prompt or of_anchors:
        identity["system_prompts"] = {"pool": pool.config.system_prompt, "anchors": of_anchors}
    if (column := request.scoring.group_by) is not None and anchors is not None:
        # Not among what a model reads: the same.
        identity["group_by_digest"] = anchors.column_digest(column)
    if hasattr(request.scoring.options, "of_pool"):
        identity["of_pool"] = request.scoring.options.of_pool(pool)
    if request.reuse is not None:
        identity["reuse"] = digest_of(ScoreTable.at(request.reuse).manifest()["identity"])
    return json.loads(json.dumps(identity))


def digest_of(identity: Section) -> str:
    """A hash of an identity: what a run is known by that was made of another."""
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=10).hexdigest()


def hold_weights(table: ScoreTable, proxy: ProxyConfig) -> None:
    """Notes in the manifest which weights the rows are scored with.

    Raises:
        RunDirectoryError: On every process, if the table's rows were scored with others.
    """
    noted = table.manifest().get("weights")
    check_weights(noted, table, proxy)
    barrier()
    if noted is None and is_main():
        table.add_to_manifest(weights=describe_weights(proxy))
    barrier()


def check_weights(noted: Section | None, table: ScoreTable, proxy: ProxyConfig) -> None:
    """Raises ``RunDirectoryError`` if ``noted`` are other weights than the proxy's."""
    differences = name_differences(noted, describe_weights(proxy), "weights") if noted is not None else []
    if differences:
        raise RunDirectoryError(
            f"{table.folder} holds scores by other weights of {proxy.model}: {'; '.join(differences)}. Go on with "
            "those, choose another run_dir, or remove its folders scores and proxy to score again"
        )


def other_settings(table: ScoreTable, scoring: ScoringConfig) -> list[str]:
    """Where a score table was made with other settings than a configuration has, one phrase each."""
    noted = table.manifest()["identity"].get("scoring")
    return name_differences(noted, json.loads(json.dumps(scoring.identity())), "scoring")
