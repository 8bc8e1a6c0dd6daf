"""The proxy of a run: made and warmed up once, or taken over from an earlier run; then kept in the run directory."""

from __future__ import annotations

import json
import logging

from ost_hf.data.collator import Collator
from ost_hf.errors import RunDirectoryError
from ost_hf.files import copy_whole
from ost_hf.models import describe_weights
from ost_hf.parallel import barrier, is_main, state
from ost_hf.proxy.model import Proxy, build_proxy, check_gradients, load_proxy, read_origin, save_proxy
from ost_hf.proxy.warmup import warm_up
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.passes import ADAPTER_UPDATE
from ost_hf.scoring.tally import apart, count, counted
from ost_hf.settings import Section, as_mapping, name_differences

logger = logging.getLogger(__name__)


def check_stored(job: ScoringJob) -> bool:
    """Whether there is a stored proxy of this run.

    Raises:
        RunDirectoryError: If it was made of another pool, of other weights or with other settings.
    """
    folder = job.folder / "proxy"
    if not (folder / "proxy.json").exists():
        return False
    # A proxy that was taken over was warmed up on the pool of before.
    wanted = _origin(job) if job.reuse is None else read_origin(job.reuse.folder / "proxy")
    differences = name_differences(read_origin(folder), wanted)
    if differences:
        raise RunDirectoryError(
            f"{folder} holds a proxy of another run: {'; '.join(differences)}. "
            "Choose another run_dir, or remove the folder to make the proxy again"
        )
    return True


def _origin(job: ScoringJob) -> Section:
    """What decides what a proxy becomes, as plain values that JSON gives back unchanged."""
    pool, prompt = job.pool, job.pool.rows.config.system_prompt
    said = {
        "proxy": as_mapping(job.proxy),
        "weights": describe_weights(job.proxy),
        "pool": pool.rows.fingerprint,
        "encoding": pool.encoder.config.identity(),
        "excluded_rows": sorted(job.exclude),
        **({"system_prompt": prompt} if prompt else {}),
    }
    return json.loads(json.dumps(said))


def prepare_proxy(job: ScoringJob) -> Proxy:
    """The stored proxy of this run, or that of the run that it reuses, or a new one, warmed up and stored.

    Raises:
        RunDirectoryError: As :func:`check_stored` does.
    """
    folder, config, pool = job.folder / "proxy", job.proxy, job.pool
    stored = check_stored(job)
    barrier()
    if job.reuse is not None and not stored:
        if is_main():
            copy_whole(job.reuse.folder / "proxy", folder)
        barrier()
        stored = True
    if stored:
        proxy = load_proxy(folder)
        # By the doctor, or by a run that ended before its first row; one that was taken over has cost this run nothing.
        if job.reuse is None and not counted("warm_up"):
            _count_warm_up(proxy)
        return proxy
    proxy = build_proxy(config)
    first = next((row for row in map(pool.encode, range(len(pool))) if row.features is not None), None)
    if first is not None and first.features is not None:
        sample = Collator.of(proxy.processing_class)([first.features])
        with apart("trial_batches"):
            check_gradients(proxy, {key: value.to(state().device) for key, value in sample.items()})
            count(ADAPTER_UPDATE)
    with apart("warm_up"):
        warm_up(proxy, pool, set(job.exclude))
    _count_warm_up(proxy)
    if is_main():
        save_proxy(proxy, folder, _origin(job))
        logger.info("proxy: %s", proxy.report())
    barrier()
    return proxy


def _count_warm_up(proxy: Proxy) -> None:
    """Counts the warm-up that a proxy has had; the processes shared its rows, so one of them counts."""
    if is_main() and proxy.adam is not None:
        steps = proxy.adam.step
        with apart("warm_up"):
            count(ADAPTER_UPDATE * proxy.config.warmup_batch_size * steps, trainings=1, steps=steps)
