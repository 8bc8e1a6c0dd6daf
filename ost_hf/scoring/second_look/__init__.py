"""A second look at every row, by proxies that have learnt from what the first look found."""

from __future__ import annotations

from typing import Any

from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.scoring.second_stages import second_stage


@second_stage(
    "second_look",
    options=SecondLookOptions,
    columns=("late_loss", "corrupted_p", "p_value_anchors", "held_out", "other_kind_p"),
    turn_columns=("turn_late_losses", "turn_corrupted_p", "turn_p_value_anchors"),
)
class SecondLook:
    """The stage; what it does is told in :mod:`ost_hf.scoring.second_look.rounds`."""

    def check(self, job: Any, proxy: Any) -> None:
        """Raises ``ModelError`` where the base model's weights cannot be trained, or proxies to reuse are gone."""
        if job.reuse is not None:
            from ost_hf.scoring.second_look.again import check_kept

            check_kept(job)
            return
        from ost_hf.scoring.second_look.proxies import check_trainable

        check_trainable(proxy.model.get_base_model(), job)

    def run(self, job: Any, first: Any, build: Any) -> Any:
        """Late losses and p-values of every row."""
        from ost_hf.scoring.second_look.kinds import with_kinds
        from ost_hf.scoring.second_look.rounds import run_second_look

        return with_kinds(run_second_look(job, first), first, job)

    def again(self, job: Any, first: Any) -> Any:
        """The same of a job that reuses an earlier run, by that run's proxies."""
        from ost_hf.scoring.second_look.again import look_again
        from ost_hf.scoring.second_look.kinds import with_kinds

        return with_kinds(look_again(job, first), first, job)

    def cost(self, job: Any, rows: Any) -> Any:
        """What it would take, measured on a few rows."""
        from ost_hf.scoring.second_look.cost import measure_second_look

        return measure_second_look(job, rows)
