"""The push stage: the curated dataset to the Hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ost_hf.errors import OSTError
from ost_hf.hub.config import HubConfig
from ost_hf.runs.config import RunConfig

logger = logging.getLogger(__name__)


def check(config: RunConfig) -> None:
    """Raises ``ConfigError`` if a section is missing."""
    config.require("pool", "hub")


def prepare(config: RunConfig) -> Callable[[], None]:
    """Reads kept rows, score table and selection, and asks the Hub about the licence."""
    from ost_hf.data.rows import Rows
    from ost_hf.hub.push import check_curated, push_curated
    from ost_hf.parallel import barrier, is_main
    from ost_hf.selection.kept import read_selection
    from ost_hf.tables.score_table import ScoreTable

    config.require("pool", "hub")
    assert config.pool is not None and config.hub is not None
    hub = config.hub
    scores, selection = ScoreTable(config.folder / "scores"), read_selection(config.folder)
    pool = Rows.load(config.pool) if is_main() else None
    if pool is not None:
        with _refusals_in_a_line(hub):
            check_curated(pool, scores, selection, hub)

    def work() -> None:
        if pool is not None:
            with _refusals_in_a_line(hub):
                name = push_curated(pool, scores, selection, hub)
            logger.info("pushed %d kept rows and %d scores to %s", selection.kept_count, len(scores), name)
        barrier()

    return work


@contextmanager
def _refusals_in_a_line(hub: HubConfig) -> Iterator[None]:
    """Makes the Hub's many errors one that says what to do."""
    from huggingface_hub import errors

    # Of whose client a lost connection's error is depends on the Hub library's release; its own are derived of it.
    network = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.HFValidationError as error:
        raise OSTError(f"hub.repo_id {hub.repo_id!r} is no name on the Hub: {error}") from error
    except (network, errors.LocalTokenNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise OSTError(
            f"the push to {hub.repo_id} failed: {error}. Is the Hub in reach, and a token that may write?"
        ) from error
