"""Serve an embedder, a reranker, or both.

    python scripts/serve.py --model outputs/embedding_contrastive       # port 8001
    python scripts/serve.py --model outputs/reranker                    # port 8002
    # both in one process on port 8000, with /search over given texts or a corpus
    python scripts/serve.py --embedder outputs/embedding_contrastive --reranker outputs/reranker \\
        --corpus data/docstrings/heldout/corpus.jsonl
    # over the documents of a vector database, which clients may write
    python scripts/serve.py --model outputs/embedding_contrastive --store outputs/store \\
        --allow_writes true
    # the page at / shows the base beside what became of it
    python scripts/serve.py --model outputs/reranker --baseline package://my_package/model
    python scripts/serve.py --config configs/serving.json --model outputs/reranker

Of a training run the best checkpoint is served, as scripts/evaluate.py --select_best noted it, or
else the final model. API keys stand in a file (--api_key_file) or in TANDEM_API_KEY. Flags win
over the config file.
"""

import gc
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

# Read when torch is loaded. By default threads that wait for each other keep their cores busy: of
# two that share them with anything else, a batch takes several times as long. To sleep at once
# costs a single short text half its time, so GNU's threads, which torch has on Linux, wait for a
# tenth of a millisecond or so.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "100000")

# The imports make a million objects that stay: to look for garbage among them, again and again,
# takes a quarter of the time of a start.
gc.disable()

import transformers

from common.flags import complain, parse
from common.hardware import prepare_cpu, process_threads
from encoders.kinds import KINDS
from evaluation.data.resolve import read_corpus
from serving.app import build_app
from serving.engine.engine import Engine
from serving.engine.model import ServedModel, open_model
from serving.engine.placement import Placement, find_placements
from serving.engine.replicated import ReplicatedEngine
from serving.http.auth import read_keys
from serving.http.logs import set_up_logging
from serving.http.metrics import Metrics
from serving.http.server import Server, listen
from serving.http.tracing import open_provider
from serving.routes.openai import LoadBody
from serving.served_models import ModelToServe, find_models
from serving.settings import PORT_OF_BOTH, ServeSettings
from serving.stored_corpus import StoredCorpus
from stores import Store, StoreUnavailable, open_store

gc.freeze()
gc.enable()

logger = logging.getLogger(__name__)

