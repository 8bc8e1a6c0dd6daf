"""The doctor's visit to a run: what it found in ``run_dir/doctor.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ost_hf.runs.config import CONFIG_FILE, RunConfig

if TYPE_CHECKING:
    from ost_hf.doctor.diagnosis import Diagnosis


def examine_run(config: RunConfig) -> Diagnosis:
    """Examines the proxy of a run directory.

    Settings that are tried do not replace those that tables in the folder were made with.
    """
    from ost_hf.curate import request_of
    from ost_hf.data.anchors import load_anchors
    from ost_hf.data.rows import Rows
    from ost_hf.doctor.examine import diagnose

    config.require("pool", "anchors", "proxy")
    assert config.pool is not None and config.anchors is not None and config.proxy is not None
    held = config.evaluation is not None and config.duplicates.evaluation != "off"
    evaluation = (Rows.load(config.evaluation),) if held and config.evaluation is not None else ()
    sources = Rows.load(config.pool), load_anchors(config.anchors)
    diagnosis = diagnose(request_of(sources, config.proxy, config.choice, config.folder, config.encoding, evaluation))
    if not (config.folder / CONFIG_FILE).exists():
        config.write()
    return diagnosis
