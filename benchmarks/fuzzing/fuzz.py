"""Fuzz the readers and the server for a given time: bad input must give a clear error, no more.

    python benchmarks/fuzzing/fuzz.py loaders --minutes 5  # training files, changed at random
    python benchmarks/fuzzing/fuzz.py folders --minutes 5  # evaluation sets in the BEIR layout
    python benchmarks/fuzzing/fuzz.py recipes --minutes 5  # recipes, and every key's values
    python benchmarks/fuzzing/fuzz.py loaders --atheris   # led by coverage (the extra fuzz)
    python benchmarks/fuzzing/fuzz.py server --minutes 5  # schemathesis, then bodies at random

Reports how many inputs were read, refused and so on. A finding is an error other than
``ValueError`` (for a recipe, also one of several lines), more than ``--seconds`` for one input, or
more memory than ``--gigabytes``; its input is kept in ``--findings``. Exits 1 if there is one.
"""

import argparse
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from datasets import disable_progress_bars

from benchmarks.fuzzing.fuzz_rows import read_rows
from benchmarks.fuzzing.hostile import BOMB, RECIPE, VALUES, Mutator, seeds
from common.flags import merge
from common.recipe import read_recipe
from trainers import TandemArguments, parse_run

ROOT = Path(__file__).resolve().parents[2]
Target = Callable[[str, bytes], None]


class Hang(Exception):
    """An input that took too long."""


