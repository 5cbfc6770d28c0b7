"""Embed the documents of a corpus into a vector database, and keep it in agreement with them.

    # LanceDB in a folder: nothing to start
    python scripts/index.py --model outputs/embedding_contrastive \\
        --corpus data/docstrings/heldout --store outputs/store
    # PostgreSQL with pgvector, in half precision; several processes embed
    accelerate launch scripts/index.py --model BAAI/bge-base-zh-v1.5 --corpus docs.jsonl \\
        --store postgresql://me@localhost/search --collection docs --dtype float16
    # a new model: its vectors are made beside the old ones, and then take their place
    python scripts/index.py --model outputs/next --corpus docs.jsonl --store outputs/store \\
        --migrate true
    python scripts/index.py --store outputs/store --list true

Documents are known by their ids. Those with a new text are embedded, those with other metadata
written, and those that the corpus no longer has are deleted; nothing else is touched. A run that
was killed continues when it is started again. The collection notes what made its vectors (weights,
prompt, length, dimensions), and refuses any other model.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import PartialState
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Grid
from tqdm import tqdm

from common.flags import exit_code, option, parse, required
from common.hardware import prepare_cpu
from encoders.kinds import makes_vectors, open_model, retrieves
from encoders.opening.bf16_weights import place_for_inference
from evaluation.search.distributed import InferenceSettings
from evaluation.settings import ModelSettings
from serving.served_models import find_served
from stores.collection import TableSpec, check_name, is_table_of
from stores.documents import check_documents, corpus_files, read_documents
from stores.embedding import TextEmbedder, find_vector_kind
from stores.fingerprint import fingerprint
from stores.indexing import broadcast, delete_gone, move_others, synchronize
from stores.opening import open_store, redacted
from stores.store import CORPUS, Dtype, Layout, Quantization, Store, Table

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class IndexSettings(ModelSettings):
    """Index."""

    store: str = required(
        "A folder (LanceDB), postgresql://user@host/database, qdrant+http://host:6333, or "
        "qdrant:folder."
    )
    collection: str = option("docs", "Name of the collection.")
    model: str | None = option(
        None,
        "An embedder or multi-vector encoder; of a run the checkpoint that is served.",
    )
    corpus: list[str] = option(
        [], "Documents: JSON Lines, JSON or Parquet with id, text, title and metadata, or folders."
    )
    source: str = option(
        CORPUS, "Whose documents these are; those of other sources are left alone."
    )
    delete: bool = option(True, "Delete the documents of the source that the corpus lacks.")
    truncate_dim: int | None = option(
        None, "Keep only this many dimensions, for models trained with Matryoshka.", least=1
    )
    dtype: Dtype = option("float32", "Number format of the vectors in the store.")
    quantization: Quantization = option(
        "none", "int8 or binary: the index searches smaller copies; the vectors order the best."
    )
    block_size: int = option(4096, "Documents that are embedded and written at once.", least=1)
    migrate: bool = option(
        False, "The collection was indexed otherwise: index beside it, and switch at the end."
    )
    prune: bool = option(False, "Delete the tables left by finished or abandoned migrations.")
    list: bool = option(False, "Show the collections of the store, and do nothing.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.collection)
        if not (self.list or self.prune) and not (self.model and self.corpus):
            raise ValueError(
                f"{'corpus' if self.model else 'model'}: is missing; give --model and --corpus, or "
                "--list true"
            )
        for name in ("max_length", "query_max_length", "query_prompt"):
            if getattr(self, name) is not None:
                kind = "prompt" if name.endswith("prompt") else "max_length"
                raise ValueError(f"{name}: only documents are embedded here; give document_{kind}")


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: run(parse(IndexSettings, argv, __doc__)))


def run(args: IndexSettings) -> None:
    """Do what the flags say."""
    # The others wait while one process builds an index.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))
    with ExitStack() as exits:
        store: Store | None = None
        if state.is_main_process:
            store = open_store(args.store)
            exits.callback(store.close)
        if args.list:
            if store is not None:
                show(store, args.store)
            return
        if store is not None:
            exits.enter_context(store.lock(args.collection))
        if args.model and args.corpus:
            index(args, store)
        if args.prune and store is not None:
            prune(store, args.collection)


def index(args: IndexSettings, store: Store | None) -> None:
    """Bring the collection into agreement with the corpus; ``store``: in the main process."""
    assert args.model is not None
    files = corpus_files(args.corpus)
    keys = check_documents(files)
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, _ = find_served(args.model)
    model = open_model(
        folder,
        find_vector_kind(folder),
        truncate_dim=args.truncate_dim,
        trust_remote_code=args.trust_remote_code,
    )
    assert makes_vectors(model)
    model.replace_prompts(args.query_prompt, args.document_prompt)
    model = place_for_inference(model, PartialState().device)
    made_by = fingerprint(model, args.document_max_length)
    layout = Layout(made_by.dimensions, args.dtype, args.quantization, not retrieves(model))
    spec = TableSpec(made_by, layout, Path(args.model).name)
    inference = InferenceSettings(
        bf16=args.bf16,
        tokens_per_batch=args.tokens_per_batch,
        document_max_length=args.document_max_length,
    )
    embedder, old, table = TextEmbedder(model, inference), None, None
    if store is not None:
        old = find_replaced(store, args, spec)
        table = store.open(spec.table(args.collection), layout, create=True)
    build(args, files, keys, table, embedder)
    if broadcast(lambda: old is not None):
        migrate(args, keys, store, table, old, spec, embedder)
    elif store is not None and table is not None:
        table.build_index()
        store.publish(args.collection, spec.about(args.collection))
    if table is not None:
        print(f"{args.collection}: {table.count():,} documents in {redacted(args.store)}")
    if old:
        print(
            f"{args.collection}: switched to {spec.name}; servers of {old['name']} continue "
            "with the old vectors; --prune true deletes them"
        )


def find_replaced(store: Store, args: IndexSettings, spec: TableSpec) -> dict[str, Any] | None:
    """What the catalog says of the table that the new one is to replace; None: there is none.

    Raises:
        ValueError: There is one, and no migration was asked for.
    """
    about = store.catalog().get(args.collection)
    if about is None or about["table"] == spec.table(args.collection):
        return None
    if not args.migrate:
        raise ValueError(
            f"collection: {args.collection!r} was indexed otherwise (by {about['name']}): the "
            f"{', '.join(spec.differences(about))} differ, and the two are never mixed; "
            "give --migrate true to re-index beside it and then switch, or another --collection"
        )
    return about


def build(
    args: IndexSettings,
    files: Sequence[Path],
    keys: NDArray[np.uint64],
    table: Table | None,
    embedder: TextEmbedder,
) -> None:
    """Write the corpus, and delete what it no longer has."""
    hidden = not (PartialState().is_main_process and sys.stderr.isatty())
    with tqdm(total=len(keys), disable=hidden, unit="document") as bar:
        documents = read_documents(files, args.source)
        counts = synchronize(table, documents, embedder, args.block_size, bar.update)
    if table is None:
        return
    if args.delete:
        own = args.source
        counts["deleted"] = delete_gone(table, keys, lambda of: of == own, args.block_size)
    print_counts(args.collection, counts)


def migrate(
    args: IndexSettings,
    keys: NDArray[np.uint64],
    store: Store | None,
    table: Table | None,
    old: dict[str, Any] | None,
    spec: TableSpec,
    embedder: TextEmbedder,
) -> None:
    """Take over what the corpus does not bring, and switch to the new table; collective.

    These are the documents of other sources; with ``--delete false``, those of the source too.
    Clients write into the old table until it is closed, after the index. Only when all that they
    wrote is there does the new one go live, to be written to by others.
    """
    previous = store.open(old["table"], Layout(**old["layout"])) if store and old else None

    def move() -> None:
        left = args.source if args.delete else None
        counts = move_others(previous, table, keys, left, embedder, args.block_size)
        if table is not None and (counts.total() - counts["unchanged"]):
            print_counts(
                f"{args.collection}, {'other sources' if left else 'other documents'}", counts
            )

    move()
    if table is not None:
        table.build_index()
    if store is not None and old:
        store.publish(args.collection, old | {"closed": True})
    move()
    if store is not None:
        store.publish(args.collection, spec.about(args.collection))


def print_counts(what: str, counts: Counter[str]) -> None:
    """Print how many documents were embedded, updated, deleted and so on."""
    print(f"{what}: {', '.join(f'{number:,} {how}' for how, number in counts.items())}")


def prune(store: Store, collection: str) -> None:
    """Delete the tables of a collection that are not live."""
    live = store.catalog().get(collection, {}).get("table")
    for table in store.tables():
        if is_table_of(table, collection) and table != live:
            store.drop(table)
            print(f"deleted {table}")


def show(store: Store, url: str) -> None:
    """Print the collections."""
    if not (catalog := store.catalog()):
        print(f"{redacted(url)} has no collection")
        return
    grid = Grid("collection", "documents", "model", "dimensions", "kept as", title=redacted(url))
    for name, about in sorted(catalog.items()):
        layout = Layout(**about["layout"])
        kept = layout.dtype + ("" if layout.quantization == "none" else f", {layout.quantization}")
        kept += ", one of each token" if layout.multi_vector else ""
        count = store.open(about["table"], layout).count()
        grid.add_row(name, f"{count:,}", about["name"], str(layout.dimensions), kept)
        logger.info("%s: %s", name, json.dumps(about))
    Console(width=120).print(grid)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
