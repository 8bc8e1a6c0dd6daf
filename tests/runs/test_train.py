"""What is refused before the target is trained."""

from __future__ import annotations

import pytest

from ost_hf.errors import ConfigError
from ost_hf.runs.train import check_devices


def test_one_process_trains_on_one_device() -> None:
    for visible in (0, 1):
        check_devices(visible)
    with pytest.raises(ConfigError, match=r"3 devices are visible to one process.*DataParallel.*batch by 3.*=0\)"):
        check_devices(3)
