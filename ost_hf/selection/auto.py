"""The order `auto`: rows that are as clean as the anchors and of their kind first; of too many of them a draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ost_hf.errors import DataError
from ost_hf.evidence.contamination import Evidence, contamination_evidence
from ost_hf.evidence.two_groups import probability_that_it_holds
from ost_hf.selection.candidates import Candidates, Floats, Order, Places, best_first, take
from ost_hf.selection.kinds import Kinds

# `auto`: rows with a p-value above this count as clean as the anchors: the rest of the difference is how easy a row is,
# and easy rows teach little (see `hardness`). Chosen on development seeds.
AS_CLEAN = 0.2
# Where corruption does not count as found, evidence is weighed, in standard deviations from what chance gives: a high
# late loss counts the less in a row's favour, down to nothing at one; and from a half on a row's odds of being clean
# count, to twice the power of what is beyond. Chosen on development seeds.
_CHANCE = 0.5
_STEEPNESS = 2.0
# By how much a high late loss counts where part of the pool is corrupted and a judge may have learnt from the rows that
# it judges: less, for it tells hard rows from corrupted ones less well. Chosen on development seeds.
_OF_ONE_JUDGE = 0.5
# As likely of the anchors' kind as not.
_OF_THE_KIND = 0.5
# How much a corrupted row of the anchors' kind spoils of what a clean one teaches. Chosen on development seeds.
_HARM = 0.25
# A draw goes by this power of that probability.
_SURENESS = 3

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
    if (anchors := candidates.p_value_anchors) is None:
        raise DataError(UNKNOWN_ANCHORS)
    found = contamination_evidence(pool_p, anchors)
    kinds = candidates.kinds
    relevant = _relevant(candidates)
    fit = as_clean_as_anchors(p, found)
    fit = fit[relevant[fit] > _OF_THE_KIND]
    first = _among(candidates, fit, relevant, found)
    room = candidates.room - np.bincount(candidates.stratum[first.kept], minlength=len(candidates.room))
    doubtful = np.setdiff1d(np.arange(len(p)), fit)
    worth = _worth(p[doubtful], relevant[doubtful], pool_p, anchors)
    doubtful = doubtful[_highest_first(worth, p[doubtful], late[doubtful])]
    quota = candidates.quota - len(first.kept)
    more = take(replace(candidates, quota=quota, room=room), doubtful, "")
    others = np.concatenate([first.others, more.others])
    # Where all of them have room, their order decides nothing.
    explanation = _in_words(found, len(fit), len(p), kinds)
    if len(fit):
        explanation += f"; {'all of them are kept' if len(first.kept) == len(fit) else first.explanation}"
    if len(more.kept):
        less = "less clean" if kinds is None or not kinds.weight else "less clean, or less of the anchors' kind,"
        explanation += f"; {len(more.kept)} rows that look {less} fill the quota, the likeliest to be clean first"
    if np.isnan(p).any():
        explanation += f"; {np.isnan(p).sum()} rows had no second look and come last"
    if (warning := _unseen(found, anchors)) is not None and not found.says_nothing:
        explanation += f"; {warning}"
    return Order(np.concatenate([first.kept, more.kept]), others, explanation, warning=warning)


def likeliest(candidates: Candidates) -> Order:
    """Rows by how likely they are both clean and of the anchors' kind, without any draw.

    Raises:
        DataError: Where no row had a second look, or it is not known how many anchors p-values were made with.
    """
    p, late, pool_p, kinds = candidates.corrupted_p, candidates.late_loss, candidates.pool_p, candidates.kinds
    if p is None or late is None or pool_p is None or np.isnan(p).all():
        raise DataError("selection.order 'likeliest' goes by p-values of a second look, and there was none")
    if (anchors := candidates.p_value_anchors) is None:
        raise DataError(UNKNOWN_ANCHORS)
    mixed = " and of the anchors' kind" if kinds is not None and kinds.weight else ""
    likely = _relevant(candidates) * _clean(p, pool_p, anchors)
    order = _highest_first(likely, p, late)
    return take(candidates, order, f"the rows that are likeliest clean{mixed} first")


def _relevant(candidates: Candidates) -> Floats:
    """How likely each row is of the anchors' kind, as far as that is to count; 0 where nothing tells of a row."""
    kinds = candidates.kinds
    return np.ones(len(candidates.utility)) if kinds is None else np.nan_to_num(kinds.weighed, nan=0.0)


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


def _clean(p: Floats, pool_p: Floats, anchors: int) -> Floats:
    """How likely each row is clean; NaN without a second look."""
    seen = ~np.isnan(p)
    clean = np.full(len(p), np.nan)
    clean[seen] = probability_that_it_holds(p[seen], pool_p[~np.isnan(pool_p)], anchors)
    return clean


