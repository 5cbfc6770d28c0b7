"""Contestants that work in turns, each in a process of its own: never two at once.

So a noisy neighbour slows all of them alike. A benchmark starts itself again with ``--contestant``
for each of them.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

TANDEM = "Tandem"
THEIRS = "sentence-transformers"
# With the process settings that Tandem's scripts make and sentence-transformers does not.
TUNED = "sentence-transformers, tuned"
CONTESTANTS = [TANDEM, THEIRS, TUNED]


class Turn(NamedTuple):
    """A contestant's turn: the seconds of each piece of work, and the most MiB held so far."""

    name: str
    seconds: list[float]
    memory: float


def in_turns(names: Iterable[str], rounds: range, more: Sequence[str] = ()) -> Iterator[Turn]:
    """Start the contestants, and let them work in so many rounds; ``more`` flags go to all."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, *sys.argv, *more, "--contestant", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for name in names
    }
    for number in rounds:
        for name, process in processes.items():
            assert process.stdin and process.stdout
            process.stdin.write("go\n")
            answer = process.stdout.readline()
            if not answer:
                raise SystemExit("a contestant has ended (out of memory?): see what it printed")
            turn = Turn(name, *json.loads(answer))
            times = " ".join(f"{seconds:.2f}" for seconds in turn.seconds)
            print(f"round {number}  {name}: {times} s, {turn.memory:,.0f} MiB", flush=True)
            yield turn
    for process in processes.values():
        process.communicate()


def answer(prepare: Callable[[], Callable[[], list[float]]]) -> None:
    """A contestant's process: for each line that comes in, work, and answer with the seconds."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing but answers on the standard output
    work = prepare()
    for _ in sys.stdin:
        seconds = work()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([seconds, memory]), file=answers, flush=True)
