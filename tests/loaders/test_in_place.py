"""Rows that stay in their files are the rows that a copy of them gives, in the same order."""

import gzip
import json
import logging
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from collators.epochs import EpochRows
from loaders import ReadOptions, Shape, load_rows, load_rows_in_place
from loaders.in_place import RowsInPlace

GROUPS: list[dict[str, Any]] = [
    {"query": "猫吃什么", "pos": ["鱼", "肉"], "neg": ["石头"], "prompt": "检索："},
    {"query": "csv?", "pos": "read it\u2028so", "neg": ["a\rb", "tab\there"], "other": 1},
    {"query": "猫吃什么", "pos": ["猫粮", "鱼"]},
    {"query": "two", "pos_doc": "zwei\u0085", "negatives": ["drei", "drei"]},
]
SCORED: list[dict[str, Any]] = [
    {"query": "问", "doc": "答", "rel": 0.5, "weight": 3, "key": "k"},
    {"query": "q", "doc": "d", "rel": 1},
    {"query": "问", "doc": "d", "rel": 0},
]
TAUGHT: list[dict[str, Any]] = [
    {"query": "猫", "pos": ["鱼"], "neg": ["石", "木"], "pos_scores": [9], "neg_scores": [1, 6]},
    {"query": "none", "pos": ["x"], "neg": ["y"], "pos_scores": [2], "neg_scores": [1]},
]


def write(path: Path, *records: dict[str, Any], end: str = "\n") -> str:
    text = end.join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_bytes(text.encode())
    return str(path)


def all_of(rows: Any) -> list[dict[str, Any]]:
    return [rows[index] for index in range(len(rows))]


@pytest.mark.parametrize(
    ("records", "shape", "options"),
    [
        (GROUPS, "candidate_group", {}),
        (GROUPS, "positive_pair", {}),
        (GROUPS, "scored_pair", {}),
        (SCORED, "scored_pair", {}),
        ([*GROUPS, *SCORED], "scored_pair", {}),
        (TAUGHT, "candidate_group", {"needs_scores": True}),
        (TAUGHT, "candidate_group", {"relevance_from_scores": True, "label_range": (0, 10)}),
        (TAUGHT, "positive_pair", {"relevance_from_scores": True, "label_range": (0, 10)}),
        (TAUGHT, "scored_pair", {"relevance_from_scores": True, "label_range": (0, 10)}),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n  \n"])
def test_same_rows_and_same_notes(
    records: list[dict[str, Any]],
    shape: Shape,
    options: dict[str, Any],
    end: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "loaders")
    first = write(tmp_path / "a.jsonl", *records, end=end)
    second = write(tmp_path / "b.json", *reversed(records), end=end)
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "b.json").read_bytes())
    chosen = ReadOptions(**options)
    copied = all_of(load_rows([first, second], shape, chosen))
    notes = [record.message for record in caplog.records]
    caplog.clear()
    in_place = load_rows_in_place([first, second], shape, chosen)
    assert all_of(in_place) == copied
    assert in_place[-1] == copied[-1]
    assert [record.message for record in caplog.records] == notes
    with pytest.raises(IndexError):
        in_place[len(copied)]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "query": st.text(min_size=1).filter(str.strip),
                "pos": st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3),
                "neg": st.lists(st.text(min_size=1).filter(str.strip), max_size=3),
            }
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_same_rows_whatever_the_characters(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], escaped: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    lines = (json.dumps(record, ensure_ascii=escaped) + "\n" for record in records)
    path.write_bytes("".join(lines).encode("utf-8", "surrogatepass"))
    for shape in ("candidate_group", "positive_pair"):
        results = []
        for load in (load_rows, load_rows_in_place):
            try:
                results.append(all_of(load(str(path), shape, ReadOptions())))
            except ValueError as error:
                results.append([{"error": str(error)}])
        assert results[0] == results[1]


