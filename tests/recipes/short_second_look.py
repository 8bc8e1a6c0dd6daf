"""Runs a script as it is, but that the second look of strategy `auto` trains two steps in place of 150.

short_second_look.py SCRIPT WORD...
"""

import runpy
import sys
from pathlib import Path

from ost_hf.strategy import STRATEGIES

if __name__ == "__main__":
    STRATEGIES["auto"]["scoring"] |= {"second_look_min_steps": 2, "second_look_batch_size": 4}
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
