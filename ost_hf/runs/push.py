"""``ost-hf push``: the curated dataset to the Hub."""

from __future__ import annotations

import logging

from ost_hf.runs.config import RunConfig
from ost_hf.errors import OSTError

logger = logging.getLogger(__name__)


def run(config: RunConfig) -> None:
    """Pushes kept rows, score table and card of a run directory.

    Raises:
        OSTError: If the Hub cannot be reached or refuses.
    """
    from huggingface_hub import errors

    from ost_hf.data.rows import Rows
    from ost_hf.hub.push import push_curated
    from ost_hf.parallel import barrier, is_main
    from ost_hf.tables.score_table import ScoreTable
    from ost_hf.selection.selector import read_selection

    config.require("pool", "hub")
    assert config.pool is not None and config.hub is not None
    table = ScoreTable(config.folder / "scores")
    scores, selection = table.read(), read_selection(config.folder)
    if is_main():
        pool = Rows.load(config.pool)
        # Of whose client a lost connection's error is depends on the Hub library's release; its own are derived of it.
        network = errors.HfHubHTTPError.__bases__[0]
        try:
            name = push_curated(pool, scores, selection, table.manifest(), config.hub)
        except errors.HFValidationError as error:
            raise OSTError(f"hub.repo_id {config.hub.repo_id!r} is no name on the Hub: {error}") from error
        except (network, errors.LocalTokenNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise OSTError(
                f"the push to {config.hub.repo_id} failed: {error}. Is the Hub in reach, and a token that may write?"
            ) from error
        logger.info("pushed %d kept rows and %d scores to %s", sum(selection["kept"].to_pylist()), len(scores), name)
    barrier()
