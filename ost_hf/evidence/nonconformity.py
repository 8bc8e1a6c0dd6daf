"""How unlike clean rows a row is: what two looks say of it, as one number.

With l a row's late loss, u its one-step utility and s_l, s_u the standard deviations of √l and u among clean rows:

    a = (1 - w) √l / s_l - w u / s_u

Both terms are then in standard deviations of clean rows, and the weight w leads from one look to the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Standard deviations below this share of the largest number are rounding.
_NO_SPREAD = 1e-5


def nonconformity(
    late_loss: ArrayLike,
    utility: ArrayLike,
    clean_late_loss: ArrayLike,
    clean_utility: ArrayLike | None,
    weight: float,
) -> tuple[Floats, Floats]:
    """The nonconformity scores of rows and of the clean ones that they are held against.

    Args:
        late_loss: [N], not negative.
        utility: [N].
        clean_late_loss: [V].
        clean_utility: [V]; may be ``None`` with weight 0, which does not look at utilities.
        weight: w, between 0 and 1.

    Returns:
        [N] and [V]; higher is less like a clean row. They are for ranking: the scale is not that of the formula.

    Raises:
        ValueError: With a weight above 0, for clean utilities that are missing or do not differ.
    """
    root, clean_root = (np.sqrt(np.asarray(each, dtype=np.float64)) for each in (late_loss, clean_late_loss))
    if weight == 0:
        return root, clean_root
    if clean_utility is None or not differ(clean_utility):
        raise ValueError(
            f"with weight {weight:g} utilities of clean rows are needed that differ, got {clean_utility!r}"
        )
    of_rows, of_clean = (np.asarray(each, dtype=np.float64) for each in (utility, clean_utility))
    if weight == 1:
        return -of_rows, -of_clean
    # The formula times s_l s_u: late losses of clean rows that do not differ leave those of the others to decide.
    by_loss, by_utility = (1 - weight) * of_clean.std(), weight * clean_root.std()
    return by_loss * root - by_utility * of_rows, by_loss * clean_root - by_utility * of_clean


def differ(values: ArrayLike) -> bool:
    """Whether numbers have a spread that is more than rounding."""
    numbers = np.asarray(values, dtype=np.float64)
    return bool(len(numbers)) and bool(numbers.std() > _NO_SPREAD * np.abs(numbers).max())
