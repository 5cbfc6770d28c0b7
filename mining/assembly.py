"""Open what the settings name: corpus, search index, reranker; write the settings file."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from accelerate import PartialState

from common.hardware import prepare_cpu
from common.hashing import file_digest
from common.prompts import with_prompt
from encoders.kinds import KINDS, detect_kind, open_model, retrieves
from encoders.opening.bf16_weights import place_for_inference
from encoders.opening.model_digest import model_digest
from loaders import ReadOptions
from loaders.formats.local import FileSource
from loaders.formats.records import check_format
from loaders.formats.row_file import TABLES, write_lines
from loaders.formats.sources import Source
from mining.cache.vectors import VectorCache
from mining.data.corpus import Corpus, build_corpus
from mining.data.documents import corpus_documents, training_documents
from mining.data.queries import Queries
from mining.policy import Policy
from mining.search.encode import EncodingSettings, Read, Vectors, cache_key, encode_all
from mining.search.index import FaissIndex, Index, LexicalIndex, VectorIndex, write_index
from mining.settings import MiningSettings, WorkSettings
from mining.teacher import Teacher
from preparation.commands.settings import check_not_read, check_output_file

logger = logging.getLogger(__name__)

S = TypeVar("S")
Digests = dict[str, str]

# Settings that do not affect what is written.
IRRELEVANT_SETTINGS = (
    "output",
    "overwrite",
    "cache_dir",
    "examples",
    "tokens_per_batch",
    "rejected_file",
)
PACKAGES = ("torch", "transformers")
# Of a teacher that reads pairs and gives logits, which are brought to a scale from 0 to 1.
OF_LOGITS = (
    "max_length", "scores", "relabel_from", "reranker_max_score", "reranker_absolute_margin",
    "reranker_relative_margin",
)  # fmt: skip

_COMPARED = 50  # queries that tell how much FAISS finds of what an exact search would


def on_all_processes(job: Callable[[S], None], args: S) -> None:
    """Run a job in each process of ``accelerate launch``; only the main one logs."""
    # Processes wait for the slowest: after a kill, one of them may have all the work that is left.
    cpu = not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=timedelta(days=30))
    prepare_cpu()
    if not state.is_main_process:
        logging.getLogger().setLevel(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    job(args)
    if state.num_processes > 1:
        state.destroy_process_group()


def check_output(args: WorkSettings, names: Sequence[str], sources: Sequence[Source]) -> None:
    """Refuse an output that exists, that is read, or that cannot hold groups."""
    check_output_file(args.output, args.overwrite)
    if check_format(args.output) in TABLES:
        raise ValueError(f"{args.output}: groups hold lists; give .jsonl, .json or .parquet")
    check_not_read(args.output, names, sources)


def shows_progress() -> bool:
    """Whether this process shows progress bars."""
    return PartialState().is_main_process and sys.stderr.isatty()


def read_corpus(args: MiningSettings, options: ReadOptions, work: Path) -> Corpus:
    """Build the corpus to search from ``corpus``, or from the rows themselves."""
    if args.corpus:
        documents = corpus_documents(args.corpus, options)
    else:
        documents = training_documents(args.input, options)
    positives = training_documents(args.input, options, positives_only=True)
    corpus = build_corpus(work / "corpus", documents, positives)
    if corpus.empty:
        logger.warning(f"{corpus.empty:,} documents of the corpus have no text and are left out")
    logger.info("searching %d distinct documents", corpus.searchable)
    return corpus


def check_ranks(policy: Policy, documents: int) -> None:
    """Refuse ranks that a corpus of this size does not have."""
    hard, at_random = policy.wanted
    for name, wanted, rank in (
        ("rank_range", hard, policy.rank_range[0] - 1),
        ("random_from", at_random, policy.random_from or 0),
    ):
        if wanted and rank >= documents:
            raise ValueError(
                f"{name}: the corpus has {documents} distinct documents, none of a rank above "
                f"{rank}; give lower ranks or a larger corpus"
            )


def open_index(
    args: MiningSettings, queries: Queries, corpus: Corpus, work: Path, digests: Digests
) -> Index:
    """Open the search index; record the digest of its model."""
    if args.embedder is None:
        return LexicalIndex(queries, corpus)
    query_vectors, documents = embed(args, args.embedder, queries, corpus, digests)
    state = PartialState()
    if args.index is None:
        return VectorIndex(query_vectors, documents, corpus.searchable, state.device)
    file = work / f"{digests['embedder']}.faiss"
    if state.is_main_process and not file.exists():
        write_index(documents, corpus.searchable, args.index, file, shows_progress())
    state.wait_for_everyone()
    return FaissIndex(query_vectors, documents, corpus.searchable, state.device, file)


def embed(
    args: WorkSettings, name: str, queries: Queries, corpus: Corpus, digests: Digests
) -> tuple[Vectors, Vectors]:
    """Encode all queries and documents; record the embedder's digest.

    Collective: all processes of a run call it.
    """
    if not KINDS[detect_kind(name)].retrieves:
        label = KINDS[detect_kind(name)].labels["en"]
        raise ValueError(f"embedder: {name} is a {label}; give an embedder")
    embedder = open_model(name, trust_remote_code=args.trust_remote_code)
    assert retrieves(embedder)
    embedder = place_for_inference(embedder, PartialState().device)
    embedder.replace_prompts(args.query_prompt, args.document_prompt)
    digests["embedder"] = digest = model_digest(embedder)
    query_prompt = embedder.find_prompt("query")
    document_prompt = embedder.find_prompt("document")

    def read_queries(start: int, stop: int) -> list[str]:
        return [
            with_prompt(text, query_prompt, own) for text, own in queries.with_prompts(start, stop)
        ]

    def read_documents(start: int, stop: int) -> list[str]:
        return [with_prompt(text, document_prompt) for text in corpus.slice(start, stop)]

    def encode(count: int, read: Read, max_length: int | None, what: str) -> Vectors:
        encoding = EncodingSettings(max_length, args.tokens_per_batch, args.bf16, shows_progress())
        folder = args.cache_dir / "vectors" / cache_key(embedder, digest, encoding)
        with VectorCache(folder, embedder.dimension) as cache:
            return encode_all(embedder, count, read, cache, encoding, what)

    documents = encode(len(corpus), read_documents, args.document_max_length, "documents")
    return encode(len(queries), read_queries, args.query_max_length, "queries"), documents


def open_teacher(args: WorkSettings, name: str, digests: Digests) -> Teacher:
    """Open a reranker with its score cache; record its digest."""
    kind = detect_kind(name)
    if KINDS[kind].retrieves:
        raise ValueError(f"reranker: {name} is not a reranker (it has no scoring head)")
    for setting in () if KINDS[kind].logits else OF_LOGITS:
        if getattr(args, setting, None) not in (None, "raw"):
            raise ValueError(
                f"{setting}: does not apply to {name}, which is of kind {kind}; leave it out"
            )
    reranker = open_model(name, trust_remote_code=args.trust_remote_code)
    reranker = place_for_inference(reranker, PartialState().device)
    digests["reranker"] = digest = model_digest(reranker)
    encoding = EncodingSettings(args.max_length, args.tokens_per_batch, args.bf16, shows_progress())
    folder = args.cache_dir / "scores" / cache_key(reranker, digest, encoding)
    return Teacher(reranker, VectorCache(folder, 1), encoding)


def measure_recall(index: Index, queries: int, depth: int) -> float | None:
    """Measure the recall of FAISS against exact search; None for other indexes."""
    if not isinstance(index, FaissIndex) or not depth:
        return None
    recall = index.recall(range(0, queries, -(-queries // _COMPARED)), depth)
    logger.info("FAISS recall: %.1f %% of the exact top %d", 100 * recall, depth)
    return recall


def identity(args: WorkSettings, sources: Sequence[Source]) -> list[Any]:
    """Return all that identifies a run; files count by name, size and time."""
    return [settings_of(args), [source.identity() for source in sources]]


def settings_of(args: WorkSettings) -> dict[str, Any]:
    """Return the settings that decide what is written."""
    return {name: value for name, value in vars(args).items() if name not in IRRELEVANT_SETTINGS}


def write_settings(
    args: WorkSettings, sources: Sequence[Source], digests: Digests, **others: Any
) -> Path:
    """Write a file's settings, inputs and versions beside it."""
    files = [source.path for source in sources if isinstance(source, FileSource)]
    settings = {
        "settings": settings_of(args),
        "files": {str(path): file_digest(path) for path in [*files, args.output]},
        "digests": digests,
        "versions": {name: version(name) for name in PACKAGES},
        **others,
    }
    path = args.output.with_name(f"{args.output.name}.settings.json")
    write_lines(path, [json.dumps(settings, ensure_ascii=False, indent=2, default=str)])
    return path
