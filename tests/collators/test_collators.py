"""Collators against exact tensors, and what is drawn for a row against what it may depend on."""

import pickle
from typing import Any

import pytest
import torch
from transformers import BertTokenizer

from collators import ContrastiveCollator, GroupCollator, PairCollator, ScoredPairCollator
from collators.epochs import EpochRows, EpochSampler
from collators.mixture import MixtureRows, MixtureSampler, SourceRows
from collators.sampling import draw_group
from losses import ContrastiveLoss, ListwiseLoss, PairwiseLoss
from losses.contrastive import GatheredQueries

CAT, DOG, RAIN = "a cat sat", "the dog slept", "今天天气很好"


def ids(tokenizer: BertTokenizer, *texts: str) -> list[int]:
    return list(tokenizer(*texts)["input_ids"])


def tokens(batch: dict[str, Any]) -> list[list[int]]:
    """The ids of each text of a batch, without padding."""
    rows = zip(batch["texts"]["input_ids"], batch["texts"]["attention_mask"].bool(), strict=True)
    return [row[mask].tolist() for row, mask in rows]


def scored(query: str, doc: str, rel: float, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"query": query, "doc": doc, "rel": rel, "weight": weight, "prompt": None, **more}


def positive(query: str, pos_doc: str, row: int = 0, **more: Any) -> dict[str, Any]:
    given = {"query": query, "pos_doc": pos_doc, "negatives": [], "other_positives": []}
    return {**given, "prompt": None, "row": row, "epoch": 0, **more}


def group(query: str, pos: list[str], neg: list[str], **more: Any) -> dict[str, Any]:
    given = {"query": query, "pos": pos, "neg": neg, "pos_scores": None, "neg_scores": None}
    return {**given, "prompt": None, "row": 0, "epoch": 0, **more}


def test_scored_pairs_encode_a_repeated_text_once(tiny_tokenizer: BertTokenizer) -> None:
    collate = ScoredPairCollator(tiny_tokenizer, query_max_length=16, document_max_length=16)
    batch = collate([scored(CAT, DOG, 1.0, 2.0), scored(CAT, RAIN, 0.25), scored(RAIN, CAT, 0.0)])
    assert batch["relevances"].tolist() == [1.0, 0.25, 0.0]
    assert batch["weights"].tolist() == [2.0, 1.0, 1.0]
    assert batch["queries"].tolist() == [0, 0, 1]
    assert batch["documents"].tolist() == [2, 1, 0]
    wanted = [ids(tiny_tokenizer, text) for text in (CAT, RAIN, DOG)]
    assert tokens(batch) == wanted
    assert batch["texts"]["input_ids"].shape[1] == max(map(len, wanted))


def test_prompts_and_lengths_of_each_side(tiny_tokenizer: BertTokenizer) -> None:
    collate = ScoredPairCollator(
        tiny_tokenizer,
        query_max_length=4,
        document_max_length=6,
        query_prompt="the ",
        document_prompt="on ",
    )
    batch = collate([scored(CAT, CAT, 1.0), scored(CAT, CAT, 1.0, prompt="dog ")])
    rows = batch["texts"]["input_ids"]
    word = dict(zip(CAT.split(), ids(tiny_tokenizer, CAT)[1:-1], strict=True))
    cls, sep = tiny_tokenizer.cls_token_id, tiny_tokenizer.sep_token_id
    the, dog, on = ids(tiny_tokenizer, "the dog on")[1:-1]
    pad = [tiny_tokenizer.pad_token_id] * 2
    assert rows[batch["queries"][0]].tolist() == [cls, the, word["a"], sep, *pad]
    assert rows[batch["queries"][1]].tolist() == [cls, dog, word["a"], sep, *pad]
    sentence = [cls, on, word["a"], word["cat"], word["sat"], sep]
    assert rows[batch["documents"][0]].tolist() == sentence
    assert batch["documents"].tolist()[0] == batch["documents"].tolist()[1]
    cut = collate.count_truncated([scored(CAT, CAT, 1.0)])
    assert cut == {"query_max_length": (1, 1), "document_max_length": (0, 1)}


