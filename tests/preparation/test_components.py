"""Rows that belong together, and their parts of a split."""

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders import ReadOptions
from loaders.parsing.row_stream import RowStream
from loaders.shapes.rows import CandidateGroup, PositivePair, Row, ScoredPair
from preparation.duplicates.normalized import normalize
from preparation.splitting import By, Components, assign_to_parts


def pair(query: str, doc: str, rel: float = 1.0) -> ScoredPair:
    return ScoredPair(query, doc, rel, 1.0, None, None)


def group(query: str, pos: list[str], neg: list[str]) -> CandidateGroup:
    return CandidateGroup(query, pos, neg, None, None, None, graded=False)


def labels(rows: list[Row], by: By = "document", threshold: float = 0.0) -> list[int]:
    found: list[int] = Components(lambda: rows, by, threshold, 0.5).labels.tolist()
    return found


def test_shared_texts_link() -> None:
    rows: list[Row] = [
        pair("怎么重置密码？", "a"),
        pair("reset", "b"),
        pair("怎么重置密码", "c"),  # the query of 0, but for its mark
        group("other", ["d"], ["B"]),  # a negative that is the document of 1
        PositivePair("d", "e", ["f"], None),  # its query is a document of 3
        pair("alone", "g"),
    ]
    assert labels(rows) == [0, 1, 0, 1, 1, 2]
    assert labels(rows, "positive") == [0, 1, 0, 2, 2, 3]
    assert labels(rows, "query") == [0, 1, 0, 2, 3, 4]


def test_positives_are_told_by_the_threshold() -> None:
    rows: list[Row] = [pair("a", "x", 0.4), pair("b", "x", 0.5), pair("c", "x", 1.0)]
    assert labels(rows, "positive") == [0, 1, 1]


def test_near_duplicates_link() -> None:
    words = [f"word{n}" for n in range(40)]
    text = " ".join(words)
    changed = " ".join([*words[:-1], "other"])
    chinese = "高血压患者首先要注意控制食盐摄入量，每天不超过六克，注意不要吃太油腻的食物。"
    rows: list[Row] = [
        pair("q1", text),
        pair("q2", changed),
        pair("q3", chinese),
        pair("q4", chinese.replace("首先", "")),
        pair("q5", " ".join(reversed(words))),
        pair(text, "d"),  # a query almost, or just, as a document
        pair(changed, "e"),
    ]
    assert labels(rows, threshold=0.8) == [0, 0, 1, 1, 2, 0, 0]
    assert labels(rows) == [0, 1, 2, 3, 4, 0, 1]
    found = Components(lambda: rows, "document", 0.8, 0.5)
    assert found.near_duplicates == 3  # of documents 0-1 and 2-3, of queries 5-6
    assert labels(rows, "query", 0.8) == [0, 1, 2, 3, 4, 5, 5]


def test_a_text_in_very_many_places_still_links() -> None:
    # 256 edges between two nodes must not add up to none.
    rows: list[Row] = [group("q", ["x"], ["y"] * 256), group("r", ["z"], ["y"] * 256)]
    assert labels(rows) == [0, 0]


ROWS = st.lists(
    st.builds(
        group,
        st.sampled_from("qrst"),
        st.lists(st.sampled_from("abcdef"), min_size=1, max_size=2),
        st.lists(st.sampled_from("abcdef"), max_size=2),
    ),
    min_size=1,
    max_size=12,
)


@given(rows=ROWS)
def test_components_equal_a_naive_search(rows: list[CandidateGroup]) -> None:
    texts = [{row.query, *row.pos, *row.neg} for row in rows]
    naive = list(range(len(rows)))
    for _ in rows:
        for one in range(len(rows)):
            for other in range(len(rows)):
                if texts[one] & texts[other]:
                    naive[one] = naive[other] = min(naive[one], naive[other])
    numbers: dict[int, int] = {}
    assert labels(list(rows)) == [numbers.setdefault(label, len(numbers)) for label in naive]


def test_shares_are_met_and_components_are_whole() -> None:
    rng = random.Random(0)
    drawn = [rng.randrange(300) for _ in range(2000)] + [300] * 150
    _, names = np.unique(drawn, return_inverse=True)
    made = assign_to_parts(names, (0.8, 0.1, 0.1), 42)
    assert made.sizes == np.bincount(made.part_of).tolist()
    assert made.largest == 150 and made.components == len(set(names.tolist()))
    assert made.off_target() == []
    parts = defaultdict(set)
    for name, part in zip(names.tolist(), made.part_of.tolist(), strict=True):
        parts[name].add(part)
    assert all(len(found) == 1 for found in parts.values())
    again, other = (assign_to_parts(names, (0.8, 0.1, 0.1), seed).part_of for seed in (42, 43))
    assert (again == made.part_of).all() and (other != made.part_of).any()


@given(count=st.integers(100, 400), seed=st.integers(0, 5))
def test_single_rows_meet_the_shares_to_a_row(count: int, seed: int) -> None:
    made = assign_to_parts(np.arange(count), (0.7, 0.2, 0.1), seed)
    assert all(abs(n - w) <= 1 for n, w in zip(made.sizes, made.wanted, strict=True))


def test_a_component_that_is_too_large_is_told() -> None:
    names = np.array([0] * 900 + list(range(1, 101)))
    made = assign_to_parts(names, (0.8, 0.1, 0.1), 0)
    assert made.sizes[0] == 900 and made.off_target() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"the part of 0\.1 gets none of the 1000 rows: they form"):
        assign_to_parts(np.array([0] * 999 + [1]), (0.8, 0.1, 0.1), 0)
    with pytest.raises(ValueError, match="give it a larger share, or give more rows"):
        assign_to_parts(np.arange(3), (0.98, 0.01, 0.01), 0)


@pytest.mark.realdata
@pytest.mark.parametrize("language", ["zh", "en"])
def test_real_sentences_do_not_leak(realdata: Callable[[str], Path], language: str) -> None:
    file = str(realdata(f"stsb/stsb-{language}-dev.csv"))
    stream = RowStream(file, ReadOptions(label_range=(0, 5)))
    rows = [located.row for located in stream]
    found = Components(lambda: rows, "document", 0.8, 0.5)
    made = assign_to_parts(found.labels, (0.8, 0.1, 0.1), 1)
    assert made.off_target() == []
    texts: list[set[str]] = [set(), set(), set()]
    for part, row in zip(made.part_of, rows, strict=True):
        assert isinstance(row, ScoredPair)
        texts[part] |= {normalize(row.query), normalize(row.doc)}
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
