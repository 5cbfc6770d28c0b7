"""Settings of mine_negatives.py and score_with_teacher.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets

from common.flags import Settings, option, required
from evaluation.settings import ModelSettings
from loaders.settings import RowSettings
from mining.policy import Limits, Policy
from mining.search.index import FaissKind
from preparation.commands.settings import InputSettings

EMBEDDER_SETTINGS = ("query_max_length", "document_max_length", "query_prompt", "document_prompt")


CACHE_DIR = Path(datasets.config.HF_DATASETS_CACHE) / "tandem" / "mining"


@dataclass(kw_only=True)
class WorkSettings(InputSettings, ModelSettings, RowSettings):
    """Input, output and cache."""

    input: list[str] = required("Rows in any training format: files, folders, Hub data sets.")
    output: Path = required("The groups: a .jsonl, .json or .parquet file.")
    overwrite: bool = option(False, "Replace the file if it exists.")
    query_prompt: str | None = option(
        None, "Embedder: before queries without a prompt of their own; null: the model's."
    )
    document_prompt: str | None = option(None, "Embedder: before documents; null: the model's.")
    scores: Literal["raw", "sigmoid"] = option(
        "raw", "Reranker: write scores as it gives them, or from 0 to 1."
    )
    relabel_from: float | None = option(
        None,
        "Reranker: negatives that score at least this, from 0 to 1, are written as positives.",
    )
    cache_dir: Path = option(
        CACHE_DIR,
        "Cache of vectors and scores: no text is encoded twice.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relabel_from is not None and not 0 < self.relabel_from < 1:
            raise ValueError(
                f"relabel_from: must be above 0 and below 1, got {self.relabel_from:g}"
            )


@dataclass(kw_only=True)
class RerankerSettings(Settings):
    """Reranker scores of the mined groups."""

    reranker: str | None = option(None, "Scores positives and negatives, as a teacher.")
    reranker_max_score: float | None = option(None, "max_score for its scores, from 0 to 1.")
    reranker_absolute_margin: float | None = option(
        None, "absolute_margin for its scores.", least=0
    )
    reranker_relative_margin: float | None = option(
        None, "relative_margin for its scores.", least=0
    )

    @property
    def reranker_limits(self) -> Limits:
        """What it removes."""
        return Limits(
            self.reranker_max_score, self.reranker_absolute_margin, self.reranker_relative_margin
        )


@dataclass(kw_only=True)
class MiningSettings(Policy, RerankerSettings, WorkSettings):
    """Search for candidates."""

    corpus: list[str] = option(
        [],
        "Where negatives come from: corpus.jsonl (_id or docid, title, text) or its folder, or "
        "training files; []: the documents of input.",
    )
    embedder: str | None = option(None, "A folder, a Hub name or package://<module>/<path>.")
    bm25: bool = option(False, "Search by words, without a model.")
    index: FaissKind | None = option(
        None,
        "With embedder: a FAISS index, for corpora too large for exact search (needs the extra "
        "faiss); null: exact search.",
    )
    examples: int = option(3, "How many queries to show with their negatives at the end.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bm25 == (self.embedder is not None):
            raise ValueError("embedder: give either --embedder MODEL or --bm25")
        for name in (*EMBEDDER_SETTINGS, "index"):
            if self.bm25 and getattr(self, name) is not None:
                raise ValueError(f"{name}: is for --embedder; leave it out")
        for name in ("max_length", *(f"reranker_{limit}" for limit in Limits._fields)):
            if self.reranker is None and getattr(self, name) is not None:
                raise ValueError(f"{name}: is for --reranker; leave it out")
        for name, default in (("scores", "raw"), ("relabel_from", None)):
            if self.reranker is None and getattr(self, name) != default:
                raise ValueError(f"{name}: is for --reranker; leave it out")


@dataclass(kw_only=True)
class ScoringSettings(WorkSettings):
    """Scoring model."""

    model: str = required("A reranker or an embedder: a folder, Hub name or package://...")
