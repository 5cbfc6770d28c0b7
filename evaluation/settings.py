"""Settings that say what models are measured on and how, and what these settings open."""

import logging
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState

from common.bm25 import BM25
from common.flags import Settings, option, required
from encoders import kinds
from encoders.backbone import Encoder
from encoders.kinds import KINDS, Kind
from encoders.opening.bf16_weights import place_for_inference
from evaluation.data.mteb_task import SUITES
from evaluation.data.resolve import open_data
from evaluation.data.sets import PairData, RetrievalData
from evaluation.measure import Evaluator, FirstStage, depth_of
from evaluation.metrics.pairs import pair_statistics
from evaluation.metrics.ranking import DEFAULT_METRICS, Run, check_metrics
from evaluation.search.distributed import InferenceSettings
from evaluation.search.faiss_index import IndexKind
from evaluation.search.fusion import BM25_SCORES, best, first_stage_digest, fuse, read_fusion
from evaluation.search.retrieval import retrieve, retrieve_with_bm25
from loaders.settings import ReadingSettings

logger = logging.getLogger(__name__)

Data = RetrievalData | PairData

LABEL_SETTINGS = ("label_map", "label_range", "relevance_from_scores", "positive_threshold")
# Settings that reports do not list: they change no figure, or results name them by themselves.
NOT_LISTED = ("data", "split", "columns", "metrics", "first_stage", "tokens_per_batch",
              "trust_remote_code")  # fmt: skip
USED_BY_LOSS = (*LABEL_SETTINGS, "data", "split", "columns", "trust_remote_code")


@dataclass(kw_only=True)
class DataSettings(ReadingSettings):
    """Evaluation data."""

    data: list[str] = required("A BEIR folder, files in any training format, or mteb:TASK.")
    split: str | None = option(
        None, "For a folder or Hub data set with several; BEIR: the file in qrels/, null: test."
    )
    corpus: str | None = option(
        None, "Training formats: more documents to search (corpus.jsonl or its folder)."
    )
    allow_unknown: bool = option(False, "Skip and count judgements of unknown ids.")
    keep_identical_ids: bool = option(
        False, "Keep a document with the query's own id in its results; BEIR does not."
    )
    as_groups: bool = option(False, "Scored pairs: rank the documents of each query.")
    metrics: list[str] = option(list(DEFAULT_METRICS), "Such as ndcg@10 recall@100.")
    max_queries: int | None = option(
        None, "Use this many queries, evenly spread; null: all.", least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            check_metrics(self.metrics)
        except ValueError as error:
            raise ValueError(f"metrics: {error}") from None


@dataclass(kw_only=True)
class ModelSettings(Settings):
    """Inference."""

    query_max_length: int | None = option(
        None, "Tokens of a query that is read alone; null: the model's limit.", least=1
    )
    document_max_length: int | None = option(
        None, "Tokens of a document that is read alone; null: the model's limit.", least=1
    )
    max_length: int | None = option(
        None, "Reranker: tokens of a pair; null: the model's limit.", least=1
    )
    query_prompt: str | None = option(
        None, "Prompt of queries that have none of their own; null: the model's."
    )
    document_prompt: str | None = option(None, "Prompt of documents; null: the model's.")
    tokens_per_batch: int | None = option(
        None, "About how many tokens go into one forward; null: what suits the device.", least=1
    )
    bf16: bool = option(False, "Compute in bf16, on devices that have it.")
    trust_remote_code: bool = option(False, "Let Python code of the model's folder run.")


@dataclass(kw_only=True)
class EvaluationSettings(DataSettings, ModelSettings):
    """Search."""

    index: IndexKind | None = option(
        None, "Embedder: a FAISS index, for large corpora; null: exact search."
    )
    truncate_dim: int | None = option(None, "Embedder: keep only this many dimensions.", least=1)
    first_stage: str = option("bm25", "Reranker: an embedder, or bm25, whose hits it orders.")
    top_k: int = option(100, "Reranker: how many of its hits, for each query.", least=1)


@dataclass(kw_only=True)
class EvaluateSettings(EvaluationSettings):
    """Models to evaluate, and the report."""

    data: list[str] = option([], "A BEIR folder, files in any training format, or mteb:TASK.")
    suite: str | None = option(
        None,
        f"Instead of data: {', '.join(SUITES)}, or a file that lists BEIR folders and mteb:TASK.",
    )
    model: str | None = option(None, "A folder, a Hub name or package://<module>/<path>.")
    checkpoint_dir: str | None = option(
        None, "Instead of model: a checkpoint of a run, compared with the run's base."
    )
    checkpoints: Path | None = option(
        None, "Instead of model: a run's output_dir, to measure all its checkpoints."
    )
    baseline: str | None = option(None, "The model to compare with, of the same kind.")
    store: str | None = option(
        None, "URL of a store filled by scripts/index.py with this model; its answers are measured."
    )
    collection: str = option("docs", "Collection of the store.")
    select_best: bool = option(False, "With checkpoints: record the best one, to be served.")
    metric: str | None = option(
        None,
        "With checkpoints: loss or the metric that decides which is best; null: the first metric.",
    )
    output_dir: Path | None = option(
        None,
        "Where evaluation.json, report.html, figures/ and run.trec go; null: the model's folder.",
    )
    language: Literal["en", "zh"] = option("en", "Language of the report.")
    show_queries: bool = option(False, "Print the queries that gained and lost most.")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in (self.model, self.checkpoint_dir, self.checkpoints) if name]
        if len(given) != 1:
            raise ValueError("model: give one of --model, --checkpoint_dir, --checkpoints")
        if bool(self.data) == bool(self.suite):
            raise ValueError("data: give either data or a suite")
        if self.suite and (self.checkpoints or not self.output_dir):
            raise ValueError("suite: keeps results in output_dir; give --model and --output_dir")
        for name in ("select_best", "metric"):
            if getattr(self, name) and not self.checkpoints:
                raise ValueError(f"{name}: is for --checkpoints OUTPUT_DIR; leave it out")
        if self.collection != "docs" and not self.store:
            raise ValueError("collection: is of a store; give --store")
        others = {
            "checkpoints": ("store", "baseline", "output_dir", "show_queries"),
            "store": ("suite", "baseline", "output_dir", "show_queries", "document_max_length"),
        }
        for chosen, names in others.items():
            for name in names:
                if getattr(self, chosen) and getattr(self, name):
                    raise ValueError(f"{name}: has no effect with --{chosen}; leave one out")

    @property
    def measured(self) -> str:
        """The one model that is measured, where these are not the checkpoints of a run."""
        return self.model or self.checkpoint_dir or ""


