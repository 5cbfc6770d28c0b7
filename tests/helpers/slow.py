"""Which tests are slow: all that start a process or a server, run a script that opens models, or
export a model; those on public data; and a few files that compute for long.

The first are found by what they call, so that none has to be marked by hand.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import pytest

# By module and name.
STARTERS = {
    ("encoders.export.graph", "export_onnx"),
    ("forked", "Copy"),
    ("forked", "copies"),
    ("forked", "together"),
    ("launching", "start"),
    ("launching", "launch_machines"),
    ("runs", "train"),
    ("scripts.evaluate", "main"),
    ("scripts.export", "main"),
    ("scripts.fuse", "main"),
    ("scripts.index", "main"),
    ("scripts.merge", "main"),
    ("scripts.mine_negatives", "main"),
    ("scripts.score_with_teacher", "main"),
    ("scripts.search_settings", "main"),
    ("scripts.train", "main"),
    ("served", "Process"),
    ("served", "replicated"),
    ("served", "running"),
    ("served", "served"),
    ("serving.engine.replica", "Replica"),
    ("torch.utils.data.dataloader", "DataLoader"),
}
MODULES = {"runpy", "scripts.evaluate", "subprocess"}
# Half of the time of all tests that start nothing (measured 2026-11-29).
LONG = (
    "encoders/test_zoo.py", "encoders/unpadding/test_compiled.py",
    "encoders/unpadding/test_parallel.py", "evaluation/data/test_mteb.py",
    "evaluation/data/test_trec.py", "evaluation/metrics/test_comparison.py",
    "evaluation/metrics/test_ranking_peers.py", "evaluation/report/test_figures.py",
    "evaluation/report/test_report.py", "evaluation/test_merging.py", "evaluation/test_suite.py",
    "benchmarks/test_stores.py", "loaders/test_in_place.py", "loaders/test_properties.py",
    "mining/test_miner.py", "serving/engine/test_tokenization.py", "stores/databases/test_lance.py",
    "stores/test_measure.py",
)  # fmt: skip


def names_in(code: CodeType) -> Iterator[str]:
    """Every global name and attribute that code mentions, that of its inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


@cache
def starts(call: Callable[..., Any]) -> bool:
    """Whether a function, or one of its own module that it calls, starts something."""
    return _starts(call, set())


def _starts(call: Callable[..., Any], seen: set[Any]) -> bool:
    function = getattr(call, "__wrapped__", call)
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    for name in names_in(function.__code__):
        value = function.__globals__.get(name)
        if getattr(value, "__name__", "") in MODULES:
            return True
        if (getattr(value, "__module__", ""), getattr(value, "__name__", "")) in STARTERS:
            return True
        own = getattr(value, "__module__", None) == function.__module__
        if own and callable(value) and _starts(value, seen):
            return True
    return False


def is_slow(item: pytest.Function) -> bool:
    """Whether a test or a fixture that it asks for starts something, or it takes long."""
    if item.get_closest_marker("realdata") or item.path.as_posix().endswith(LONG):
        return True
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    calls = [item.function, *(fixture.func for defined in fixtures for fixture in defined)]
    return any(starts(call) for call in calls)


class Processes:
    """What the tests start. A test that is not marked must start nothing."""

    def __init__(self) -> None:
        self.started: list[str] = []
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python at every audited event."""
        if event == "subprocess.Popen" and str(arguments[0]) == sys.executable:
            self.started.append(subprocess.list2cmdline(map(os.fsdecode, arguments[1])))
        elif event == "tests.copy":
            self.started.append(subprocess.list2cmdline(arguments[0]))
        elif event == "os.fork":
            self.started.append("a copy of itself")
