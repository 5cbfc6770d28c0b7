"""benchmarks/gpu.py on any machine: parts give whole rows; one that hangs costs itself alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gpu import rows_in_time
from benchmarks.on_gpu.architectures import architectures
from benchmarks.on_gpu.decoder import decoder
from benchmarks.on_gpu.inference import inference
from benchmarks.on_gpu.make_data import main as make_data
from benchmarks.on_gpu.resume import resume
from benchmarks.on_gpu.rows import FAILED, PARTS, Given, Rows, row_or_failure
from benchmarks.on_gpu.sharding import sharding
from benchmarks.on_gpu.training import training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    found = Given(tmp_path_factory.mktemp("gpu"), tiny=True)
    make_data(found)
    return found


@pytest.mark.parametrize("part", [architectures, training, inference, decoder, resume])
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_every_part_gives_whole_rows(part: Callable[[Given], Rows], given: Given) -> None:
    columns, *rows = part(given)
    assert rows
    for row in rows:
        assert FAILED not in row, row
        assert len(row) == len(columns)


def test_differences_are_rounding(given: Given) -> None:
    _, *rows = architectures(given)
    for _, precision, *shares in rows:
        least = 1e-5 if precision == "fp32" else 5e-2
        assert all(float(share) < least for share in shares)


def test_what_needs_a_gpu_says_so(given: Given) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert list(sharding(given))[1:] == [["not run: there is no GPU"]]


def test_all_parts_are_here_and_take_seven_minutes() -> None:
    folder = Path(__file__).parents[2] / "benchmarks/on_gpu"
    assert {file.stem for file in folder.glob("*.py")} == {*PARTS, "rows", "make_data"}
    assert sum(PARTS.values()) <= 400  # and the data


@pytest.mark.parametrize("end", ["import time; time.sleep(99)", "raise SystemExit(3)"])
def test_a_part_that_hangs_or_fails_keeps_its_rows(end: str) -> None:
    code = f'import sys; print("[1, 2]", flush=True); print("else", flush=True); {end}'
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert list(rows_in_time(process, 1.5)) == [[1, 2]]
        assert process.wait() != 0
    assert time.monotonic() - begun < 30


def test_a_row_that_fails_names_the_reason() -> None:
    assert row_or_failure(["a"], lambda: [1 / 0]) == [
        "a",
        FAILED,
        "ZeroDivisionError: division by zero",
    ]
    assert row_or_failure(["a"], lambda x: [x], 2) == ["a", 2]
