"""Draw judged rows in Chinese or English, to try a recipe or a format with."""

import random
from typing import Literal

from preparation.sample import chinese as sample_zh
from preparation.sample import english as sample_en

Language = Literal["zh", "en"]
Row = dict[str, str | float]

_TOPICS = {"en": sample_en.TOPICS, "zh": sample_zh.TOPICS}
_ROWS_PER_QUERY = 5
MIN_ROWS, MAX_ROWS = 50, 200

# The relevance of a topic's three answers. They were judged when they were written: weight 1.
_GRADES = (1.0, 0.6, 0.2)
# The answers to other questions are taken to be irrelevant, but nobody looked: weight 0.5.
_UNJUDGED_WEIGHT = 0.5


def sample_rows(language: Language, rows: int = 100, seed: int = 42) -> dict[str, list[Row]]:
    """Rows ``{"key", "query", "doc", "rel", "weight"}`` in three parts, train, test and val.

    Each question has five documents: a full answer (rel 1.0), a partial one (0.6), a text on the
    same subject that does not answer it (0.2), and two answers to other questions (0.0, with
    weight 0.5). The parts, 60/20/20, share no question, in any phrasing, and no document.
    """
    if not MIN_ROWS <= rows <= MAX_ROWS:
        raise ValueError(f"rows: must be from {MIN_ROWS} to {MAX_ROWS}, got {rows}")
    topics = list(range(len(_TOPICS[language])))
    rng = random.Random(seed)
    rng.shuffle(topics)
    phrasings = 1 if rows <= len(topics) * _ROWS_PER_QUERY else 2
    needed = -(-rows // (_ROWS_PER_QUERY * phrasings))
    fifth = round(needed / 5)
    parts = {
        "test": topics[:fifth],
        "val": topics[fifth : 2 * fifth],
        "train": topics[2 * fifth : needed],
    }
    made = {name: _rows_of(language, part, phrasings, rng) for name, part in parts.items()}
    # What is more than asked for is taken from the largest part.
    made["train"] = made["train"][: rows - len(made["test"]) - len(made["val"])]
    return {name: made[name] for name in ("train", "test", "val")}


def _rows_of(language: Language, part: list[int], phrasings: int, rng: random.Random) -> list[Row]:
    """Build the rows of one part by question; irrelevant documents come from the same part."""
    rows: list[Row] = []
    for topic in part:
        queries, *answers = _TOPICS[language][topic]
        elsewhere = [
            doc for other in part if other != topic for doc in _TOPICS[language][other][1:3]
        ]
        for phrasing, query in enumerate(queries[:phrasings]):
            others = rng.sample(elsewhere, 2)
            judged = [(doc, rel, 1.0) for doc, rel in zip(answers, _GRADES, strict=True)]
            assumed = [(doc, 0.0, _UNJUDGED_WEIGHT) for doc in others]
            for place, (doc, rel, weight) in enumerate(judged + assumed):
                key = f"{language}-{topic:02d}-{phrasing}-{place}"
                rows.append({"key": key, "query": query, "doc": doc, "rel": rel, "weight": weight})
    return rows
