"""Negatives on corpora whose ranks and scores are known: shares, ranges, rules, margins."""

import json
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import expit

from common.bm25 import BM25
from common.text_digest import pair_keys
from encoders import Reranker
from loaders.shapes.arrow import GROUP
from mining.cache.vectors import VectorCache
from mining.data.corpus import Corpus, build_corpus
from mining.data.documents import Document
from mining.data.queries import Queries
from mining.miner import Mined, Miner
from mining.picker import Candidate
from mining.policy import Limits, Policy
from mining.search.encode import EncodingSettings
from mining.search.index import LexicalIndex, VectorIndex
from mining.teacher import Teacher
from mining.work import Blocks
from preparation.duplicates.near_duplicates import similar_pairs
from preparation.duplicates.normalized import normalize
from vectors import vector_index

Group = dict[str, Any]


def group(
    query: str, pos: Sequence[str], neg: Sequence[str] = (), prompt: str | None = None
) -> Group:
    scores = {"pos_scores": None, "neg_scores": None}
    return {
        "query": query,
        "pos": [*pos],
        "neg": [*neg],
        "prompt": prompt,
        "graded": False,
    } | scores


def make(
    folder: Path,
    groups: Sequence[Group],
    documents: Iterable[str | tuple[str, str]],
    keep: bool = True,
) -> tuple[Queries, Corpus]:
    """The queries of groups and a corpus; documents are texts, or (text, id)."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    pairs = [(each, None) if isinstance(each, str) else each for each in documents]
    positives = [Document(text, None) for each in groups for text in each["pos"]]
    corpus = build_corpus(folder, [Document(*pair) for pair in pairs], positives)
    return Queries(Dataset.from_list(list(groups), features=GROUP), corpus, keep), corpus


def on_a_line(folder: Path, queries: Queries, corpus: Corpus, size: int) -> VectorIndex:
    """Document i stands at the angle i / size of a quarter circle, all queries at its beginning.

    So document i is of rank i + 1 for every query, with the cosine of its angle for a score.
    """
    angles = np.arange(len(corpus)) / size * (math.pi / 2)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return vector_index(folder, np.array([[1.0, 0.0]] * len(queries)), vectors, corpus.searchable)


LINE = [f"第{number}篇 text number {number}" for number in range(3000)]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Queries, Corpus, VectorIndex]:
    """Fifty queries whose positive is of rank 1, and 3,000 documents of known ranks."""
    folder = tmp_path_factory.mktemp("line")
    groups = [group(f"query {number}", LINE[:1]) for number in range(50)]
    queries, corpus = make(folder / "corpus", groups, LINE)
    return queries, corpus, on_a_line(folder, queries, corpus, 3000)


def ranks(mined: Mined) -> tuple[list[int], list[int]]:
    """Of hard and random negatives, told from their places."""
    found = [candidate.place + 1 for candidate in mined.negatives]
    return found[: mined.hard], found[mined.hard :]


def test_seventy_percent_hard_and_thirty_random(
    line: tuple[Queries, Corpus, VectorIndex],
) -> None:
    queries, corpus, index = line
    policy = Policy(num_negatives=10, rank_range=(2, 20), random_share=0.3, random_from=1000)
    all_hard, all_random = set[int](), set[int]()
    for mined in Miner(queries, corpus, index, policy).mine(0, 50):
        hard, at_random = ranks(mined)
        assert (len(hard), len(at_random)) == (7, 3)
        assert all(2 <= rank <= 20 for rank in hard)
        assert all(1000 < rank <= 3000 for rank in at_random)
        assert hard == sorted(set(hard))
        assert [one.rank for one in mined.negatives[:7]] == hard
        assert len(set(at_random)) == 3
        all_hard.update(hard)
        all_random.update(at_random)
    assert all_hard == set(range(2, 21))
    # Random ones come from all over: of 150 draws, some from each tenth of the ranks beyond.
    assert {(rank - 1001) // 200 for rank in all_random} == set(range(10))


def test_random_negatives_of_the_whole_corpus(line: tuple[Queries, Corpus, VectorIndex]) -> None:
    queries, corpus, index = line
    policy = Policy(num_negatives=2, rank_range=(2, 3), random_share=0.5)
    drawn = [ranks(mined)[1][0] for mined in Miner(queries, corpus, index, policy).mine(0, 50)]
    assert len({(rank - 1) // 300 for rank in drawn}) == 10


def test_top_takes_the_best_of_the_range(line: tuple[Queries, Corpus, VectorIndex]) -> None:
    queries, corpus, index = line
    policy = Policy(num_negatives=3, rank_range=(5, 30), sampling="top")
    for mined in Miner(queries, corpus, index, policy).mine(0, 3):
        assert ranks(mined) == ([5, 6, 7], [])
        score = math.cos(4 / 3000 * math.pi / 2)
        assert mined.negatives[0].score == pytest.approx(score, abs=1e-7)
        assert mined.positive == pytest.approx(1.0)


def test_the_seed_and_the_query_decide_not_the_order(
    line: tuple[Queries, Corpus, VectorIndex],
) -> None:
    queries, corpus, index = line
    policy = Policy(random_share=0.3)
    together = Miner(queries, corpus, index, policy).mine(0, 50)
    alone = [Miner(queries, corpus, index, policy).mine(at, at + 1)[0] for at in (49, 7, 0)]
    assert alone == [together[49], together[7], together[0]]
    other = Miner(queries, corpus, index, Policy(random_share=0.3, seed=1)).mine(0, 50)
    assert sum(one != two for one, two in zip(together, other, strict=True)) == 50


@pytest.mark.parametrize(
    ("name", "limit", "highest"),
    [
        ("max_score", 0.9, 0.9),
        ("absolute_margin", 0.05, math.cos(100 / 3000 * math.pi / 2) - 0.05),
        ("relative_margin", 0.1, math.cos(100 / 3000 * math.pi / 2) * 0.9),
    ],
)
def test_limits_take_away_exactly_the_ranks_above_them(
    name: str, limit: float, highest: float, tmp_path: Path
) -> None:
    # The lower of two positives, at rank 101, is what margins are counted from.
    queries, corpus = make(tmp_path / "corpus", [group("q", [LINE[0], LINE[100]])], LINE)
    index = on_a_line(tmp_path, queries, corpus, 3000)
    how: dict[str, Any] = {"rank_range": (1, 1500), "sampling": "top", "random_share": 0.4}
    policy = Policy(num_negatives=5, **how | {name: limit})
    (mined,) = Miner(queries, corpus, index, policy).mine(0, 1)
    angle = math.acos(highest) / (math.pi / 2) * 3000  # of the first document that may be taken
    hard, at_random = ranks(mined)
    first = math.ceil(angle) + 1
    assert hard == [first, first + 1, first + 2]
    assert all(rank >= first for rank in at_random)
    removed = dict(mined.removed)
    # Random ones are judged too; the hard ones are tried from rank 1 on.
    assert removed["a positive"] >= 2 and removed[name] >= first - 1 - 2


def test_too_few_candidates_give_what_there_is(tmp_path: Path) -> None:
    queries, corpus = make(tmp_path / "corpus", [group("q", LINE[:1])], LINE[:5])
    index = on_a_line(tmp_path, queries, corpus, 5)
    policy = Policy(num_negatives=7, rank_range=(3, 200), random_share=0.3, random_from=4)
    (mined,) = Miner(queries, corpus, index, policy).mine(0, 1)
    assert ranks(mined) == ([3, 4, 5], [])  # rank 5 is hard, so that no random one is left


def test_nothing_is_mined_where_no_answer_is_known(tmp_path: Path) -> None:
    groups = [group("q", []), group("Q?", LINE[:1]), group("other", [])]
    queries, corpus = make(tmp_path / "corpus", groups, LINE[:30])
    index = on_a_line(tmp_path, queries, corpus, 30)
    mined = Miner(queries, corpus, index, Policy()).mine(0, 3)
    assert [len(one.negatives) for one in mined] == [7, 7, 0]  # "Q?" asks what "q" does
    assert [one.positive for one in mined] == [1.0, 1.0, None]


# What must never be taken


def test_positives_by_id_text_and_likeness(tmp_path: Path) -> None:
    answer = "the quick brown fox jumps over the lazy dog and runs far away from here"
    documents = [
        (answer, "a"),
        (f"{answer} at last", "b"),  # almost the same
        ("THE QUICK,  brown fox jumps over the lazy dog and runs far away from here!", "c"),
        ("another part of the document that answers", "a"),  # the same id
        ("what does the fox say", "d"),  # the query
        ("what does the fox say? a song asks, and more", "e"),  # holds the query
        ("a good negative about foxes", "f"),
        ("那只敏捷的狐狸", "g"),
    ]
    queries, corpus = make(tmp_path / "c", [group("What does the fox say?", [answer])], documents)
    index = on_a_line(tmp_path, queries, corpus, 8)
    policy = Policy(num_negatives=8, rank_range=(1, 8), sampling="top")
    (mined,) = Miner(queries, corpus, index, policy).mine(0, 1)
    texts = corpus.at([one.place for one in mined.negatives])
    assert texts == ["a good negative about foxes", "那只敏捷的狐狸"]
    assert mined.removed == {
        "a positive": 1,
        "almost a positive": 1,
        "text of a positive": 1,
        "id of a positive": 1,
        "text of the query": 1,
        "almost the query": 1,
    }
    # Without the look for near-duplicates, the two that are only almost the same are taken.
    strict = Policy(num_negatives=8, rank_range=(1, 8), sampling="top", near_duplicates=0)
    (mined,) = Miner(queries, corpus, index, strict).mine(0, 1)
    assert [one.rank for one in mined.negatives] == [2, 6, 7, 8]


def test_answers_known_from_other_rows_and_kept_negatives(tmp_path: Path) -> None:
    groups = [
        group("如何排序？", LINE[:1], LINE[3:5]),
        group("如何排序", LINE[1:2]),  # asks the same
        group("如何排序？", LINE[2:3], LINE[5:6]),  # the same query once more
    ]
    for keep, taken in ((True, range(7, 12)), (False, range(4, 12))):
        queries, corpus = make(tmp_path / f"{keep}", groups, LINE[:11], keep)
        index = on_a_line(tmp_path / f"{keep}v", queries, corpus, 11)
        policy = Policy(num_negatives=9, rank_range=(1, 20), sampling="top")
        one, other = Miner(queries, corpus, index, policy).mine(0, 2)
        assert queries.query_of.tolist() == [0, 1, 0]
        assert ranks(one) == ([*taken], [])
        assert ranks(other) == ([*range(4, 12)], [])
        assert one.removed.get("there already", 0) == (3 if keep else 0)


def test_a_text_that_many_documents_have_links_none_of_them(tmp_path: Path) -> None:
    """Each of ten documents has two parts of its own and the same imprint."""
    parts = [(text, f"doc{n // 2}") for n, text in enumerate(LINE[:20])]
    parts += [("Copyright ACME. All rights reserved.", f"doc{n}") for n in range(10)]
    queries, corpus = make(tmp_path / "corpus", [group("q", LINE[:1])], parts)
    index = on_a_line(tmp_path, queries, corpus, 30)
    policy = Policy(num_negatives=30, rank_range=(1, 30), sampling="top")
    (mined,) = Miner(queries, corpus, index, policy).mine(0, 1)
    assert ranks(mined) == ([*range(3, 21)], [])
    assert mined.removed == {"a positive": 1, "id of a positive": 2}


def test_positives_outside_the_corpus_are_known_and_not_found(tmp_path: Path) -> None:
    almost = "one two three four five six seven eight nine ten 十"
    groups = [group("q", ["one two three four five six seven eight nine ten"])]
    queries, corpus = make(tmp_path / "corpus", groups, [almost, *LINE[:3]])
    assert (corpus.searchable, len(corpus)) == (4, 5)
    index = on_a_line(tmp_path, queries, corpus, 5)
    (mined,) = Miner(queries, corpus, index, Policy(num_negatives=9, rank_range=(1, 9))).mine(0, 1)
    assert ranks(mined) == ([2, 3, 4], [])
    assert mined.removed == {"almost a positive": 1}
    assert mined.positive == pytest.approx(math.cos(4 / 5 * math.pi / 2), abs=1e-6)


WORDS = st.sampled_from(["猫", "狗 跑", "cat", "Cat!", "a dog ran", "A DOG, ran", "mat", "x y z"])
TEXT = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=6),
    st.lists(st.tuples(TEXT, st.sampled_from("abcdefgh")), min_size=1, max_size=20),
    st.integers(0, 5),
)
def test_no_negative_is_a_positive(
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[tuple[str, list[str]]],
    documents: list[tuple[str, str]],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    queries, corpus = make(folder / "corpus", [group(*each) for each in asked], documents)
    rng = np.random.default_rng(seed)
    index = vector_index(
        folder,
        rng.normal(size=(len(queries), 4)),
        rng.normal(size=(len(corpus), 4)),
        corpus.searchable,
    )
    policy = Policy(num_negatives=9, rank_range=(1, 20), random_share=0.5, seed=seed)
    ids: dict[str, set[str]] = {}
    for text, identifier in documents:
        ids.setdefault(text, set()).add(identifier)
    for at, mined in enumerate(Miner(queries, corpus, index, policy).mine(0, len(queries))):
        (query,) = queries.texts(at, at + 1)
        same = [pos for text, pos in asked if normalize(text) == normalize(query)]
        positives = {text for pos in same for text in pos}
        negatives = corpus.at([one.place for one in mined.negatives])
        assert len(set(negatives)) == len(negatives)
        assert {normalize(text) for text in negatives}.isdisjoint(
            {normalize(text) for text in [*positives, query]}
        )
        of_positives = set[str]().union(*(ids.get(text, set()) for text in positives))
        for text in negatives:
            assert ids[text].isdisjoint(of_positives)
            for other in [*positives, query]:
                assert not list(similar_pairs([other, text], 0.8))


# By words


def test_bm25_finds_ranks_and_scores_as_the_index_of_all_texts(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["感冒", "发烧", "cold", "fever", "take", "rest", "drink", "water", "医生"]
    documents = list(dict.fromkeys(" ".join(rng.choices(words, k=6)) for _ in range(200)))
    outside = "fever fever drink"
    asked = {"cold fever": documents[0], "感冒 吃药": outside, "zzz": "cold"}
    groups = [group(query, [document]) for query, document in asked.items()]
    queries, corpus = make(tmp_path / "corpus", groups, documents)
    index = LexicalIndex(queries, corpus)
    index.at_once = 2
    texts = [*documents, outside, "cold"]
    expected = BM25(texts).search(list(asked), len(texts))
    for at, (found, hits) in enumerate(zip(index.search(0, 3, 50), expected, strict=True)):
        searched = [(place, score) for place, score in hits if place < len(documents)][:50]
        assert found == searched
        scores = dict(hits)
        places = list(range(len(texts)))
        assert index.scores(at, places) == [scores.get(place, 0.0) for place in places]


# With a reranker


@pytest.fixture(scope="module")
def reranker(tiny_classifier: Path) -> Reranker:
    model = Reranker.from_pretrained(tiny_classifier)
    with torch.no_grad():  # scores that differ, about half of them above 0.5
        head: Any = model.backbone.classifier
        head.weight *= 300
        pairs = [(word, f"{word} a dog") for word in ("cat", "天气", "fever", "Paris")]
        head.bias -= model.score(pairs, raw=True).median()
    model.prompts = {"query": "问：", "document": "答："}
    return model


@pytest.mark.parametrize(
    "limits", [Limits(max_score=0.5), Limits(absolute_margin=0.1), Limits(relative_margin=0.5)]
)
def test_a_reranker_removes_as_one_query_after_the_other_would(
    reranker: Reranker, limits: Limits, tmp_path: Path
) -> None:
    words = ["cat", "dog", "mat", "paris", "tokyo", "今天", "天气", "公园", "neural", "fever"]
    rng = random.Random(1)
    documents = list(dict.fromkeys(" ".join(rng.choices(words, k=4)) for _ in range(60)))
    groups = [
        group(f"{word} ?", [text], [f"kept {word}"])
        for word, text in zip(words, documents[:10], strict=True)
    ]
    groups[3]["prompt"] = "where is "
    queries, corpus = make(tmp_path / "corpus", groups, documents)
    index = on_a_line(tmp_path, queries, corpus, 60)
    teacher = Teacher(reranker, VectorCache(tmp_path / "scores", 1), EncodingSettings())
    policy = Policy(num_negatives=5, rank_range=(2, 40), near_duplicates=0)
    miner = Miner(queries, corpus, index, policy, teacher, limits)
    mined = miner.mine(0, len(words))

    def pair(each: Group, document: str) -> tuple[str, str]:
        before = "问：" if each["prompt"] is None else each["prompt"]
        return before + each["query"], f"答：{document}"

    def score(each: Group, document: str) -> float:
        return float(reranker.score([pair(each, document)], prompts={})[0])

    removals = 0
    for each, one in zip(groups, mined, strict=True):
        lowest = score(each, each["pos"][0])
        expected: list[int] = []
        for rank in policy.hard_ranks(each["query"], len(documents)):
            text = documents[rank - 1]
            if text in each["pos"] or len(expected) == 5:
                continue
            if limits.broken(score(each, text), lowest) is None:
                expected.append(rank)
            else:
                removals += 1
        assert ranks(one)[0] == sorted(expected)
    assert removals > 10
    name = next(name for name, value in limits._asdict().items() if value is not None)
    assert sum(one.removed.get(f"reranker {name}", 0) for one in mined) >= removals
    # All that is going to be written is scored: positives, kept negatives, mined ones.
    teacher.cache.refresh()
    for each, one in zip(groups, mined, strict=True):
        texts = [*each["pos"], *each["neg"], *corpus.at([found.place for found in one.negatives])]
        assert (teacher.cache.find(pair_keys([pair(each, text) for text in texts])) >= 0).all()
        scores = teacher.score([pair(each, text) for text in texts])
        naive = [score(each, text) for text in texts]
        assert expit(scores).tolist() == pytest.approx(naive, abs=1e-5)


# Blocks


class Stopping(Miner):
    """Is killed when it comes to a query."""

    stop_at = 0

    def mine(self, start: int, stop: int) -> list[Mined]:
        self.started = [*getattr(self, "started", []), start]
        if start <= self.stop_at < stop:
            raise KeyboardInterrupt
        return super().mine(start, stop)


def test_blocks_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    groups = [group(f"query {number}", LINE[:1]) for number in range(600)]
    queries, corpus = make(tmp_path / "corpus", groups, LINE[:300])
    index = on_a_line(tmp_path, queries, corpus, 300)
    miner = Stopping(queries, corpus, index, Policy(random_share=0.3))
    expected = Miner(queries, corpus, index, miner.policy).mine(0, 600)
    blocks = Blocks(tmp_path / "blocks", 600)
    miner.stop_at = 550
    with pytest.raises(KeyboardInterrupt):
        blocks.mine(miner, show_progress=False)
    assert miner.started == [0, 256, 512]
    miner.stop_at = -1
    blocks.mine(miner, show_progress=False)
    assert miner.started == [0, 256, 512, 512]
    assert list(blocks) == expected
    assert [blocks[at] for at in (599, 0, 256, 255, 0)] == [
        expected[at] for at in (599, 0, 256, 255, 0)
    ]


def test_one_result_is_read_without_those_beside_it(tmp_path: Path) -> None:
    """Rows that repeat queries ask for them in any order, and a block holds up to 2,048."""
    one = Mined([Candidate(7, 2, 0.5)], [], 1, 0.9, 3, {"a positive": 2})
    lines = ["猫 is no JSON"] * 256
    lines[100] = json.dumps(one)
    (tmp_path / "block-000000000.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert Blocks(tmp_path, 256)[100] == one


def test_larger_runs_have_larger_blocks() -> None:
    sizes = [Blocks(Path(), count).size for count in (1, 5_000, 16_000, 10**6)]
    assert sizes == [256, 312, 1000, 2048]
