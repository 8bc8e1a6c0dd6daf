"""The stand-in of the Hub, one for each file of tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hub_stand_in import HubStandIn


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    """A stand-in that serves while the tests of a file run."""
    with HubStandIn() as stand_in:
        yield stand_in
