"""Which rows a proxy of the second look learns from: those that the look before did not find corrupted."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.evidence.conformal import conformal_p, small_up_to
from ost_hf.evidence.nonconformity import differ, nonconformity
from ost_hf.scoring.second_look.options import SecondLookOptions

logger = logging.getLogger(__name__)

# Where next to nothing looks clean (anchors that are not like the pool), this share of the rows is learnt from all the
# same: what passed, and the next.
_LEAST_SHARE = 0.1
# A round before the last asks about this many times the rows that the next round can take steps on: half of a pool may
# be corrupted.
_CHOICE = 1.5
# A tenth of a pool, or so many rows where that is more, up to a quarter: with a hundred anchors, three hundred rows say
# nearly as much of a pool as thousands, since there are fewer anchors.
_HELD_OUT = 0.1
_ENOUGH_HELD_OUT = 300
_MOST_HELD_OUT = 0.25


def anchor_utilities(scores: pa.Table | None) -> np.ndarray | None:
    """The anchors' one-step utilities [V], each against the others; ``None`` where there are none, or all are alike.

    Only ``mean_cosine`` has them, and one or two anchors have none that differ.
    """
    if scores is None or scores["utility"].null_count or not differ(scores["utility"].to_numpy()):
        return None
    return scores["utility"].to_numpy()


def utilities_and_weight(anchor_scores: pa.Table | None, options: SecondLookOptions) -> tuple[np.ndarray | None, float]:
    """The anchors' utilities [V], and how much utilities weigh in p-values: not at all where the anchors have none."""
    anchor_utility = anchor_utilities(anchor_scores)
    weight = options.utility_weight if anchor_utility is not None else 0.0
    if weight != options.utility_weight:
        logger.info("second look: p-values go by late losses alone, for there are no utilities of anchors that differ")
    return anchor_utility, weight


def learnt_first(rows: pa.Table, anchor_scores: pa.Table | None, options: SecondLookOptions) -> list[int]:
    """What a proxy of the first round learns from."""
    if options.learn_from == "highest_utility":
        return best_rows(rows, options.share)
    if anchor_scores is None:
        logger.info("second look: the first look has no scores of the anchors: learning from rows of high utility")
        return best_rows(rows, options.share)
    return not_corrupted(with_first_p_values(rows, anchor_scores, options.first_utility_weight)) if len(rows) else []


def with_first_p_values(rows: pa.Table, anchor_scores: pa.Table, weight: float) -> pa.Table:
    """Adds ``p_value`` and ``found_corrupted`` by the first look's loss and utility.

    The two err differently: a low loss alone would choose what the proxy knows already, and corruption in its own
    words; on development seeds the utility found those, and the loss found the others.

    Args:
        rows: ``utility`` and ``loss``.
        anchor_scores: The anchors' own; where they have no utilities, p-values go by losses alone.
        weight: Of the utility.
    """
    utility = anchor_utilities(anchor_scores)
    weight = 0.0 if utility is None else weight
    of_rows, of_anchors = nonconformity(rows["loss"], rows["utility"], anchor_scores["loss"], utility, weight)
    p_values = conformal_p(of_rows, of_anchors)
    found = pa.array(p_values <= small_up_to(len(anchor_scores)))
    return rows.append_column("p_value", pa.array(p_values)).append_column("found_corrupted", found)


def best_rows(rows: pa.Table, share: float) -> list[int]:
    """The rows of highest one-step utility, best first.

    Args:
        rows: ``row``, ``example_id`` and ``utility`` of N rows.
        share: At least one row is taken where there is one.
    """
    ordered = rows.sort_by([("utility", "descending"), ("example_id", "ascending")])
    return ordered["row"][: max(1, round(share * len(rows)))].to_pylist()


def not_corrupted(rows: pa.Table) -> list[int]:
    """The rows that a round did not find corrupted, and at least the tenth that is most like clean ones.

    Args:
        rows: ``row``, ``example_id``, ``loss``, ``p_value``, ``found_corrupted``; those without a loss are never learnt
            from.

    Returns:
        Rows in the order of their ``example_id``: training does not depend on near ties of losses.
    """
    seen = rows.filter(pc.is_valid(rows["loss"]))
    clean = seen.filter(pc.invert(seen["found_corrupted"]))
    least = math.ceil(_LEAST_SHARE * len(seen))
    if len(clean) < least:
        order = [("p_value", "descending"), ("loss", "ascending"), ("example_id", "ascending")]
        clean = seen.sort_by(order).slice(0, least)
    return clean.sort_by("example_id")["row"].to_pylist()


def asked_in(rows: pa.Table, number: int, options: SecondLookOptions, seed: int) -> pa.Table:
    """The rows that a round asks about: all in the last, before it so many that the next has enough to learn from.

    Args:
        rows: ``learnable`` of the whole pool.
        number: Of the round, from 1.
        options: Settled for a pool.
        seed: Of the random part.

    Returns:
        Those rows, in their order.
    """
    if number == options.rounds:
        return rows
    rows = rows.filter(rows["learnable"])
    count = most_asked(len(rows), options)
    return rows.take(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))


def rows_asked(rows: int, number: int, options: SecondLookOptions) -> int:
    """How many :func:`asked_in` gives of so many."""
    return rows if number == options.rounds else most_asked(rows - count_held_out(rows, options), options)


def most_asked(learnable: int, options: SecondLookOptions) -> int:
    """About how many of the rows that can be learnt from a round before the last asks."""
    if options.max_steps is None:
        return learnable
    return min(learnable, round(_CHOICE * options.max_steps * options.batch_size))


def count_held_out(rows: int, options: SecondLookOptions) -> int:
    """How many rows of a pool no judge may learn from: none where no judge is asked about what it has learnt."""
    if options.cross_fit:
        return 0
    return round(min(_MOST_HELD_OUT * rows, max(_HELD_OUT * rows, _ENOUGH_HELD_OUT)))


def held_out(content_hashes: Sequence[str], seed: int, count: int) -> np.ndarray:
    """Which rows are held out: a choice at random that goes by the rows' contents, not by their order.

    Args:
        content_hashes: Of N rows.
        seed: Of the choice.
        count: How many.

    Returns:
        ``[N]`` of ``bool``.
    """
    digests = [held_out_digest(each, seed) for each in content_hashes]
    chosen = np.zeros(len(digests), dtype=bool)
    chosen[sorted(range(len(digests)), key=digests.__getitem__)[:count]] = True
    return chosen


def held_out_digest(content_hash: str, seed: int) -> str:
    """By what rows are held out: those of the lowest."""
    return hashlib.blake2b(f"held out {seed}:{content_hash}".encode(), digest_size=8).hexdigest()
