"""Run one script after the other in the processes of one launch, each as if it alone were started.

accelerate launch ... tests/helpers/launched_scripts.py '["scripts/evaluate.py", "--data", ...]' ...
"""

import gc
import json
import os
import runpy
import sys

from accelerate import PartialState

if __name__ == "__main__":
    os.environ["FORK_LAUNCHED"] = "1"  # accelerate then leaves the processes' group to the next one
    gc.freeze()  # as in conftest.py
    commands = [json.loads(word) for word in sys.argv[1:]]
    for at, command in enumerate(commands, 1):
        if at == len(commands) > 1:
            PartialState().fork_launched = False  # the last one ends as it does by itself
        sys.argv = command
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
