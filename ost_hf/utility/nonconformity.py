"""How unlike clean rows a row is: what two looks say of it, as one number.

With l a row's late loss, u its one-step utility and s_l, s_u the standard deviations of √l and u among clean rows:

    a_w = (1 - w) √l / s_l - w u / s_u

Both terms are then in standard deviations of clean rows, and the weight w leads from one look to the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def nonconformity(
    late_loss: ArrayLike,
    utility: ArrayLike,
    clean_late_loss: ArrayLike,
    clean_utility: ArrayLike | None,
    weight: float,
) -> tuple[Floats, Floats]:
    """The number a_w, times s_l s_u > 0 or s_l, of rows and of the clean ones that they are held against.

    Args:
        late_loss: [N], not negative.
        utility: [N].
        clean_late_loss: [M].
        clean_utility: [M]; may be ``None`` with weight 0, which does not look at utilities.
        weight: w, between 0 and 1.

    Returns:
        [N] and [M]; higher is less like a clean row. The scale is free: they are for ranking.
    """
    root, clean_root = (np.sqrt(np.asarray(each, dtype=np.float64)) for each in (late_loss, clean_late_loss))
    if weight == 0:
        return root, clean_root
    of_rows, of_clean = (np.asarray(each, dtype=np.float64) for each in (utility, clean_utility))
    # Times s_l s_u, nothing is divided by a spread of zero.
    by_loss, by_utility = (1 - weight) * of_clean.std(), weight * clean_root.std()
    return by_loss * root - by_utility * of_rows, by_loss * clean_root - by_utility * of_clean