class Campaign:
    """Inputs to a target, and what became of them.

    Args:
        args: The command's.
        scratch: For files.
    """

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        self.args, self.scratch = args, scratch
        self.outcomes: Counter[str] = Counter()
        self.findings: dict[str, str] = {}
        self.slowest = 0.0
        self.begun = time.perf_counter()

    def over(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() - self.begun > 60 * self.args.minutes

    def put(self, ending: str, data: bytes, target: Target) -> None:
        """Give one input to a target, and count what became of it."""
        begun = time.perf_counter()
        try:
            with within(self.args.seconds):
                target(ending, data)
        except ValueError as error:
            self.outcomes["refused"] += 1
            if not str(error) or (ending.startswith(".recipe") and "\n" in str(error)):
                self.note(ending, data, error)
        except (Exception, SystemExit) as error:
            self.outcomes["FINDING"] += 1
            self.note(ending, data, error)
        else:
            self.outcomes["taken"] += 1
        self.slowest = max(self.slowest, time.perf_counter() - begun)

    def note(self, ending: str, data: bytes, error: BaseException) -> None:
        """Keep the first input of each kind of finding."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)][-1]
        kind = f"{type(error).__name__} in {Path(ours.filename).name}:{ours.name}"
        if kind not in self.findings:
            self.findings[kind] = " ".join(str(error).split())[:200]
            name = f"{len(self.findings)}{ending.replace('/', '-')}"
            (self.args.findings / name).write_bytes(data)
            print(f"{name}: {kind}: {self.findings[kind]}", flush=True)

    def report(self) -> int:
        """The outcome; 1 if anything was found."""
        seconds = time.perf_counter() - self.begun
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        told = ", ".join(f"{count:,} {name}" for name, count in self.outcomes.most_common())
        print(
            f"{self.args.what}: {self.outcomes.total():,} inputs in {seconds:.0f} s ({told}); "
            f"slowest {self.slowest:.2f} s, memory at most {most:.2f} GiB, "
            f"{len(self.findings)} kinds of finding"
        )
        return 1 if self.findings else 0


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise ``Hang`` where Python's code takes longer."""

    def ring(*_: object) -> None:
        raise Hang(f"longer than {seconds} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def read_settings(scratch: Path, whole: bool = False) -> Target:
    """Read a recipe as scripts/train.py does, up to the values of its keys, or the whole of it."""

    def target(ending: str, data: bytes) -> None:
        file = scratch / f"input{ending}"
        file.write_bytes(data)
        if whole:
            parse_run(["--config", str(file)])
        else:
            merge(TandemArguments, read_recipe(file), {})

    return target


def one_key(draw: random.Random) -> bytes:
    """A good recipe with one or two keys of any name and a value of the right kind, or any."""
    hints = get_type_hints(TandemArguments)
    recipe: dict[str, Any] = dict(RECIPE)
    words = ["\ud800", "", "no", "steps", "epoch", "auto", "a b", "..", "/nowhere", "\x00", "长"]
    words += ["-1", "fp8"]
    numbers = [0, 1, -1, 2, 0.5, -0.5, 1e30, 2**31, 2**63, 2**80, 1e-30]
    values: list[Any] = [*words, *numbers, True, False, None, [], {}, ["a"], [1], {"a": 1}]
    for _ in range(draw.randint(1, 2)):
        name, value = draw.choice(list(hints)), draw.choice(values)
        hint = str(hints[name])
        if draw.random() < 0.8:  # of the right kind, so that it comes through
            fitting = [v for v in values if v is not None and type(v).__name__ in hint]
            value = draw.choice(fitting or values)
        recipe[name] = value
    return json.dumps(recipe).encode()


def at_random(campaign: Campaign, what: str) -> None:
    """Run a target on seeds that are changed at random."""
    draw = random.Random(campaign.args.seed)
    mutator = Mutator(campaign.args.seed)
    recipes = what == "recipes"
    target = (read_settings if recipes else read_rows)(campaign.scratch)
    whole = read_settings(campaign.scratch, whole=True)
    files = {end: found for end, found in seeds().items() if end.startswith(".recipe") == recipes}
    for ending, found in files.items():
        for data in found:
            campaign.put(ending, data, target)
    while not campaign.over():
        if recipes and draw.random() < 0.3:
            campaign.put(".recipe.json", one_key(draw), whole)
            continue
        ending = draw.choice(list(files))
        campaign.put(ending, mutator.change(draw.choice(files[ending])), target)


def by_coverage(campaign: Campaign, what: str) -> None:
    """libFuzzer, led by which branches of ours an input reaches; the first byte is the format."""
    import atheris

    recipes = what == "recipes"
    target = (read_settings if recipes else read_rows)(campaign.scratch)
    endings = [end for end in seeds() if end.startswith(".recipe") == recipes]
    corpus = campaign.scratch / "corpus"
    corpus.mkdir()
    for at, ending in enumerate(endings):
        for number, data in enumerate(seeds()[ending]):
            (corpus / f"{at}-{number}").write_bytes(bytes([at]) + data)
    dictionary = campaign.scratch / "dictionary"
    dictionary.write_text(
        "".join(
            '"' + "".join(f"\\x{byte:02x}" for byte in piece.encode("utf-8", "replace")) + '"\n'
            for piece in [*(value for value in VALUES if len(value) < 60), BOMB[:50]]
        )
    )

    def one(data: bytes) -> None:
        if data:
            campaign.put(endings[data[0] % len(endings)], data[1:], target)
        if campaign.over():
            status = campaign.report()
            sys.stdout.flush()
            os._exit(status)  # libFuzzer takes another end for a finding of its own

    names = ("loaders.", "common.")
    for name, module in list(sys.modules.items()):
        if name.startswith(names):
            for item in vars(module).values():
                if callable(item) and getattr(item, "__module__", "") == name:
                    _instrument(atheris, item)
    flags = ["-timeout=60", "-rss_limit_mb=0", "-max_len=20000", f"-dict={dictionary}"]
    atheris.Setup([sys.argv[0], *flags, f"-seed={campaign.args.seed + 1}", str(corpus)], one)
    atheris.Fuzz()


def _instrument(atheris: Any, item: Any) -> None:
    functions = vars(item).values() if isinstance(item, type) else [item]
    for function in functions:
        if hasattr(function, "__code__"):
            atheris.instrument_func(function)


def main() -> int:
    """Fuzz, and print each kind of finding and the outcome in a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=["loaders", "folders", "recipes", "server"])
    add("--minutes", type=float, default=5.0)
    add("--seed", type=int, default=0)
    add("--seconds", type=float, default=20.0, help="for one input")
    add("--gigabytes", type=float, default=8.0, help="of address space")
    add("--findings", type=Path, default=Path("outputs/fuzz"))
    add("--atheris", action="store_true")
    args = parser.parse_args()
    args.findings.mkdir(parents=True, exist_ok=True)
    if args.what == "server":
        from benchmarks.fuzzing.fuzz_server import fuzz_server

        return fuzz_server(args)
    resource.setrlimit(resource.RLIMIT_AS, (int(args.gigabytes * 2**30), resource.RLIM_INFINITY))
    logging.disable(logging.CRITICAL)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        campaign = Campaign(args, Path(scratch))
        if args.what == "folders":
            from benchmarks.fuzzing.fuzz_folders import fuzz_folders

            fuzz_folders(campaign)
        elif args.atheris:
            by_coverage(campaign, args.what)
        else:
            at_random(campaign, args.what)
        return campaign.report()


if __name__ == "__main__":
    sys.exit(main())