def test_the_same_text_with_two_limits_is_two_texts(tiny_tokenizer: BertTokenizer) -> None:
    collate = ScoredPairCollator(tiny_tokenizer, query_max_length=4, document_max_length=8)
    batch = collate([scored(CAT, CAT, 1.0)])
    assert batch["texts"]["attention_mask"].sum(dim=1).tolist() == [4, 5]


def test_contrastive_positives_and_hard_negatives(tiny_tokenizer: BertTokenizer) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16, train_group_size=2)
    batch = collate([positive(CAT, DOG, 0, negatives=[RAIN]), positive(RAIN, CAT, 1)])
    texts = tokens(batch)
    documents = [texts[row] for row in batch["documents"].tolist()]
    assert documents == [ids(tiny_tokenizer, text) for text in (DOG, CAT, RAIN)]
    queries = [texts[row] for row in batch["queries"].tolist()]
    assert queries == [ids(tiny_tokenizer, CAT), ids(tiny_tokenizer, RAIN)]
    assert batch["positives"].tolist() == [0, 1]
    assert batch["false_negative_mask"].tolist() == [[False] * 3] * 2
    assert len(texts) == 3  # CAT and RAIN are a query and a document each


def test_a_repeated_document_stands_in_the_batch_once(tiny_tokenizer: BertTokenizer) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16)
    batch = collate([positive(CAT, DOG, 0), positive(RAIN, DOG, 1, negatives=[DOG])])
    assert batch["positives"].tolist() == [0, 0]
    assert batch["false_negative_mask"].tolist() == [[False], [False]]


def test_other_positives_of_a_query_are_no_negatives(tiny_tokenizer: BertTokenizer) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16)
    rows = [
        positive(CAT, DOG, 0),
        positive(CAT, RAIN, 1),  # same query, another document
        positive(RAIN, "on the mat", 2, other_positives=[DOG, "not in the batch"]),
    ]
    batch = collate(rows)
    assert batch["positives"].tolist() == [0, 1, 2]
    assert batch["false_negative_mask"].tolist() == [
        [False, True, False],
        [True, False, False],
        [True, False, False],
    ]


def test_hard_negatives_of_one_row_that_answer_another_row_of_the_same_query(
    tiny_tokenizer: BertTokenizer,
) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16)
    rows = [
        positive(CAT, DOG, 0, negatives=[RAIN, "on the mat"], prompt="P: "),
        positive(CAT, RAIN, 1),
        positive(DOG, "a csv file", 2),
    ]
    batch = collate(rows)
    places = {text: at for at, text in enumerate([DOG, RAIN, "a csv file", "on the mat"])}
    assert batch["positives"].tolist() == [0, 1, 2]
    assert batch["false_negative_mask"].shape == (3, 4)
    excluded = [
        [text for text, at in places.items() if batch["false_negative_mask"][row, at]]
        for row in range(3)
    ]
    assert excluded == [[RAIN], [DOG], []]


def test_hard_negatives_are_no_known_positive_and_no_text_twice(
    tiny_tokenizer: BertTokenizer,
) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16, train_group_size=3)
    negatives = [DOG, RAIN, "on the mat", "on the mat", "a csv file"]
    row = positive(CAT, DOG, 0, negatives=negatives, other_positives=[RAIN])
    for epoch in range(20):
        drawn = collate.hard_negatives({**row, "epoch": epoch})
        assert sorted(drawn) == ["a csv file", "on the mat"]
    assert collate.count_truncated([row]) == {
        "query_max_length": (0, 1),
        "document_max_length": (0, 3),
    }


def test_the_symmetric_loss_masks_what_the_batch_excludes(tiny_tokenizer: BertTokenizer) -> None:
    """Rows of one query, of one document, and twice the same row, against what they mean."""
    rows = [
        positive(CAT, DOG, 0),
        positive(CAT, RAIN, 1),  # the same query
        positive("the mat", DOG, 2),  # the same document
        positive(CAT, DOG, 3),  # the same row
        positive("a csv file", CAT, 4, other_positives=[RAIN]),
    ]
    batch = ContrastiveCollator(tiny_tokenizer, 16, 16)(rows)
    gathered = GatheredQueries.of_batch(
        torch.zeros(5, 2), batch["positives"], batch["false_negative_mask"]
    )
    answers = {CAT: {DOG, RAIN}, "the mat": {DOG}, "a csv file": {CAT, RAIN}}
    for at, row in enumerate(rows):
        for other, query in enumerate(rows):
            relevant = row["pos_doc"] in answers[query["query"]] and other != at
            assert gathered.false_negative_mask[at, other].item() == relevant, (at, other)


