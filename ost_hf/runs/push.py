"""The push stage: the curated dataset to the Hub."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ost_hf.errors import OSTError
from ost_hf.runs.config import RunConfig

logger = logging.getLogger(__name__)


def check(config: RunConfig) -> None:
    """Raises ``ConfigError`` if a section is missing."""
    config.require("pool", "hub")


def prepare(config: RunConfig) -> Callable[[], None]:
    """Reads kept rows, score table and selection."""
    from ost_hf.data.rows import Rows
    from ost_hf.parallel import barrier, is_main
    from ost_hf.tables.score_table import ScoreTable
    from ost_hf.training.plan import read_selection

    config.require("pool", "hub")
    assert config.pool is not None and config.hub is not None
    hub = config.hub
    scores, selection = ScoreTable(config.folder / "scores"), read_selection(config.folder)
    table = scores.read()
    pool = Rows.load(config.pool) if is_main() else None

    def work() -> None:
        if pool is not None:
            name = _push(pool, scores, selection, hub)
            logger.info("pushed %d kept rows and %d scores to %s", selection.kept_count, len(table), name)
        barrier()

    return work


def _push(pool, scores, selection, hub):  # type: ignore[no-untyped-def]
    """Pushes, and gives the repository's name; the Hub's many errors are made one that says what to do."""
    from huggingface_hub import errors

    from ost_hf.hub.push import push_curated

    # Of whose client a lost connection's error is depends on the Hub library's release; its own are derived of it.
    network = errors.HfHubHTTPError.__bases__[0]
    try:
        return push_curated(pool, scores, selection, hub)
    except errors.HFValidationError as error:
        raise OSTError(f"hub.repo_id {hub.repo_id!r} is no name on the Hub: {error}") from error
    except (network, errors.LocalTokenNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise OSTError(
            f"the push to {hub.repo_id} failed: {error}. Is the Hub in reach, and a token that may write?"
        ) from error
