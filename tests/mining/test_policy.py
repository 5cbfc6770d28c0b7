"""Which candidates are tried, in which order, and where limits lie."""

import math
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mining.picker import Candidate, Picker
from mining.policy import Limits, Policy


def test_shares_are_rounded_to_whole_negatives() -> None:
    assert Policy(num_negatives=10, random_share=0.3).wanted == (7, 3)
    assert Policy(num_negatives=7, random_share=0.3).wanted == (5, 2)
    assert Policy(num_negatives=7).wanted == (7, 0)
    assert Policy(num_negatives=2, random_share=0.25).wanted == (1, 1)
    assert Policy(num_negatives=4, random_share=1.0).wanted == (0, 4)


def test_no_more_is_ranked_than_is_looked_at() -> None:
    assert Policy(rank_range=(2, 50)).depth == 50
    assert Policy(random_share=0.5, random_from=1000).depth == 1000
    assert Policy(random_share=1.0, random_from=10, rank_range=(2, 50)).depth == 10
    assert Policy(random_share=1.0).depth == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_negatives": 0}, "num_negatives: must be at least 1, got 0"),
        ({"rank_range": (5, 4)}, "rank_range: must be two ranks in rising order, from 1, got 5 4"),
        ({"rank_range": (0, 4)}, "rank_range: must be at least 1, got 0"),
        ({"random_share": 1.5}, "random_share: must be from 0 to 1, got 1.5"),
        ({"random_share": 0.05}, "random_share: 0.05 of 7 negatives is less than half of one"),
        ({"random_from": 9}, "random_from: is for random negatives; give random_share too"),
        ({"random_from": 0, "random_share": 0.5}, "random_from: must be at least 1, got 0"),
        ({"near_duplicates": 1.5}, "near_duplicates: must be at most 1, got 1.5"),
        ({"relative_margin": -0.1}, r"relative_margin: must be at least 0, got -0\.1"),
    ],
)
def test_impossible_choices_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**settings)  # type: ignore[arg-type]


def test_limits_lie_where_they_say() -> None:
    assert Limits(max_score=0.5).broken(0.5, positive=0.1) is None
    assert Limits(max_score=0.5).broken(math.nextafter(0.5, 1), 0.1) == "max_score"
    assert Limits(absolute_margin=0.25).broken(0.5, positive=0.75) is None
    assert Limits(absolute_margin=0.25).broken(0.501, 0.75) == "absolute_margin"
    assert Limits(relative_margin=0.05).broken(9.5, positive=10.0) is None
    assert Limits(relative_margin=0.05).broken(9.51, 10.0) == "relative_margin"
    # Below 0 a margin still leads downwards.
    assert Limits(relative_margin=0.5).broken(-3.0, positive=-2.0) is None
    assert Limits(relative_margin=0.5).broken(-2.9, -2.0) == "relative_margin"
    assert Limits(relative_margin=0.0).broken(1.0, positive=1.0) is None
    assert Limits(absolute_margin=0.0).broken(1.01, positive=1.0) == "absolute_margin"


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 40), st.integers(0, 5))
def test_hard_ranks_are_those_of_the_range_that_were_found(
    first: int, more: int, found: int, seed: int
) -> None:
    policy = Policy(rank_range=(first, first + more), seed=seed)
    expected = [rank for rank in range(1, found + 1) if first <= rank <= first + more]
    assert sorted(policy.hard_ranks("问题", found)) == expected
    top = Policy(rank_range=(first, first + more), sampling="top")
    assert list(top.hard_ranks("问题", found)) == expected


@given(st.integers(1, 3000), st.integers(0, 3))
def test_random_places_are_all_places_each_once(size: int, seed: int) -> None:
    assert sorted(Policy(seed=seed).random_places("q", size)) == list(range(size))


def test_draws_depend_on_the_seed_and_the_query_alone() -> None:
    def draws(policy: Policy, query: str) -> tuple[list[int], list[int]]:
        places = list(islice(policy.random_places(query, 10**9), 5))
        return list(policy.hard_ranks(query, 200)), places

    one = draws(Policy(), "what is BM25?")
    assert draws(Policy(num_negatives=3), "what is BM25?") == one
    for other in (draws(Policy(seed=1), "what is BM25?"), draws(Policy(), "什么是 BM25？")):
        assert other[0] != one[0]
        assert set(other[1]).isdisjoint(one[1])


def test_random_draws_reach_all_of_a_corpus_alike() -> None:
    quarters = [0] * 4
    for query in range(2000):
        (place,) = islice(Policy().random_places(f"query {query}", 1000), 1)
        quarters[place // 250] += 1
    assert all(420 < count < 580 for count in quarters)  # 500 each, by more than four deviations


def candidates(*places: int) -> list[Candidate]:
    return [Candidate(place, place + 1, None) for place in places]


def test_a_picker_fills_up_what_a_judge_removes() -> None:
    picker = Picker(
        iter(candidates(5, 3, 9, 1, 7, 2)),
        iter(candidates(3, 20, 21, 22)),
        (2, 2),
        lambda candidate: "odd one" if candidate.place == 9 else None,
    )
    # 3 was proposed as a hard one already; 9 breaks a rule.
    first = [(kind, one.place) for kind, one in picker.propose()]
    assert first == [(0, 5), (0, 3), (1, 20), (1, 21)]
    for kind, one in [(0, candidates(5)[0]), (1, candidates(20)[0])]:
        picker.taken[kind].append(one)
    picker.removed["too good"] += 2
    second = picker.propose()
    assert [(kind, one.place) for kind, one in second] == [(0, 1), (1, 22)]
    for kind, one in second:
        picker.taken[kind].append(one)
    assert picker.propose() == []
    # Hard ones by rank, random ones as drawn.
    assert [one.place for one in picker.negatives()] == [1, 5, 20, 22]
    assert picker.looked_at == 7
    assert picker.removed == {"odd one": 1, "too good": 2}


def test_a_picker_that_runs_dry_gives_what_it_has() -> None:
    picker = Picker(iter(candidates(1)), iter(()), (3, 1), lambda _: None)
    for kind, one in picker.propose():
        picker.taken[kind].append(one)
    assert picker.propose() == []
    assert [one.place for one in picker.negatives()] == [1]