def _worth(p: Floats, relevant: Floats, pool_p: Floats, anchors: int) -> Floats:
    """What a doubtful row is worth: how likely it is clean and of the anchors' kind, less what it spoils if it is not.

    A clean row of another kind teaches little of the anchors' task. A corrupted row of their kind teaches it wrongly.
    """
    clean = _clean(p, pool_p, anchors)
    return relevant * clean - _HARM * (1 - clean)


def _highest_first(value: Floats, p: Floats, late: Floats) -> Places:
    """Rows by a value, then by how clean they look; those without a second look after all that have one."""
    return np.lexsort((np.arange(len(p)), late, -np.nan_to_num(p, nan=-1.0), -np.nan_to_num(value, nan=-np.inf)))


def _in_words(found: Evidence, fit: int, of: int, kinds: Kinds | None) -> str:
    mixed = kinds is not None and kinds.weight > 0
    of_kind = ", of their kind" if mixed else ""
    said = ""
    if kinds is not None and mixed:
        said = f"of the rows that look clean about {kinds.share:.0%} are of the anchors' kind; "
    if found.says_nothing:
        kind = f" and are{of_kind[1:]}" if mixed else ""
        return (
            f"{said}so few anchors or rows cannot show corruption: all {fit} of {of} rows that have a p-value{kind} "
            "come first"
        )
    verdict = "part of it looks corrupted" if found.corrupted else "no corruption was found"
    return (
        f"{said}{found.share:.1%} of the rows have a p-value of at most {found.level:.2g}, chance gives up to "
        f"{found.critical_share:.1%}; the mean p-value is {found.mean:.2f}, chance gives at least "
        f"{found.critical_mean:.2f}: {verdict}, and {fit} of {of} rows as clean as the anchors "
        f"(p > {_doubtful_up_to(found):.2g}){of_kind} come first"
    )


def _unseen(found: Evidence, anchors: int) -> str | None:
    """A warning of what could not have been found."""
    if found.corrupted:
        return None
    if found.says_nothing:
        return f"with so few anchors ({anchors}) or rows, nothing can show whether rows are corrupted: use more anchors"
    return (
        f"with {anchors} anchors, about {found.could_be_unseen:.0%} of the pool could be corrupted without showing, "
        "and more where corrupted rows look much like clean ones"
    )


def _among(candidates: Candidates, places: Places, relevant: Floats, found: Evidence) -> Order:
    """Rows that look fit and do not all have room: a draw, hard rows more often unless many may only look clean."""
    assert candidates.late_loss is not None and candidates.corrupted_p is not None
    # Of rows that are to be few, those that surely are of the anchors' kind.
    weight = _SURENESS * np.log(relevant[places])
    if found.says_nothing:
        explanation = "drawn from these, all alike: nothing tells whether the hardest of them are hard or corrupted"
    elif found.hardly_told_apart:
        explanation = (
            f"drawn from these, all alike: at most {found.power:.0%} of what is corrupted was told apart, and the "
            "hardest rows that look clean may be the rest of it"
        )
    elif found.corrupted:
        weight += (_OF_ONE_JUDGE if candidates.one_judge else 1.0) * hardness(candidates.late_loss[places])
        explanation = "drawn from these, the likelier the higher a row's late loss"
    else:
        hard = max(0.0, 1 - found.deviations)
        lean = _STEEPNESS * max(0.0, found.deviations - _CHANCE)
        weight += hard * hardness(candidates.late_loss[places])
        weight += lean * log_odds(candidates.corrupted_p[places], found.least_mean)
        explanation = (
            "drawn from these, the likelier the higher a row's late loss"
            if lean == 0
            else f"drawn from these, the likelier the cleaner a row looks, for the pool is {found.deviations:.1f} "
            "standard deviations from what chance gives"
        )
    return take(candidates, places[drawn(weight, candidates.seed)], explanation)


def log_odds(p: Floats, step: float) -> Floats:
    """Log p / (1 - p), each p-value taken for the middle of the step that it ends.

    Args:
        p: Whole multiples of ``step``, at most 1.
        step: 1 / (V + 1), with V anchors.
    """
    middle = p - step / 2
    return np.log(middle / (1 - middle))


def hardness(loss: Floats) -> Floats:
    """Losses in standard deviations from their mean.

    On development seeds of a clean pool, a half that was drawn with probability proportional to exp(hardness) trained
    better than a uniform one, and than the hardest half; halves by utility, or set-wise, trained far worse: they are of
    easy rows.
    """
    spread = loss.std() if len(loss) else 0.0
    return (loss - loss.mean()) / spread if spread > 0 else np.zeros(len(loss))


def drawn(weight: Floats, seed: int) -> Places:
    """A random order of rows, each next one drawn from those left with probability proportional to exp(weight).

    By the Gumbel-top-k trick (Kool et al. 2019, 1903.06059).

    Args:
        weight: ``[N]``.
        seed: Of the draw.
    """
    return best_first(weight + np.random.default_rng(seed).gumbel(size=len(weight)))
