"""Each thing that can be wrong with rows is found, where it is, and counted exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders import ReadOptions
from loaders.formats.row_file import RowFile
from loaders.parsing.row_stream import RowStream
from preparation.validation.checks import Examination, count_shared
from preparation.validation.lengths import TextLengths, count_characters

Records = list[dict[str, Any]]


def examine(tmp_path: Path, records: Records, name: str = "a.jsonl", **options: Any) -> Examination:
    with RowFile(tmp_path / name, ["query"]) as file:
        for record in records:
            file.write(record)
    examination = Examination(count_characters, options.get("positive_threshold", 0.5))
    for located in RowStream(str(tmp_path / name), ReadOptions(**options)):
        examination.add(located)
    return examination


def found(tmp_path: Path, records: Records, **options: Any) -> list[tuple[str, int, list[str]]]:
    """What is wrong, how often, where (lines only)."""
    findings = examine(tmp_path, records, **options).findings()
    prefix = f"{tmp_path}/a.jsonl"
    return [(f.what, f.count, [place.replace(prefix, "") for place in f.places]) for f in findings]


BOTH = "a document is positive and negative for the same query"
DIFFERENT = "a document has different relevances for the same query"
REPEATS = "a row repeats an earlier one"
TWICE = "a row has the same document twice"


def test_nothing_is_wrong(tmp_path: Path) -> None:
    records: Records = [
        {"query": "问题", "pos": ["答案", "另一个"], "neg": ["错"]},
        {"query": "问题", "pos": ["第三个"], "neg": ["错"]},  # a shared negative is usual
        {"query": "q", "pos_doc": "错", "negatives": ["答案"]},
        {"query": "r", "doc": "错", "rel": 0.2},
        {"query": "C", "doc": "language", "rel": 1},
        {"query": "C++", "doc": "language", "rel": 0},
    ]
    assert found(tmp_path, records) == []


def test_a_negative_that_is_a_positive(tmp_path: Path) -> None:
    records: Records = [
        {"query": "q", "pos": ["Answer one."], "neg": ["x", "answer one"]},
        {"query": "重置密码", "pos": ["点击忘记密码"], "neg": ["y"]},
        {"query": "other", "pos": ["y"], "neg": ["点击忘记密码"]},
        {"query": "重置密码？", "pos_doc": "z", "negatives": ["点击“忘记密码”。"]},
    ]
    assert found(tmp_path, records) == [(BOTH, 2, [":1", ":2 and :4"])]


def test_contradicting_labels(tmp_path: Path) -> None:
    records: Records = [
        {"query": "q", "doc": "a", "rel": 1},
        {"query": "q", "doc": "b", "rel": 0.9},
        {"query": "q", "doc": "a", "rel": 0.6},
        {"query": "q", "doc": "b", "rel": 0.1},
        {"query": "q", "doc": "b", "rel": 0.5},
    ]
    assert found(tmp_path, records) == [(BOTH, 1, [":2 and :4"]), (DIFFERENT, 1, [":1 and :3"])]
    assert found(tmp_path, records, positive_threshold=0.7) == [
        (BOTH, 2, [":1 and :3", ":2 and :4"])
    ]


def test_repetitions(tmp_path: Path) -> None:
    records: Records = [
        {"query": "q", "pos": ["a"], "neg": ["n", "m"]},
        {"query": "Q", "pos": ["A"], "neg": ["m", "n"]},
        {"query": "q", "pos": ["a"], "neg": ["n", "m"], "prompt": "other task: "},
        {"query": "r", "pos": ["a", "a!"], "neg": ["n", "N", "n"]},
        {"query": "q", "pos": ["a"], "neg": ["n", "m"]},
    ]
    assert found(tmp_path, records) == [
        (REPEATS, 2, [":1 and :2", ":1 and :5"]),
        (TWICE, 1, [":4"]),
    ]


def test_the_first_twenty_places_are_kept(tmp_path: Path) -> None:
    records: Records = [{"query": "q", "doc": "d", "rel": 1}] * 30
    assert found(tmp_path, records) == [(REPEATS, 29, [f":1 and :{n}" for n in range(2, 22)])]


def test_places_in_several_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"query": "q", "pos_doc": "d"}\n', encoding="utf-8")
    examination = Examination(count_characters, 0.5)
    for located in RowStream(str(tmp_path), ReadOptions()):
        examination.add(located)
    (finding,) = examination.findings()
    assert finding.places == [f"{tmp_path}/a.jsonl:1 and {tmp_path}/b.jsonl:1"]


def test_figures(tmp_path: Path) -> None:
    examination = examine(
        tmp_path,
        [
            {"query": "检索", "pos": ["四个汉字"], "neg": ["no", "none"], "neg_scores": [1, 7]},
            {"query": "检索", "pos": ["四个汉字", "five5"], "prompt": "任务："},
            {"query": "q", "doc": "none", "rel": 0.75},
        ],
    )
    assert examination.shapes == {"groups": 2, "scored pairs": 1}
    assert (examination.rows, examination.prompts, examination.without_negatives) == (3, 1, 1)
    assert examination.relevances().tolist() == [1, 0, 0, 1, 1, 0.75]
    assert [counts.tolist() for counts in examination.per_row()] == [[1, 2, 1], [2, 0, 0]]
    assert examination.queries.all().tolist() == [2, 1]
    assert examination.documents.all().tolist() == [4, 2, 4, 5]
    assert examination.pair_lengths().tolist() == [6, 4, 6, 6, 7, 5]
    assert examination.teacher.tolist() == [1, 7]
    sizes = {part: len(examination.texts(part)) for part in ("queries", "documents", "pairs")}
    assert sizes == {"queries": 2, "documents": 4, "pairs": 5}


def test_what_two_inputs_share(tmp_path: Path) -> None:
    one = examine(tmp_path, [{"query": "问？", "pos": ["a", "b"], "neg": ["c"]}])
    other = examine(
        tmp_path,
        [{"query": "问", "pos": ["C"], "neg": ["d"]}, {"query": "x", "pos": ["a"], "neg": ["b"]}],
    )
    counts = {
        p: count_shared(one, other, p) for p in ("queries", "positives", "documents", "pairs")
    }
    assert counts == {"queries": 1, "positives": 1, "documents": 3, "pairs": 1}


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1500])
def test_lengths_are_counted_once_in_batches(size: int) -> None:
    batches = []

    def count(texts: list[str]) -> list[int]:
        batches.append(len(texts))
        return [len(text) for text in texts]

    lengths = TextLengths(count)
    for key in [*range(size), *range(size)]:
        lengths.add(key * 7919 % 100003, "x" * (key + 1))
    keys = np.array([key * 7919 % 100003 for key in reversed(range(size))], dtype=np.uint64)
    assert lengths.of(keys).tolist() == list(range(size, 0, -1))
    assert lengths.all().tolist() == list(range(1, size + 1))
    assert sum(batches) == size and max(batches) <= 512