def test_one_row_alone_has_nothing_to_tell_apart(tiny_tokenizer: BertTokenizer) -> None:
    batch = ContrastiveCollator(tiny_tokenizer, 16, 16)([positive(CAT, CAT, 0)])
    assert batch["texts"]["input_ids"].shape[0] == 1
    assert batch["positives"].tolist() == [0]
    vectors = torch.ones(1, 4, requires_grad=True)
    for symmetric in (False, True):
        loss = ContrastiveLoss(symmetric=symmetric)(
            vectors, vectors, batch["positives"], batch["false_negative_mask"]
        )
        loss.backward()
        assert loss.item() == 0.0
    assert vectors.grad is not None and not vectors.grad.any()


def test_prompts_of_rows_replace_the_runs_prompt_in_a_mixed_batch(
    tiny_tokenizer: BertTokenizer,
) -> None:
    rows = [positive(CAT, DOG, 0), positive(CAT, DOG, 1, prompt="dog "), positive(CAT, DOG, 2)]
    rows[2]["prompt"] = ""  # an empty prompt is a prompt
    collate = ContrastiveCollator(
        tiny_tokenizer, 16, 16, query_prompt="the ", document_prompt="on "
    )
    batch = collate(rows)
    texts = tokens(batch)
    found = [texts[row] for row in batch["queries"].tolist()]
    expected = [f"the {CAT}", f"dog {CAT}", CAT]
    assert found == [ids(tiny_tokenizer, text) for text in expected]
    (document,) = batch["documents"].tolist()
    assert texts[document] == ids(tiny_tokenizer, f"on {DOG}")
    pairs = PairCollator(tiny_tokenizer, 32, query_prompt="the ", document_prompt="on ")
    scores = pairs([scored(CAT, DOG, 1.0), scored(CAT, DOG, 1.0, prompt="dog ")])
    assert tokens(scores) == [
        ids(tiny_tokenizer, f"{prompt} {CAT}", f"on {DOG}") for prompt in ("the", "dog")
    ]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((2, 8), "query_max_length: 2 leaves no room"),
        ((3, 1), "document_max_length: 1 leaves no room"),
    ],
)
def test_lengths_without_room_for_a_text(
    lengths: tuple[int, int], expected: str, tiny_tokenizer: BertTokenizer
) -> None:
    """Tokenizers do not keep to them: a limit of 1 cuts nothing."""
    assert len(tiny_tokenizer(CAT, truncation=True, max_length=1)["input_ids"]) > 2
    with pytest.raises(ValueError, match=expected):
        ScoredPairCollator(tiny_tokenizer, *lengths)


def test_a_pair_needs_room_for_both_texts(tiny_tokenizer: BertTokenizer) -> None:
    with pytest.raises(ValueError, match=r"max_length: 4 leaves no room .* give at least 5"):
        GroupCollator(tiny_tokenizer, max_length=4)
    batch = GroupCollator(tiny_tokenizer, max_length=5)([group(CAT, [DOG], [RAIN])])
    assert batch["texts"]["input_ids"].shape == (2, 5)


def test_pairs_are_joined_by_the_tokenizer(tiny_tokenizer: BertTokenizer) -> None:
    collate = PairCollator(tiny_tokenizer, max_length=32)
    batch = collate([scored(CAT, DOG, 1.0, 2.0), scored(CAT, RAIN, 0.5)])
    assert batch["relevances"].tolist() == [1.0, 0.5]
    assert batch["weights"].tolist() == [2.0, 1.0]
    assert tokens(batch) == [ids(tiny_tokenizer, CAT, text) for text in (DOG, RAIN)]
    kinds = batch["texts"]["token_type_ids"][0][batch["texts"]["attention_mask"][0].bool()]
    assert kinds.tolist() == [0] * (len(ids(tiny_tokenizer, CAT))) + [1] * 4