def read_data(args: EvaluationSettings, kind: Kind) -> Data:
    """Read what to measure on."""
    data = open_data(
        args.data,
        kind,
        args.read_options(evaluates=True),
        split=args.split,
        corpus=args.corpus,
        allow_unknown=args.allow_unknown,
        as_groups=args.as_groups,
        keep_identical_ids=args.keep_identical_ids,
    )
    return data.sample(args.max_queries)


def open_model(name: str, kind: Kind, args: EvaluationSettings) -> Encoder:
    """Open a model to be measured, on the GPU if there is one; its weights stay as they are."""
    return place_for_inference(open_on_cpu(name, kind, args), PartialState().device)


def open_on_cpu(name: str, kind: Kind, args: EvaluationSettings) -> Encoder:
    """Open a model with the prompts and dimensions asked for, on the CPU."""
    model = kinds.open_model(
        name, kind, truncate_dim=args.truncate_dim, trust_remote_code=args.trust_remote_code
    )
    model.replace_prompts(args.query_prompt, args.document_prompt)
    return model


def inference_settings(args: EvaluationSettings) -> InferenceSettings:
    """The settings of inference that the flags give."""
    names = [known.name for known in fields(InferenceSettings) if known.name != "show_progress"]
    shown = PartialState().is_main_process and sys.stderr.isatty()
    return InferenceSettings(**{name: getattr(args, name) for name in names}, show_progress=shown)


def changed_settings(args: EvaluationSettings, but: tuple[str, ...] = NOT_LISTED) -> dict[str, Any]:
    """The settings that are not at their defaults, without those in ``but``."""
    defaults = vars(EvaluationSettings(data=[])).items()
    return {k: getattr(args, k) for k, v in defaults if k not in but and getattr(args, k) != v}


