"""Settings of mine_negatives.py and score_with_teacher.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.flags import Settings, option, required
from evaluation.settings import ModelSettings
from loaders.settings import RowSettings
from mining.policy.policy import Limits, Policy, Sampling
from mining.work import default_cache_dir
from preparation.commands.settings import InputSettings

OF_EMBEDDER = ("query_max_length", "document_max_length", "query_prompt", "document_prompt")


@dataclass(kw_only=True)
class WorkSettings(InputSettings, ModelSettings, RowSettings):
    """Input, output and cache."""

    input: list[str] = required("Rows in any training format: files, folders, Hub data sets.")
    output: Path = required("The groups: a .jsonl, .json or .parquet file.")
    overwrite: bool = option(False, "Replace the file, if it is there already.")
    query_prompt: str | None = option(
        None, "Embedder: before queries without a prompt of their own; null: the model's."
    )
    document_prompt: str | None = option(None, "Embedder: before documents; null: the model's.")
    scores: Literal["raw", "sigmoid"] = option(
        "raw", "Reranker: write scores as it gives them, or from 0 to 1."
    )
    cache_dir: Path = option(
        default_cache_dir(), "Of vectors and scores, so that no text is encoded twice."
    )


@dataclass(kw_only=True)
class PolicySettings(Settings):
    """Choice of negatives."""

    num_negatives: int = option(Policy.num_negatives, "Negatives to mine per query.", least=1)
    rank_range: tuple[int, int] = option(
        Policy.rank_range, "First and last rank of hard negatives; 1 is the best hit.", least=1
    )
    sampling: Sampling = option(
        Policy.sampling, "Sample from the range, or take the highest-ranked allowed ones."
    )
    random_share: float = option(Policy.random_share, "Fraction of the negatives drawn at random.")
    random_from: int | None = option(
        None, "Draw random ones from ranks above this; null: from the whole corpus.", least=1
    )
    existing: Literal["keep", "replace"] = option(
        "keep", "Keep or replace the negatives that rows have already."
    )
    seed: int = option(Policy.seed, "Random seed for sampling.")


@dataclass(kw_only=True)
class LimitSettings(Settings):
    """Filters against false negatives."""

    max_score: float | None = option(None, "Documents that score more.")
    absolute_margin: float | None = option(
        None, "Those that score more than the lowest positive's score minus this."
    )
    relative_margin: float | None = option(
        None, "Those above (1 - this) of that score; 0.05 keeps up to 95 % of it."
    )
    near_duplicates: float = option(
        Policy.near_duplicates,
        "Those that share so many of their runs of three words with a positive or the query; 0: "
        "off.",
    )


@dataclass(kw_only=True)
class JudgeSettings(Settings):
    """Reranker scores of the mined groups."""

    reranker: str | None = option(None, "Scores positives and negatives, as a teacher.")
    reranker_max_score: float | None = option(None, "max_score for its scores, from 0 to 1.")
    reranker_absolute_margin: float | None = option(None, "absolute_margin for its scores.")
    reranker_relative_margin: float | None = option(None, "relative_margin for its scores.")

    def reranker_limits(self) -> Limits:
        """What a reranker removes."""
        return Limits(
            self.reranker_max_score, self.reranker_absolute_margin, self.reranker_relative_margin
        )


@dataclass(kw_only=True)
class MiningSettings(PolicySettings, LimitSettings, JudgeSettings, WorkSettings):
    """Search for candidates."""

    corpus: list[str] = option(
        [],
        "Where negatives come from: corpus.jsonl (_id or docid, title, text) or its folder, or "
        "training files; []: the documents of input.",
    )
    embedder: str | None = option(None, "A folder, a Hub name or package://<module>/<path>.")
    bm25: bool = option(False, "Search by words, without a model.")
    faiss: bool = option(
        False,
        "With embedder: approximate search, for corpora too large for an exact one (needs the "
        "extra faiss).",
    )
    examples: int = option(3, "How many queries to show with their negatives at the end.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bm25 == (self.embedder is not None):
            raise ValueError("embedder: give either --embedder MODEL or --bm25")
        for name in (*OF_EMBEDDER, "faiss"):
            if self.bm25 and getattr(self, name) not in (None, False):
                raise ValueError(f"{name}: is for --embedder; leave it out")
        for name in ("max_length", *(f"reranker_{limit}" for limit in vars(Limits()))):
            if self.reranker is None and getattr(self, name) is not None:
                raise ValueError(f"{name}: is for --reranker; leave it out")
        if self.reranker is None and self.scores != "raw":
            raise ValueError("scores: is for --reranker; leave it out")

    def policy(self) -> Policy:
        """What may become a negative."""
        return Policy(
            num_negatives=self.num_negatives,
            rank_range=self.rank_range,
            sampling=self.sampling,
            random_share=self.random_share,
            random_from=self.random_from,
            limits=Limits(self.max_score, self.absolute_margin, self.relative_margin),
            near_duplicates=self.near_duplicates or None,
            seed=self.seed,
        )


@dataclass(kw_only=True)
class ScoringSettings(WorkSettings):
    """Scoring model."""

    model: str = required("A reranker or an embedder: a folder, Hub name or package://...")
