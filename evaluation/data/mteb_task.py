"""Retrieval and reranking tasks of MTEB, through its own package (an extra)."""

from dataclasses import replace
from typing import Any

from evaluation.data.sets import RetrievalData

# Names of mteb's benchmarks, of which the retrieval tasks are taken, or of a task with subsets.
SUITES = {
    "nanobeir": "NanoBEIR",
    "beir": "BEIR",
    "c-mteb-retrieval": "MTEB(cmn, v1)",
    "miracl": "MIRACLRetrievalHardNegatives",
}


def read_mteb(task: Any, split: str | None = None) -> RetrievalData:
    """Load a task's documents, queries and judgements as MTEB gives them to models.

    A document is its title and its text with a space between, and a query is its text and its
    instruction, if it has one. The queries of a reranking task have candidates.

    Args:
        task: A name such as ``SciFact``, with a subset of a multilingual task behind a slash:
            ``MIRACLRetrieval/zh``. Or a task object of the package.
        split: Which part of it; None: test, or the only one of a task without.

    Raises:
        ValueError: The package is not installed, there is no such task, subset or split, the task
            is of another kind, or it cannot be loaded.
    """
    if isinstance(task, str):
        task = _find_task(task)
    name, splits = task.metadata.name, list(task.metadata.eval_splits)
    if split is None:
        split = splits[0] if len(splits) == 1 else "test"
    if split not in splits:
        raise ValueError(f"mteb: {name} has no split {split!r}; it has {', '.join(splits)}")
    if len(task.hf_subsets) != 1:
        raise ValueError(
            f"mteb: {name} has several subsets; choose one of them, such as "
            f"{name}/{task.hf_subsets[0]}: {', '.join(task.hf_subsets)}"
        )
    try:
        task.filter_eval_splits([split]).load_data()
        task.convert_v1_dataset_format_to_v2(num_proc=None)  # as the package's own evaluation does
        part = task.dataset[task.hf_subsets[0]][split]
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"mteb: {name} cannot be loaded: {reason}") from error
    return replace(_to_data(part, bool(task.ignore_identical_ids)), split=split)


def benchmark_tasks(name: str) -> list[list[str]]:
    """The retrieval tasks of a benchmark, or the subsets of a task; each with its parts, if any.

    Raises:
        ValueError: The package is not installed.
    """
    mteb = _package()
    if name not in {benchmark.name for benchmark in mteb.get_benchmarks()}:
        return [[f"{name}/{subset}"] for subset in mteb.get_task(name).hf_subsets]
    tasks = [task for task in mteb.get_benchmark(name).tasks if task.metadata.type == "Retrieval"]
    return [
        [part.metadata.name for part in getattr(task, "tasks", [task])]  # of an aggregate
        for task in tasks
    ]


def _package() -> Any:
    try:
        import mteb
    except ImportError:
        raise ValueError(
            "mteb: the package is not installed: pip install -c constraints.txt -e '.[mteb]'"
        ) from None
    return mteb


def _find_task(name: str) -> Any:
    """The task object of ``TASK`` or ``TASK/SUBSET``."""
    mteb = _package()
    from mteb.abstasks import AbsTaskRetrieval

    title, _, subset = name.partition("/")
    try:
        task = mteb.get_task(title, hf_subsets=[subset] if subset else None)
    except (KeyError, ValueError) as error:
        raise ValueError(f"mteb: {error.args[0]}") from None
    if not isinstance(task, AbsTaskRetrieval) or list(task.metadata.modalities) != ["text"]:
        raise ValueError(
            f"mteb: {title} is a task of {', '.join(task.metadata.modalities)} and the type "
            f"{task.metadata.type}; only retrieval and reranking of texts can be evaluated here"
        )
    return task


def _to_data(part: Any, ignore_identical_ids: bool) -> RetrievalData:
    """``corpus``, ``queries``, ``relevant_docs`` and ``top_ranked`` of a split."""
    documents = {row["id"]: _join(row.get("title"), row["text"]) for row in part["corpus"]}
    qrels = {
        query: {document: float(relevance) for document, relevance in judged.items()}
        for query, judged in part["relevant_docs"].items()
        if judged  # as the package does, queries without a judgement are left out
    }
    queries = {
        row["id"]: _join(row["text"], row.get("instruction"))
        for row in part["queries"]
        if row["id"] in qrels
    }
    candidates = part["top_ranked"]
    if candidates is not None:
        candidates = {query: list(candidates.get(query, ())) for query in queries}
    same = {query: query for query in queries if query in documents}
    return RetrievalData(
        documents,
        queries,
        {query: qrels[query] for query in queries},
        candidates=candidates,
        identical_documents=same if ignore_identical_ids else {},
    )


def _join(first: Any, second: Any) -> str:
    """Two texts with a space between, of which one may be missing."""
    for text in (first, second):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"mteb: a text is expected, got {str(text)[:60]!r} (a conversation?)")
    return f"{first or ''} {second or ''}".strip()
