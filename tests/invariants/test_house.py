"""Nothing grows beyond what can be read at a sitting."""

from __future__ import annotations

import pytest
from invariants import house


@pytest.mark.parametrize("kind", house.LIMITS)
def test_nothing_is_larger_than_its_limit(kind: str) -> None:
    print("\n".join(map(str, house.largest(kind))))
    assert [count for count in house.counts() if count.kind == kind and count.number > house.LIMITS[kind]] == []
