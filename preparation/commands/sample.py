"""Write a hundred hand-written rows, split 60/20/20, to try things on.

Writes train_data.json, test_data.json and val_data.json.

    python scripts/prepare_data.py sample --output_dir data/sample --language zh
    python scripts/prepare_data.py sample --output_dir data/sample_en --language en --rows 200
"""

import json
import random
from dataclasses import dataclass
from typing import Literal

from common.flags import option, required
from loaders.formats.row_file import write_lines
from preparation.commands.settings import OutputSettings
from preparation.sample import chinese, english

FILES = ("train_data.json", "test_data.json", "val_data.json")

_TOPICS = {"en": english.TOPICS, "zh": chinese.TOPICS}
_ROWS_PER_QUERY = 5
_MIN_ROWS, _MAX_ROWS = 50, 200
# The relevance of a topic's three answers. They were judged when they were written: weight 1.
_GRADES = (1.0, 0.6, 0.2)
# The answers to other questions are taken to be irrelevant, but nobody looked: weight 0.5.
_UNJUDGED_WEIGHT = 0.5


@dataclass(kw_only=True)
class SampleSettings(OutputSettings):
    """Hand-written rows, to try things on."""

    language: Literal["zh", "en"] = required("Of the rows.")
    rows: int = option(100, f"How many, from {_MIN_ROWS} to {_MAX_ROWS}.")
    seed: int = option(42, "Decides which rows are drawn, and their order.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _MIN_ROWS <= self.rows <= _MAX_ROWS:
            raise ValueError(f"rows: must be from {_MIN_ROWS} to {_MAX_ROWS}, got {self.rows}")


def run(args: SampleSettings) -> None:
    """Write three parts as JSON arrays, 60/20/20; they share no question and no document.

    Each question has five documents: a full answer (rel 1.0), a partial one (0.6), a text on the
    same subject that does not answer it (0.2), and two answers to other questions (0.0, with
    weight 0.5).
    """
    args.check_output(FILES)
    topics = list(range(len(_TOPICS[args.language])))
    rng = random.Random(args.seed)
    rng.shuffle(topics)
    phrasings = 1 if args.rows <= len(topics) * _ROWS_PER_QUERY else 2
    needed = -(-args.rows // (_ROWS_PER_QUERY * phrasings))
    fifth = round(needed / 5)
    test = _rows_of(args.language, topics[:fifth], phrasings, rng)
    val = _rows_of(args.language, topics[fifth : 2 * fifth], phrasings, rng)
    train = _rows_of(args.language, topics[2 * fifth : needed], phrasings, rng)
    # What is more than asked for is taken from the largest part.
    train = train[: args.rows - len(test) - len(val)]
    for name, rows in zip(FILES, (train, test, val), strict=True):
        path = args.output_dir / name
        write_lines(path, [json.dumps(rows, ensure_ascii=False, indent=1)])
        print(f"{path}: {len(rows)} rows")


def _rows_of(
    language: str, part: list[int], phrasings: int, rng: random.Random
) -> list[dict[str, str | float]]:
    """Build the rows of one part by question; irrelevant documents come from the same part."""
    rows: list[dict[str, str | float]] = []
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
