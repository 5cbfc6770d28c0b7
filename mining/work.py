"""What a run has done already: its working folder, found again after a kill, and mined blocks."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from common.hashing import source_code
from loaders.formats.row_file import write_lines
from mining.miner import Mined, Miner
from mining.picker import Candidate

# Letters: Q queries.

_BLOCKS = 16
_SMALLEST, _LARGEST = 256, 2048


@contextmanager
def work_folder(cache_dir: Path, identity: Any) -> Iterator[Path]:
    """Enter the folder of one run, the same for all its processes; it is removed at the end.

    Args:
        cache_dir: Where runs have their folders.
        identity: All that decides about the run; a run that was killed is known by it again.

    Raises:
        ValueError: The same run is at work already.
    """
    digest = hashlib.blake2b(json.dumps(identity, default=str).encode(), digest_size=16)
    for code in source_code(Path(__file__).parent):
        digest.update(code)
    folder = cache_dir / "runs" / digest.hexdigest()
    if not PartialState().is_main_process:
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError("the same run is already in progress; wait for it or stop it") from None
    with lock:
        yield folder
        shutil.rmtree(folder)
    Path(f"{folder}.lock").unlink(missing_ok=True)


class Blocks:
    """Results for Q queries: one file a block, which appears when it is complete.

    How large a block is depends on Q alone. So a block is the same for any number of processes.

    Args:
        folder: Where the files are; of this run alone.
        queries: Q.
    """

    def __init__(self, folder: Path, queries: int) -> None:
        self.folder = folder
        self.queries = queries
        self.size = max(_SMALLEST, min(_LARGEST, queries // _BLOCKS))
        self.ends_of_lines = cache(self._ends_of_lines)  # 8 bytes for each query

    def mine(self, miner: Miner, show_progress: bool) -> None:
        """Mine the missing blocks; collective: all processes of a run call it."""
        state = PartialState()
        self.folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, self.queries, self.size)[state.process_index :: state.num_processes]
        own = sum(self._stop(start) - start for start in starts)
        with tqdm(total=own, desc="mining queries", disable=not show_progress) as bar:
            for start in starts:
                if not self._file(start).exists():
                    mined = miner.mine(start, self._stop(start))
                    write_lines(self._file(start), map(json.dumps, mined))
                bar.update(self._stop(start) - start)
        state.wait_for_everyone()

    def __getitem__(self, query: int) -> Mined:
        """Return the result of a query."""
        start, line = query - query % self.size, query % self.size
        with self._file(start).open("rb") as file:
            file.seek(int(self.ends_of_lines(start)[line - 1]) if line else 0)
            return _mined(file.readline())

    def __iter__(self) -> Iterator[Mined]:
        for start in range(0, self.queries, self.size):
            with self._file(start).open("rb") as file:
                yield from map(_mined, file)

    def _stop(self, start: int) -> int:
        return min(start + self.size, self.queries)

    def _file(self, start: int) -> Path:
        return self.folder / f"block-{start:09}.jsonl"

    def _ends_of_lines(self, start: int) -> NDArray[np.int64]:
        with self._file(start).open("rb") as file:
            return np.cumsum([len(line) for line in file])


def _mined(line: bytes) -> Mined:
    negatives, positives, *others = json.loads(line)
    negatives, positives = ([Candidate(*each) for each in side] for side in (negatives, positives))
    return Mined(negatives, positives, *others)
