"""What a row's ``status`` says in the tables: scored, or why not."""

from __future__ import annotations

OK = "ok"
# Cut to the length limit, and scored as it is then.
TRUNCATED = "truncated"

# The row itself cannot be used.
TOO_LONG = "too_long"
NO_LABELS = "no_labels"
BAD_IMAGE = "bad_image"
BAD_ROW = "bad_row"

# It could, and there is no number all the same.
NON_FINITE = "non_finite"
OUT_OF_MEMORY = "out_of_memory"
OF_UNUSABLE = (TOO_LONG, NO_LABELS, BAD_IMAGE, BAD_ROW, NON_FINITE, OUT_OF_MEMORY)

# It repeats something. Such rows are no part of the pool of which a share is kept.
ANCHOR_OVERLAP, EVALUATION_OVERLAP, DUPLICATE = COPY_STATUSES = ("anchor_overlap", "evaluation_overlap", "duplicate")