FOLDERS = {"model", "embedder", "reranker"}
LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 after SIGTERM, 2 after a one-line error, 3 if it broke."""
    try:
        args = parse(ServeSettings, argv, __doc__)
        set_up_logging(args.log_json)
        placements = find_placements(args.replicas, args.device, args.threads)
        keys = read_keys(args.api_key_file)
        named = (args.baseline, args.served_model_name)
        models = find_models(args.given(), *named, args.trust_remote_code, bool(args.store))
        check_kinds(args, models)
        documents = read_corpus(args.corpus) if args.corpus else None
        traces = open_provider()
        with no_collection():  # LanceDB is imported
            store = open_store(args.store) if args.store else None
        socket = listen(args.host, find_port(args, models))
    except (ValueError, StoreUnavailable) as error:
        return complain(error)
    cores = set_up(args, bool(keys))
    engine = build_engine(args, models, placements, documents, store)
    app = build_app(
        engine,
        [role for role in models if "_" not in role],
        keys=keys,
        cors_origins=args.cors_origins,
        open_metrics=args.open_metrics,
        embeds=any(KINDS[served.kind].retrieves for served in models.values()),
        stores=store is not None,
        workers=max(1, cores // 2),
        traces=traces,
        find_models=partial(find_loadable, args, models) if args.allow_loading else None,
    )
    host, port = socket.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    logger.info("listening at http://%s:%d", address, port)
    try:
        engine.start()
        Server(app, engine, args.exit_when_unhealthy).run(sockets=[socket])
        return exit_status(engine)
    finally:
        engine.stop()


def check_kinds(args: ServeSettings, models: dict[str, ModelToServe]) -> None:
    """Refuse settings of a kind of model that is not served."""
    for name in ("corpus", "store"):
        if getattr(args, name) and "embedder" not in models:
            raise ValueError(f"{name}: needs an embedder to search it; give one")
    reads_pairs = {KINDS[served.kind].reads_pairs for served in models.values()}
    if args.text_max_length and False not in reads_pairs:
        raise ValueError("text_max_length: is for an embedder; a reranker's is max_length")
    if args.truncate_dim and not any(KINDS[served.kind].retrieves for served in models.values()):
        raise ValueError("truncate_dim: is for an embedder, and none is served; leave it out")
    if args.max_length and True not in reads_pairs:
        raise ValueError("max_length: is for a reranker; an embedder's is text_max_length")


def set_up(args: ServeSettings, has_keys: bool) -> int:
    """Prepare the process; return the cores that it is to use."""
    if args.host not in LOCAL_HOSTS and not has_keys:
        logger.warning(
            "%s can be reached from other machines, and there is no API key: anyone who can reach "
            "it can use it",
            args.host,
        )
    # The model thread needs the interpreter between any two kernels; by default another thread
    # keeps it for 5 ms.
    sys.setswitchinterval(0.0005)
    # Requests are tokenized by threads of our own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    cores = process_threads()
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    prepare_cpu()
    return cores


def build_engine(
    args: ServeSettings,
    models: dict[str, ModelToServe],
    placements: Sequence[Placement],
    documents: Mapping[str, str] | None,
    store: Store | None,
) -> Engine:
    """The engine: a thread that computes, or with several replicas processes."""
    load, metrics = partial(open_models, args, models), Metrics()
    searched = (documents, partial(open_stored, args, store) if store else None)
    if len(placements) > 1:
        # Replicas are copies of a process that has imported all that this one has.
        multiprocessing.set_forkserver_preload(["scripts.serve"])
        return ReplicatedEngine(load, placements, args, metrics, args.precision, *searched)
    return Engine(load, placements, args, metrics, args.precision, *searched)


def exit_status(engine: Engine) -> int:
    """The exit status, after one line if it is an error."""
    if isinstance(engine.start_error, ValueError):
        return complain(engine.start_error)
    if engine.start_error is not None:
        logger.critical("the models could not be loaded", exc_info=engine.start_error)
        return 3
    return 3 if engine.health()[0] == "unhealthy" else 0


def find_port(args: ServeSettings, models: dict[str, ModelToServe]) -> int:
    """``--port``, else the port of the only kind that is served, else PORT_OF_BOTH."""
    if args.port is not None:
        return args.port
    kinds = {served.kind for served in models.values()}
    return PORT_OF_BOTH if len(kinds) > 1 else KINDS[kinds.pop()].port


def find_loadable(
    args: ServeSettings, served: Mapping[str, ModelToServe], name: str, asked: LoadBody
) -> Callable[[str], dict[str, ServedModel]]:
    """Find the models that a client wants loaded beside those served; return what opens them.

    Raises:
        ValueError: There are no such models, or they are of other kinds.
    """
    given = replace(args, task=None, served_model_name=None, **asked.model_dump(include=FOLDERS))
    models = find_models(given.given(), None, name, args.trust_remote_code, bool(args.store))
    # A multi-vector encoder that searches a store has an embedder's role, but embeds for no client.
    roles, others = (
        {role: KINDS[each.kind].retrieves for role, each in those.items() if "_" not in role}
        for those in (served, models)
    )
    if roles != others:
        raise ValueError(
            f"model: this server serves {' and '.join(sorted(roles))}; give as many models of "
            "the same kinds"
        )
    return partial(open_models, args, models)


def open_stored(args: ServeSettings, store: Store, model: ServedModel) -> StoredCorpus:
    """The collection, if the model is the one that made it."""
    weight, writes = model.bm25_weight, args.allow_writes
    opened = StoredCorpus(store, args.collection, model.vector_model, weight, writes)
    logger.info("searching %s documents of %s", f"{opened.count():,}", args.collection)
    return opened


@contextmanager
def no_collection() -> Iterator[None]:
    """What is loaded stays: looking for garbage meanwhile takes a tenth of the time or more."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@no_collection()
def open_models(
    args: ServeSettings, models: dict[str, ModelToServe], device: str
) -> dict[str, ServedModel]:
    """Load them onto a device, in whichever process."""
    set_up_logging(args.log_json)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return {
        role: open_model(
            *served,
            device=device,
            max_length=(
                args.max_length if KINDS[served.kind].reads_pairs else args.text_max_length
            ),
            truncate_dim=args.truncate_dim if KINDS[served.kind].retrieves else None,
            max_batch_tokens=args.max_batch_tokens,
            trust_remote_code=args.trust_remote_code,
        )
        for role, served in models.items()
    }


if __name__ == "__main__":
    sys.exit(main())
