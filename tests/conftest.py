"""What every test stands on: no network, caches of its own, cores of its own, tiny models."""

import gc
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# A worker of pytest-xdist and all that it starts keep to their own cores: threads of several
# processes that wait for each other on shared cores cost many times what they give.
if hasattr(os, "sched_setaffinity") and "PYTEST_XDIST_WORKER" in os.environ:
    _WORKER, _WORKERS = (os.environ[f"PYTEST_XDIST_WORKER{name}"] for name in ("", "_COUNT"))
    _CORES = sorted(os.sched_getaffinity(0))[int(_WORKER.removeprefix("gw")) :: int(_WORKERS)]
    if _CORES:
        os.sched_setaffinity(0, _CORES)

# Hugging Face libraries read these when they are imported, and so do the scripts that tests start.
_CACHE = tempfile.mkdtemp(prefix="tandem-tests-")
# Workers share what torch.compile makes.
_SHARED = os.environ.setdefault("TANDEM_TESTS_SHARED", _CACHE)
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": _CACHE,
    "HF_DATASETS_CACHE": f"{_CACHE}/datasets",
    "TORCHINDUCTOR_CACHE_DIR": f"{_SHARED}/inductor",
    "TORCHINDUCTOR_VEC_ISA_OK": "1",  # to try the processor's vectors takes it 10 seconds
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # To share such small models among threads costs more than it gives.
    "OMP_NUM_THREADS": "1",
}

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from slow import Processes, is_slow  # noqa: E402

# What imports torch is imported where it is needed: the process that only hands out the tests to
# the workers of pytest-xdist starts them seconds sooner.
if TYPE_CHECKING:
    from transformers import BertTokenizer

# Machines are noisy: no example is failed for its time.
settings.register_profile("tandem", deadline=None)
settings.load_profile("tandem")

ROOT = Path(__file__).resolve().parent.parent

# Begun first, so that no worker of pytest-xdist is left alone with one of them at the end.
LONGEST = [ROOT / "tests" / name for name in ("trainers/distributed", "scripts/train", "scripts")]


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is no such hook
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as there are cores; one more where tests wait for the processes that they start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    return cores if config.getoption("markexpr") == "not slow" else cores + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and is_slow(item):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def order(item: pytest.Item) -> tuple[int, bool]:
        at = next((at for at, name in enumerate(LONGEST) if name in item.path.parents), 99)
        return at, item.path not in slow

    items.sort(key=order)


_PROCESSES = Processes()


@pytest.fixture(autouse=True)
def _only_slow_tests_start_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    before = len(_PROCESSES.started)
    yield
    if request.node.get_closest_marker("slow") is None:
        assert _PROCESSES.started[before:] == []


@pytest.fixture(autouse=True)
def _no_log_handler_is_left() -> Iterator[None]:
    """What a script sets up in one test would print into the output that another one reads."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in [one for one in root.handlers if one not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.WARNING)


@pytest.fixture(autouse=True, scope="module")
def _imports_are_no_garbage() -> None:
    """Spare every full garbage collection, of which a run makes two, what is there by now.

    Tests import more and more: in the end a collection would look at a million objects.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Keep what coverage has measured: pytest-xdist kills a worker that is slow to end."""
    if (coverage := sys.modules.get("coverage")) and (own := coverage.Coverage.current()):
        own.save()


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def realdata() -> Callable[[str], Path]:
    """Return a function from a name (``"stsb/stsb-en-dev.csv"``) to its path; absent: skip."""
    folder = Path(os.environ.get("TANDEM_REALDATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"no public data at {path}: set TANDEM_REALDATA to the folder that has it")
        return path

    return find


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "BertTokenizer":
    """A word-piece tokenizer for ``tiny.TEXTS``. Shared: do not change it."""
    from tiny import make_tokenizer

    return make_tokenizer()


@pytest.fixture
def no_graphs_of_other_tests() -> Iterator[None]:
    """What ``torch.compile`` made before is forgotten, and so is what this test makes."""
    import torch
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plain backbone with 2 layers and width 32. Shared: do not write to it."""
    from tiny import save_backbone

    return save_backbone(tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same model as a classifier with one label. Do not write to it."""
    from tiny import save_classifier

    return save_classifier(tmp_path_factory.mktemp("tiny_classifier"))