def test_the_document_is_cut_before_the_query(tiny_tokenizer: BertTokenizer) -> None:
    collate = PairCollator(tiny_tokenizer, max_length=10)
    batch = collate([scored(CAT, " ".join([DOG] * 9), 1.0)])
    row = batch["texts"]["input_ids"][0].tolist()
    assert row[:5] == ids(tiny_tokenizer, CAT)
    assert len(row) == 10
    assert collate.count_truncated([scored(CAT, " ".join([DOG] * 9), 1.0)]) == {
        "max_length": (1, 1)
    }


def test_groups_are_padded_to_the_largest(tiny_tokenizer: BertTokenizer) -> None:
    collate = GroupCollator(tiny_tokenizer, max_length=32, train_group_size=3)
    batch = collate([group(CAT, [DOG], [RAIN, "on the mat"]), group(RAIN, [CAT], [DOG], row=1)])
    assert batch["relevances"].tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert batch["mask"].tolist() == [[True, True, True], [True, True, False]]
    assert len(batch["texts"]["input_ids"]) == 5
    assert tokens(batch)[0] == ids(tiny_tokenizer, CAT, DOG)


# What is drawn

MANY = [f"negative {number}" for number in range(20)]


def test_a_draw_depends_on_seed_epoch_and_row_alone() -> None:
    row = group(CAT, ["p0", "p1", "p2"], MANY)
    first = draw_group(row, 8, seed=1)
    torch.rand(3)  # global generators take no part
    assert draw_group(dict(row), 8, seed=1) == first
    others = [
        draw_group({**row, "epoch": 1}, 8, seed=1),
        draw_group({**row, "row": 1}, 8, seed=1),
        draw_group(row, 8, seed=2),
    ]
    assert all(other != first for other in others)


def test_every_negative_and_every_positive_comes_up() -> None:
    row = group(CAT, ["p0", "p1", "p2"], MANY)
    seen = {
        text for epoch in range(40) for text, _ in draw_group({**row, "epoch": epoch}, 8, seed=0)
    }
    assert seen == {"p0", "p1", "p2", *MANY}


def test_a_binary_group_is_one_positive_and_negatives() -> None:
    drawn = draw_group(group(CAT, ["p0", "p1"], MANY), 8, seed=0)
    assert [relevance for _, relevance in drawn] == [1.0] + [0.0] * 7
    assert len({text for text, _ in drawn}) == 8


def test_a_small_group_is_taken_whole_and_nothing_repeats() -> None:
    drawn = draw_group(group(CAT, ["p0"], ["n0", "n1"]), 8, seed=0)
    assert drawn[0] == ("p0", 1.0)
    assert sorted(drawn[1:]) == [("n0", 0.0), ("n1", 0.0)]


def test_a_positive_is_never_its_own_negative() -> None:
    row = group(CAT, ["p0", "p1", "p0"], ["p0", "n0", "n0", "p1"])
    seen = {tuple(draw_group({**row, "epoch": epoch}, 8, seed=0)) for epoch in range(20)}
    assert seen == {(("p0", 1.0), ("n0", 0.0)), (("p1", 1.0), ("n0", 0.0))}
    scores = {"pos_scores": [0.75, 1.0, 0.5], "neg_scores": [0.25, 0.0, 0.25, 0.0]}
    drawn = draw_group({**row, **scores, "graded": True}, 8, seed=0)
    assert sorted(drawn) == [("n0", 0.25), ("p0", 0.75), ("p1", 1.0)]


def test_a_group_of_one_candidate_gives_a_connected_zero(tiny_tokenizer: BertTokenizer) -> None:
    """A query with one judged document; its collator and losses take it as it is."""
    row = group(CAT, [], [DOG], pos_scores=[], neg_scores=[0.25], graded=True)
    batch = GroupCollator(tiny_tokenizer, max_length=32)([row])
    assert batch["mask"].tolist() == [[True]]
    assert batch["relevances"].tolist() == [[0.25]]
    for loss in (PairwiseLoss(), PairwiseLoss(margin=1.0), ListwiseLoss()):
        scores = torch.ones(1, requires_grad=True)
        value = loss(scores, batch["relevances"], batch["mask"])
        value.backward()
        assert value.item() == 0.0
        assert scores.grad is not None and scores.grad.tolist() == [0.0]


