"""Cheap on all, exact where it matters: first order ranks the pool, exact steps settle the cut-off."""

from __future__ import annotations

from typing import Any

from ost_hf.scoring.cascade.options import CascadeOptions
from ost_hf.scoring.second_stages import second_stage


@second_stage("cascade", options=CascadeOptions, columns=("utility_first_order", "utility_exact"))
class Cascade:
    """The stage; what it does is told in :mod:`ost_hf.scoring.cascade.run`."""

    def run(self, job: Any, first: Any, build: Any) -> Any:
        """Utilities of every row, exact ones near the cut-off."""
        from ost_hf.scoring.cascade.run import run_cascade

        return run_cascade(job, first, build)
