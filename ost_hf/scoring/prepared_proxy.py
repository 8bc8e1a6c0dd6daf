"""The proxy of a run: made and warmed up once, then kept in the run directory."""

from __future__ import annotations

import json
import logging

from ost_hf.data.collator import Collator
from ost_hf.errors import RunDirectoryError
from ost_hf.models import describe_weights
from ost_hf.parallel import barrier, is_main, state
from ost_hf.proxy.model import Proxy, build_proxy, check_gradients, load_proxy, read_origin, save_proxy
from ost_hf.proxy.warmup import warm_up
from ost_hf.scoring.job import ScoringJob
from ost_hf.settings import as_mapping, name_differences

logger = logging.getLogger(__name__)


def prepare_proxy(job: ScoringJob) -> Proxy:
    """The stored proxy of this run, or a new one, warmed up and stored.

    Raises:
        RunDirectoryError: If the stored one was made of another pool, of other weights or with other settings.
    """
    folder, config, pool = job.folder / "proxy", job.proxy, job.pool
    origin = json.loads(
        json.dumps(
            {
                "proxy": as_mapping(config),
                "weights": describe_weights(config),
                "pool": pool.rows.fingerprint,
                "encoding": pool.encoder.config.identity(),
                "excluded_rows": sorted(job.exclude),
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
    warm_up(proxy, pool, set(job.exclude))
    if is_main():
        save_proxy(proxy, folder, origin)
        logger.info("proxy: %s", proxy.report())
    barrier()
    return proxy