def test_a_graded_group_takes_its_scores_and_any_candidate() -> None:
    row = group(CAT, ["p0", "p1"], ["n0"], pos_scores=[1.0, 0.75], neg_scores=[0.25], graded=True)
    drawn = draw_group(row, 8, seed=0)
    assert sorted(drawn) == [("n0", 0.25), ("p0", 1.0), ("p1", 0.75)]
    assert drawn[0][0] in {"p0", "p1"}


@pytest.mark.parametrize("kind", [ScoredPairCollator, ContrastiveCollator])
def test_collators_travel_to_dataloader_workers(
    kind: type[ScoredPairCollator | ContrastiveCollator], tiny_tokenizer: BertTokenizer
) -> None:
    collate = pickle.loads(pickle.dumps(kind(tiny_tokenizer, 8, 8)))
    assert collate.query_max_length == 8


@pytest.mark.parametrize("seed", [2**32, 2**63, 2**70])
def test_any_seed_orders_the_rows(seed: int) -> None:
    for sampler in (EpochSampler(5, seed), MixtureSampler([5], [1.0], seed, 1)):
        assert sorted(sampler) == list(range(5))


def test_a_negative_seed_is_refused_before_training() -> None:
    for rows in (EpochRows([{}]), MixtureRows([SourceRows("one", [{}])], one_source=False)):
        with pytest.raises(ValueError, match="data_seed: must be at least 0, got -1"):
            rows.sampler(-1, 1)


def test_an_iteration_over_rows_ends() -> None:
    """Any index is a row, of a later epoch: by index alone a loop would never end."""
    rows = EpochRows([{"query": "a"}, {"query": "b"}])
    assert list(rows) == [
        {"query": "a", "row": 0, "epoch": 0},
        {"query": "b", "row": 1, "epoch": 0},
    ]
    one, other = [{"query": "a", "prompt": None}], [{"query": "b", "prompt": None}]
    mixed = MixtureRows([SourceRows("one", one), SourceRows("other", other)], one_source=False)
    assert [(row["query"], row["source"]) for row in mixed] == [("a", 0), ("b", 1)]


@pytest.mark.parametrize("kind", [GroupCollator, PairCollator])
def test_candidates_of_other_rows_are_negatives(kind: Any, tiny_tokenizer: BertTokenizer) -> None:
    """Never what is judged for its query, in its row or elsewhere in the batch."""
    rows: list[dict[str, Any]] = [
        {"query": "a", "pos": ["p1"], "neg": ["n1", "n2"], "prompt": None},
        {"query": "b", "pos": ["p2"], "neg": ["n1", "n3"], "prompt": None},
        {"query": "a", "pos": ["p3"], "neg": ["n4"], "prompt": None},
    ]
    rows = [{**row, "row": at, "epoch": 0} for at, row in enumerate(rows)]
    plain = kind(tiny_tokenizer, 16, train_group_size=3)
    wide = kind(tiny_tokenizer, 16, train_group_size=3, in_batch_negatives=2)
    widest = kind(tiny_tokenizer, 16, train_group_size=3, in_batch_negatives=99)
    own, some, every = plain.groups(rows), wide.groups(rows), widest.groups(rows)
    possible = [{"n3", "p2"}, {"p1", "n2", "p3", "n4"}, {"n3", "p2"}]
    for at in range(3):
        added = some[at][len(own[at]) :]
        assert some[at][: len(own[at])] == own[at] and len(added) == 2
        assert {text for text, _ in added} <= possible[at] and {rel for _, rel in added} == {0.0}
        assert {text for text, _ in every[at][len(own[at]) :]} == possible[at]
    assert wide.groups(rows) == some
    graded = {"graded": True, "pos_scores": [1.0], "neg_scores": [0.5, 0.0], "epoch": 0}
    grades = [rows[0] | graded, rows[2] | graded | {"neg": ["n4", "n5"]}]
    assert sorted(rel for _, rel in widest.groups(grades)[0]) == [0.0, 0.5, 1.0]
    later = [{**row, "epoch": epoch} for epoch in range(1, 6) for row in rows[:1]]
    assert len({str(wide.groups([row, *rows[1:]])[0]) for row in later}) > 1
    pairs = sum(map(len, some))
    assert wide(rows)["texts"]["input_ids"].shape[0] == pairs == sum(map(len, own)) + 6
