"""Thread-safe tokenization of texts and pairs, with the tokens of the model's own tokenizer.

A transformers tokenizer mutates itself when it is called with a length, so threads cannot share
it. Here the tokenizer of ``tokenizers`` below it is used, which is never changed: truncation and
special tokens are added by hand. A query that occurs in many pairs is tokenized once, which a
copy of the transformers tokenizer for each thread would not do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from common import prompts
from serving.http.errors import wrong_field

# A long text is cut before it is tokenized, to so many characters for each token that it may have:
# millions of characters take seconds. If the head gives too few tokens, the whole is tokenized.
CHARACTERS_PER_TOKEN = 16
# Tokens at the end of a head that may differ from those of the whole text. WordPiece makes one
# token of a word of more than 100 letters, and of what is left of it in the head as many as 100.
MARGIN = 128

Side = Literal["left", "right"]


class Truncation(NamedTuple):
    """How texts that are too long are truncated.

    Args:
        allowed: Whether they may be truncated; None: as the server's limits say.
        side: At which side; None: as the model's tokenizer does.
        max_document: Tokens after which the document of a pair is cut in any case.
    """

    allowed: bool | None = None
    side: Side | None = None
    max_document: int | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text or pair for the model.

    Args:
        input_ids: With special tokens.
        token_type_ids: 0 in the first text, 1 in the second, as the tokenizer says.
        truncated: Whether something was cut off.
        too_long: Whether it was because there is more than the model takes.
        texts: The pair or text of a model that reads texts one by one; it tokenizes them anew.
        read_as: What such a text is read as; None: it is a pair.
        prompt: What stands before the text.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    truncated: bool
    too_long: bool = False
    texts: tuple[str, ...] | None = None
    read_as: prompts.Side | None = None
    prompt: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)


class SpecialTokens(NamedTuple):
    """The special tokens around one text, or two: before, (between,) and after, ids and types."""

    ids: list[list[int]]
    types: list[list[int]]
    text_types: list[int]

    @property
    def size(self) -> int:
        """How many special tokens there are."""
        return sum(map(len, self.ids))

    @property
    def min_length(self) -> int:
        """The tokens of the shortest input: the special ones, and one of each text."""
        return self.size + len(self.text_types)


class TextTokenizer:
    """The tokenizer of a model.

    Args:
        tokenizer: The model's.
        max_length: Tokens of a text or pair, special ones included.

    Raises:
        ValueError: The tokenizer is written in Python alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(
                f"model: {type(tokenizer).__name__} has no tokenizer.json and cannot be served; "
                "save the model with a fast tokenizer"
            )
        self.raw = Tokenizer.from_str(backend.to_str())
        self.raw.no_truncation()
        self.raw.no_padding()
        # Whether "[SEP]" within a text is text; what to_str() gives does not say.
        self.raw.encode_special_tokens = tokenizer.split_special_tokens
        self.max_length = max_length
        self._head = CHARACTERS_PER_TOKEN * max_length + 8 * MARGIN
        self.side: Side = "left" if tokenizer.truncation_side == "left" else "right"
        self.single = self._special_tokens("a")
        self.pair = self._special_tokens("a", "a")

    def texts(
        self, texts: Sequence[str], side: Side | None = None, max_length: int | None = None
    ) -> list[Tokens]:
        """Tokens of each text; ``side`` is where it is cut, if it must be, to ``max_length``."""
        side, length = side or self.side, max_length or self.max_length
        room = length - self.single.size
        found = [self._single_text(ids, side, length) for ids in self._encode(texts, room, side)]
        return [replace(t, prompt=prompts.prompt_of(x)) for t, x in zip(found, texts, strict=True)]

    def pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        side: Side | None = None,
        max_document: int | None = None,
    ) -> list[Tokens]:
        """Tokens of each pair joined, the longer text cut first.

        Args:
            pairs: Queries with documents.
            side: Where a text is cut.
            max_document: Tokens after which a document is cut in any case.
        """
        side = side or self.side
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        room = self.max_length - self.pair.size
        ids = dict(zip(texts, self._encode(texts, room, side), strict=True))
        for pair in pairs:
            # Each text gets half, and of an odd room the longer one a token more: which is it?
            if room % 2 and min(len(ids[text]) for text in pair) > room:
                ids |= {text: self._whole(text) for text in pair if len(text) > self._head}
        return [
            self._joined(ids[query], ids[document], side, max_document) for query, document in pairs
        ]

    def separate_texts(
        self, texts: Sequence[str], read_as: prompts.Side, length: int, truncation: Truncation
    ) -> list[Tokens]:
        """Queries or documents for a model that reads each alone, up to ``length`` tokens.

        Raises:
            ServingError: A text would be cut otherwise than such a model does it.
        """
        found = self.texts(texts, max_length=length)
        if truncation.side not in (None, self.side) and any(each.truncated for each in found):
            raise wrong_field(
                "truncation_direction", f"this model truncates texts on the {self.side} only"
            )
        most = truncation.max_document if read_as == "document" else None
        if most is not None and any(len(each) - self.single.size > most for each in found):
            raise wrong_field(
                "max_tokens_per_doc", f"this model truncates documents at {length} tokens only"
            )
        given = zip(found, texts, strict=True)
        return [replace(each, texts=(text,), read_as=read_as) for each, text in given]

    def separate_pairs(
        self, pairs: Sequence[tuple[str, str]], lengths: tuple[int, int], truncation: Truncation
    ) -> list[Tokens]:
        """The texts of each pair, for such a model; raises as ``separate_texts``."""
        queries, documents = zip(*pairs, strict=True)
        asked = self.separate_texts(queries, "query", lengths[0], truncation)
        found = self.separate_texts(documents, "document", lengths[1], truncation)
        made = []
        for query, document, pair in zip(asked, found, pairs, strict=True):
            ids, cut = query.input_ids + document.input_ids, query.truncated or document.truncated
            made.append(Tokens(ids, [], cut, cut, pair))
        return made

    def given_ids(self, ids: Sequence[int], side: Side | None = None) -> Tokens:
        """Ids of a text, with or without special tokens, as sent by a client."""
        before, after = self.single.ids
        has_special = (
            list(ids[: len(before)]) == before and list(ids[len(ids) - len(after) :]) == after
        )
        own = list(ids[len(before) : len(ids) - len(after)]) if has_special else list(ids)
        return self._single_text(own, side or self.side, self.max_length)

    def pieces(self, text: str, add_special_tokens: bool) -> list[dict[str, Any]]:
        """Each token's id, text, and bytes of ``text`` from ``start`` to ``stop``."""
        encoding = self.raw.encode(text, add_special_tokens=add_special_tokens)
        starts = list(accumulate((len(letter.encode()) for letter in text), initial=0))
        found = []
        for id_, token, (start, stop), special in zip(
            encoding.ids,
            encoding.tokens,
            encoding.offsets,
            encoding.special_tokens_mask,
            strict=True,
        ):
            # A special token written out in the text stands somewhere.
            added = special and start == stop
            found.append(
                {
                    "id": id_,
                    "text": token if added else text[start:stop],
                    "special": bool(special),
                    "start": None if added else starts[start],
                    "stop": None if added else starts[stop],
                }
            )
        return found

    def _special_tokens(self, first: str, second: str | None = None) -> SpecialTokens:
        encoding = self.raw.encode(first, second)
        count = 1 if second is None else 2
        ids: list[list[int]] = [[] for _ in range(count + 1)]
        types: list[list[int]] = [[] for _ in range(count + 1)]
        text_types = [0] * count
        at = 0
        for id_, kind, text in zip(
            encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True
        ):
            if text is None:
                ids[at].append(id_)
                types[at].append(kind)
            else:
                at = text + 1
                text_types[text] = kind
        return SpecialTokens(ids, types, text_types)

    def _encode(self, texts: Sequence[str], room: int, side: Side) -> list[list[int]]:
        """Ids of each text without special tokens: all, or more than ``room`` of them."""
        size = self._head
        heads = [text[:size] if side == "right" else text[-size:] for text in texts]
        found = self.raw.encode_batch_fast(heads, add_special_tokens=False)
        all_ids = [encoding.ids for encoding in found]
        for at, text in enumerate(texts):
            if len(text) > size and len(all_ids[at]) < room + MARGIN:
                all_ids[at] = self._whole(text)
        return all_ids

    def _whole(self, text: str) -> list[int]:
        ids: list[int] = self.raw.encode(text, add_special_tokens=False).ids
        return ids

    def _single_text(self, ids: list[int], side: Side, max_length: int) -> Tokens:
        kept = _cut(ids, max_length - self.single.size, side)
        return _with_special_tokens(self.single, [kept], len(ids), len(ids))

    def _joined(
        self, query: list[int], document: list[int], side: Side, max_document: int | None
    ) -> Tokens:
        whole = len(query) + len(document)
        if max_document is not None:
            document = _cut(document, max_document, side)
        room = self.max_length - self.pair.size
        sizes = longest_first(len(query), len(document), room)
        kept = [_cut(query, sizes[0], side), _cut(document, sizes[1], side)]
        return _with_special_tokens(self.pair, kept, whole, len(query) + len(document))


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens left of two texts after the longer one is cut until both fit.

    The rule of ``tokenizers`` for "longest_first", which cuts both to half if neither fits.
    """
    if first + second <= room:
        return first, second
    short, long = sorted((first, second))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (short, long) if first <= second else (long, short)


def _cut(ids: list[int], room: int, side: Side) -> list[int]:
    if len(ids) <= room:
        return ids
    return ids[:room] if side == "right" else ids[len(ids) - room :]


def _with_special_tokens(
    special: SpecialTokens, texts: list[list[int]], whole: int, wanted: int
) -> Tokens:
    """Texts within special tokens, given the ids that there were and those that were wanted."""
    kept = sum(map(len, texts))
    ids, types = list(special.ids[0]), list(special.types[0])
    for at, text in enumerate(texts):
        ids += text
        types += [special.text_types[at]] * len(text)
        ids += special.ids[at + 1]
        types += special.types[at + 1]
    return Tokens(ids, types, kept < whole, kept < wanted)