def metric_names(args: EvaluationSettings, data: Data) -> list[str]:
    """The metrics asked for; of judged pairs, those that suit the judgements."""
    return list(pair_statistics(data.judged())) if isinstance(data, PairData) else args.metrics


def build_evaluator(
    args: EvaluationSettings, kind: Kind, data: Data, *, shared_settings: bool = False
) -> Evaluator:
    """Build the evaluator of models of a kind; a reranker's first stage searches only once, here.

    For ``shared_settings`` see ``find_first_stage``.
    """
    first = find_first_stage(args, kind, data, shared_settings=shared_settings)
    return Evaluator(data, metric_names(args, data), inference_settings(args), first)


def find_first_stage(
    args: EvaluationSettings, kind: Kind, data: Data, *, shared_settings: bool = False
) -> FirstStage | None:
    """Find what a reranker is to order; None for an embedder, or where the data give candidates.

    ``shared_settings``: allow settings that only other data use, those of a suite or of a guard.

    Raises:
        ValueError: The settings name what these data or this kind of model would ignore.
    """
    check_unused(args, kind, data, shared_settings)
    if KINDS[kind].retrieves or isinstance(data, PairData) or data.candidates is not None:
        return None
    if deep := [name for name in args.metrics if "@" in name and depth_of([name]) > args.top_k]:
        logger.warning(
            "top_k: only %d documents are ranked, and %s count all others as not found",
            args.top_k, ", ".join(deep),
        )  # fmt: skip
    if args.first_stage != BM25_SCORES:
        embedder = kinds.open_model(args.first_stage, trust_remote_code=args.trust_remote_code)
        if not kinds.retrieves(embedder):
            raise ValueError(
                f"first_stage: {args.first_stage} is of kind {embedder.kind}, which searches no "
                "corpus; give an embedder, or bm25"
            )
        embedder = place_for_inference(embedder, PartialState().device)
        fusion = read_fusion(args.first_stage, embedder)
        if fusion is None:
            run: Run = retrieve(embedder, data, args.top_k, inference_settings(args))
        else:
            scores = retrieve_with_bm25(embedder, data, args.top_k, inference_settings(args))
            run = best(fuse(scores.own, scores.other, fusion.weight), args.top_k)
        return FirstStage(run, args.top_k, first_stage_digest(embedder, fusion))
    ids = list(data.documents)
    wanted = args.top_k + bool(data.identical_documents)
    hits = BM25(list(data.documents.values())).search(list(data.queries.values()), wanted)
    by_words = {}
    for query, found in zip(data.queries, hits, strict=True):
        kept = {ids[at]: score for at, score in found if not data.is_identical(query, ids[at])}
        by_words[query] = dict(list(kept.items())[: args.top_k])
    return FirstStage(by_words, args.top_k)


def check_unused(args: EvaluationSettings, kind: Kind, data: Data, shared_settings: bool) -> None:
    """Refuse settings that would be ignored; see ``find_first_stage``."""
    first, lengths = ("first_stage", "top_k"), ("query_max_length", "document_max_length")
    row, defaults = KINDS[kind], EvaluationSettings(data=[])
    given = isinstance(data, PairData) or data.candidates is not None
    for applies, names, reason in (
        (row.retrieves, first, "the model is an embedder, which searches by itself"),
        (not row.reads_pairs, ("max_length",), f"is a reranker's, unlike {' and '.join(lengths)}"),
        (
            not row.retrieves and args.first_stage == BM25_SCORES,
            ("index", *(lengths if row.reads_pairs else ())),
            "is an embedder's, and none is measured or named as first_stage",
        ),
        (
            not row.retrieves and given and not shared_settings,
            first,
            "the data say which documents are scored for each query, so nothing is searched",
        ),
        (
            isinstance(data, PairData) and not shared_settings,
            ("metrics",),
            "are of rankings, and the data are judged pairs (as_groups ranks those of each query)",
        ),
        (
            isinstance(data, RetrievalData) and data.split is not None and not shared_settings,
            ("columns", "as_groups", *LABEL_SETTINGS),
            "is of rows in training formats, and the data are an evaluation set by themselves",
        ),
    ):
        for name in names:
            if applies and getattr(args, name) != getattr(defaults, name):
                raise ValueError(f"{name}: {reason}; leave it out")