def test_a_column_may_be_in_some_files_only(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", {"query": "q", "pos": "p"})
    second = write(tmp_path / "b.jsonl", {"query": "q", "pos": "p", "instruction": "find:"})
    options = ReadOptions(columns={"instruction": "prompt"})
    in_place = load_rows_in_place([first, second], "candidate_group", options)
    assert [row["prompt"] for row in all_of(in_place)] == [None, "find:"]
    with pytest.raises(ValueError, match=r'^columns: no row has "instruction"; there are'):
        load_rows_in_place([first, first], "candidate_group", options)


def test_bad_rows_are_told_or_skipped_alike(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", GROUPS[0], {"query": "坏"}, GROUPS[1], {"pos": ["x"]})
    errors = []
    for load in (load_rows, load_rows_in_place):
        with pytest.raises(ValueError, match=r"^2 of 4 rows are bad") as caught:
            load(file, "candidate_group", ReadOptions())
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    rejected = tmp_path / "rejected.jsonl"
    options = ReadOptions(on_bad_rows="skip", rejected_file=rejected)
    copied = all_of(load_rows(file, "candidate_group", options))
    kept = rejected.read_bytes()
    rejected.unlink()
    assert all_of(load_rows_in_place(file, "candidate_group", options)) == copied
    assert len(copied) == 2
    assert rejected.read_bytes() == kept


def test_the_cache_holds_32_bytes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = 40_000  # more than are written at once
    records = ({"query": f"q{at}", "pos": ["长" * 20], "neg": ["n" * 60]} for at in range(rows))
    file = write(tmp_path / "a.jsonl", *records)
    groups = load_rows_in_place(file, "candidate_group", ReadOptions())
    assert [groups[at]["query"] for at in (0, 16_384, rows - 1)] == ["q0", "q16384", "q39999"]
    sizes = {
        path.name: path.stat().st_size
        for path in (tmp_path / "cache").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    others = {"notes.json": 2, "rejected_rows.jsonl": 0, "digest": 8}
    assert sizes == {"rows.arrow": 32 * rows, **others}


def test_processes_share_the_files(tmp_path: Path) -> None:
    """Workers that read at the same time from files opened before they were."""
    records = ({"query": f"q{at}", "pos": [f"p{at}" * 50]} for at in range(3000))
    rows = load_rows_in_place(write(tmp_path / "a.jsonl", *records), "positive_pair", ReadOptions())
    assert rows[7]["query"] == "q7"  # opens the file
    assert pickle.loads(pickle.dumps(rows))[7] == rows[7]
    order = random.Random(0).sample(range(3000), 3000)
    loader = DataLoader(
        EpochRows(cast(Any, rows)), sampler=order, num_workers=2, batch_size=10, collate_fn=list
    )
    assert [(row["query"], row["pos_doc"]) for batch in loader for row in batch] == [
        (f"q{at}", f"p{at}" * 50) for at in order
    ]


def _shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def _shifted(path: Path) -> None:
    path.write_bytes(b" \n" * 20 + path.read_bytes())


def _rewritten(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("q1", "q9"), encoding="utf-8")


def _corrected(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("p1", "p9"), encoding="utf-8")


@pytest.mark.parametrize("change", [_shortened, _shifted, _rewritten, _corrected, Path.unlink])
def test_a_file_that_changes_during_a_run_is_told(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    file = write(path, *({"query": f"q{at}", "pos": [f"p{at}"]} for at in range(3)))
    rows = load_rows_in_place(file, "candidate_group", ReadOptions())
    change(path)
    with pytest.raises(ValueError, match=r"a\.jsonl has changed since .*; start the run again$"):
        [rows[1], rows[2]]


def test_a_file_that_changed_is_indexed_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", GROUPS[0])
    assert len(load_rows_in_place(file, "candidate_group", ReadOptions())) == 1
    file = write(tmp_path / "a.jsonl", *GROUPS)
    rows = load_rows_in_place(file, "candidate_group", ReadOptions())
    assert isinstance(rows, RowsInPlace) and len(rows) == 4
    assert isinstance(load_rows(file, "candidate_group", ReadOptions()), datasets.Dataset)


def test_an_encoding_is_named_as_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "gbk.jsonl"
    row = {"query": "北京在哪里", "pos_doc": "北京是中国的首都，也是最大的城市之一。"}
    path.write_bytes((json.dumps(row, ensure_ascii=False) + "\n").encode("gbk"))
    with pytest.raises(ValueError, match=r"gbk\.jsonl.*GB18030"):
        load_rows_in_place(str(path), "positive_pair", ReadOptions())


def test_what_cannot_stay_in_place_is_refused(tmp_path: Path) -> None:
    def refusal(path: Path, shape: Shape = "candidate_group") -> str:
        with pytest.raises(ValueError, match=r"^streaming: .*leave streaming out$") as caught:
            load_rows_in_place(str(path), shape, ReadOptions())
        return str(caught.value)

    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(GROUPS[0]).encode()))
    assert "is packed" in refusal(packed)
    array = tmp_path / "a.json"
    array.write_text(f"\n [{json.dumps(GROUPS[0])}]", encoding="utf-8")
    assert "is not JSON Lines" in refusal(array)
    table = tmp_path / "a.tsv"
    table.write_text("query\tpos_doc\nq\td\n", encoding="utf-8")
    assert "is not JSON Lines" in refusal(table)
    scored = Path(write(tmp_path / "b.jsonl", *SCORED))
    assert "has scored pairs, which this objective unites" in refusal(scored)
    assert "has scored pairs, which this objective unites" in refusal(scored, "positive_pair")
