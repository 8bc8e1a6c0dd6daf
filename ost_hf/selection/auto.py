"""The order `auto`: rows that are as clean as the anchors and of their kind first; of too many of them a draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ost_hf.errors import DataError
from ost_hf.evidence.contamination import Evidence, contamination_evidence
from ost_hf.selection.candidates import Candidates, Floats, Order, Places, best_first, take

# `auto`: rows with a p-value above this count as clean as the anchors: the rest of the difference is how easy a row is,
# and easy rows teach little (see `hard_draw`). Chosen on development seeds.
AS_CLEAN = 0.2

UNKNOWN_ANCHORS = (
    "the table does not say how many anchors its column corrupted_p was made with: keep a score table's column "
    "p_value_anchors, or add it with that number in every row"
)


def auto(candidates: Candidates) -> Order:
    """What can be measured decides: as clean as the anchors first; of too many of them a draw.

    Raises:
        DataError: Where it is not known how many anchors p-values were made with.
    """
    p, late, pool_p = candidates.corrupted_p, candidates.late_loss, candidates.pool_p
    if p is None or late is None or pool_p is None or np.isnan(p).all():
        order = take(candidates, best_first(candidates.utility), "highest utility first")
        looked = pool_p is not None and not np.isnan(pool_p).all()
        why = "none of the rows that may be kept had a second look" if looked else "there was no second look"
        return Order(order.kept, order.others, f"{order.explanation} ({why})")
    if candidates.p_value_anchors is None:
        raise DataError(UNKNOWN_ANCHORS)
    found = contamination_evidence(pool_p, candidates.p_value_anchors)
    clean = as_clean_as_anchors(p, found)
    first = _among(candidates, clean, found)
    room = candidates.room - np.bincount(candidates.stratum[first.kept], minlength=len(candidates.room))
    doubtful = np.setdiff1d(np.arange(len(p)), clean)
    # Rows without a second look come after all that have one.
    unseen_last = np.nan_to_num(p[doubtful], nan=-1.0)
    doubtful = doubtful[np.lexsort((doubtful, late[doubtful], -unseen_last))]
    quota = candidates.quota - len(first.kept)
    more = take(replace(candidates, quota=quota, room=room), doubtful, "")
    others = np.concatenate([first.others, more.others])
    # Where all of them have room, their order decides nothing.
    explanation = _in_words(found, len(clean), len(p))
    if len(clean):
        explanation += f"; {'all of them are kept' if len(first.kept) == len(clean) else first.explanation}"
    if len(more.kept):
        explanation += f"; {len(more.kept)} rows that look less clean fill the quota, the cleanest of them first"
    if np.isnan(p).any():
        explanation += f"; {np.isnan(p).sum()} rows had no second look and come last"
    return Order(np.concatenate([first.kept, more.kept]), others, explanation)


def as_clean_as_anchors(p: Floats, found: Evidence) -> Places:
    """The places of rows whose p-values are above what is doubtful.

    Args:
        p: P-values of the candidates; NaN where there is none, which is never clean.
        found: Evidence of the whole pool.
    """
    return np.flatnonzero(p > _doubtful_up_to(found))


def _doubtful_up_to(found: Evidence) -> float:
    """P-values up to this are not taken for a clean row's.

    Where part of the pool is corrupted, corrupted rows have p-values above the small ones too. Where none is found,
    most rows with small ones are no noise; but few corrupted rows do not show in the evidence, and would be the first
    that a draw of hard rows takes. With so few anchors that nothing could be found, a small p-value is a clean row's
    as often as not: to set those back would take the hard rows of a clean pool away.
    """
    if found.says_nothing:
        return 0.0
    # With three anchors the smallest p-value there is lies above the usual 0.2.
    return max(AS_CLEAN, found.level) if found.corrupted else found.level


def _in_words(found: Evidence, clean: int, of: int) -> str:
    if found.says_nothing:
        return f"so few anchors or rows cannot show corruption: all {clean} of {of} rows that have a p-value come first"
    verdict = "part of it looks corrupted" if found.corrupted else "no corruption was found"
    return (
        f"{found.share:.1%} of the rows have a p-value of at most {found.level:.2g}, chance gives up to "
        f"{found.critical_share:.1%}; the mean p-value is {found.mean:.2f}, chance gives at least "
        f"{found.critical_mean:.2f}: {verdict}, and {clean} of {of} rows as clean as the anchors "
        f"(p > {_doubtful_up_to(found):.2g}) come first"
    )


def _among(candidates: Candidates, places: Places, found: Evidence) -> Order:
    """Rows that look clean and do not all have room: a draw, hard rows more often unless many may only look clean."""
    assert candidates.late_loss is not None
    if found.says_nothing:
        order = np.random.default_rng(candidates.seed).permutation(places)
        explanation = "drawn from these, all alike: nothing tells whether the hardest of them are hard or corrupted"
    elif found.hardly_told_apart:
        order = np.random.default_rng(candidates.seed).permutation(places)
        explanation = (
            f"drawn from these, all alike: at most {found.power:.0%} of what is corrupted was told apart, and the "
            "hardest rows that look clean may be the rest of it"
        )
    else:
        order = places[hard_draw(candidates.late_loss[places], candidates.seed)]
        explanation = "drawn from these, the likelier the higher a row's late loss"
    return take(candidates, order, explanation)


def hard_draw(loss: Floats, seed: int) -> Places:
    """A random order of rows, each next one drawn from those left with probability proportional to exp(z).

    z is the loss in standard deviations from its mean. Drawn by the Gumbel-top-k trick (Kool et al. 2019, 1903.06059).
    On development seeds of a clean pool such a half trained better than a uniform one, and than the hardest half;
    halves by utility, or set-wise, trained far worse: they are of easy rows.

    Args:
        loss: ``[N]``, finite.
        seed: Of the draw.
    """
    spread = loss.std() if len(loss) else 0.0
    z = (loss - loss.mean()) / spread if spread > 0 else np.zeros(len(loss))
    return best_first(z + np.random.default_rng(seed).gumbel(size=len(loss)))
