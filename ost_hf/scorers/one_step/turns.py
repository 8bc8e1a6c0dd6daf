"""The loss and the utility of each turn, as if the row had labels there alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.functional.loss import IGNORE_INDEX
from ost_hf.functional.turns import split_turns

# What the scorer gives where `scoring.per_turn` is set.
COLUMNS = ("turn_losses", "turn_utilities")


def of_turns(
    batch: Sequence[Encoded],
    columns: dict[str, Tensor],
    estimate: Callable[[list[Features], Tensor], tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """Losses and utilities of the turns of a batch of rows.

    Args:
        batch: B rows.
        columns: Those of the rows: ``loss`` and ``utility`` ``[B]``. A row of one turn is not estimated again.
        estimate: Loss and utility of rows, given their features and how many supervised tokens each has. It is called
            once for each turn, of all rows that have it and another.

    Returns:
        ``[B, K]`` each, with NaN behind a row's last turn.
    """
    features = [row.features for row in batch if row.features is not None]
    turns = [split_turns(row["labels"]) for row in features]
    loss_BK, utility_BK = (
        torch.full((len(batch), max(1, *map(len, turns), 1)), torch.nan, dtype=torch.float64) for _ in COLUMNS
    )
    loss_BK[:, 0], utility_BK[:, 0] = columns["loss"].double(), columns["utility"].double()
    for number in range(loss_BK.shape[1]):
        places = [place for place, labels in enumerate(turns) if len(labels) > max(1, number)]
        if not places:
            break
        rows = [{**features[place], "labels": turns[place][number]} for place in places]
        tokens = torch.tensor([int((row["labels"][1:] != IGNORE_INDEX).sum()) for row in rows])
        loss, utility = estimate(rows, tokens)
        loss_BK[places, number], utility_BK[places, number] = loss.double(), utility.double()
    return dict(zip(COLUMNS, (loss_BK, utility_BK), strict=True))
