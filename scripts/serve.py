"""Serve an embedder, a reranker, or both.

    python scripts/serve.py --model outputs/embedding_contrastive       # port 8001
    python scripts/serve.py --model outputs/reranker                    # port 8002
    # both in one process on port 8000, with /search over given texts or a corpus
    python scripts/serve.py --embedder outputs/embedding_contrastive --reranker outputs/reranker \\
        --corpus data/docstrings/heldout/corpus.jsonl
    # the page at / shows the base beside what became of it
    python scripts/serve.py --model outputs/reranker --baseline package://my_package/model
    python scripts/serve.py --config configs/serving.json --model outputs/reranker

Of a training run the best checkpoint is served, as scripts/evaluate.py --select_best noted it, or
else the final model. API keys stand in a file (--api_key_file) or in TANDEM_API_KEY. Flags win
over the config file.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

# Read when torch is loaded. By default threads that wait for each other keep their cores busy: of
# two that share them with anything else, a batch takes several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import transformers

from common.hardware import prepare_cpu, process_threads
from common.recipe import merge, read_flags, read_recipe
from encoders.kinds import Kind
from evaluation.data.beir import read_corpus
from serving.app import build_app
from serving.engine.engine import Engine
from serving.engine.limits import Limits
from serving.engine.model import Precision, ServedModel, find_device, open_model
from serving.http.auth import VARIABLE, read_keys
from serving.http.logs import set_up_logging
from serving.http.metrics import Metrics
from serving.http.server import Server, listen
from serving.served_models import Served, find_models
from trainers.config.fields import option

logger = logging.getLogger(__name__)

PORTS = {"embedder": 8001, "reranker": 8002}
PORT_OF_BOTH = 8000
LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}


@dataclass
class ServeArguments(Limits):
    """What is served, where, and how."""

    model: str | None = option(
        None, "A folder, a run's output_dir, a name on the Hub, or package://<module>/<path>."
    )
    task: Kind | None = option(
        None, "embedder or reranker, for a model whose config.json does not tell."
    )
    embedder: str | None = option(None, "Instead of model: an embedder, to go with a reranker.")
    reranker: str | None = option(None, "Instead of model: a reranker, to go with an embedder.")
    baseline: str | None = option(None, "A model of the same kind, to compare with on the page.")
    corpus: str | None = option(None, "Documents to /search: corpus.jsonl, or its folder.")
    served_model_name: str | None = option(
        None, "What clients are told of model (default: the folder's name)."
    )
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 is all of the machine's.")
    port: int | None = option(
        None, "Default: 8001 for an embedder, 8002 for a reranker, 8000 for both."
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...")
    precision: Precision = option(
        "auto", "float32 or bfloat16; auto is bfloat16 where the device has it."
    )
    threads: int | None = option(None, "Of the CPU; null: what the process may use.")
    max_length: int | None = option(None, "Tokens of a text or pair; null: the model's own.")
    trust_remote_code: bool = option(False, "Let Python code of a model's folder run.")
    truncate_dim: int | None = option(
        None, "Embedder: keep so many of an embedding's dimensions, as Matryoshka trains them."
    )
    api_key_file: str | None = option(None, f"API keys, one a line (or in {VARIABLE}).")
    cors_origins: list[str] = option([], "Other sites whose pages may ask, such as https://a.b.")
    open_metrics: bool = option(False, "/metrics needs no API key.")
    exit_when_unhealthy: bool = option(
        False, "End with status 3 when the model thread has ended, to be started anew."
    )
    log_json: bool = option(False, "Each line of the log is an object.")

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = [name for name in ("embedder", "reranker") if getattr(self, name)]
        if bool(self.model) == bool(pair):
            raise ValueError("--model: give a model, or --embedder and --reranker")
        for name in ("task", "served_model_name"):
            if pair and getattr(self, name):
                raise ValueError(f"--{name}: is for --model alone; leave it out")
        if self.port is not None and not 0 <= self.port < 2**16:
            raise ValueError(f"port: must be from 0 to 65535, got {self.port}")
        for name in ("threads", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be at least 1, got {value}")

    def given(self) -> list[tuple[str, Kind | None]]:
        """The models, each with the kind that it must be of."""
        if self.model:
            return [(self.model, self.task)]
        both: list[tuple[str | None, Kind]] = [
            (self.embedder, "embedder"),
            (self.reranker, "reranker"),
        ]
        return [(name, kind) for name, kind in both if name]


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 after SIGTERM, 2 after one line about what the user can mend, 3 if it broke."""
    try:
        args = parse_arguments(argv)
        set_up_logging(args.log_json)
        find_device(args.device)
        keys = read_keys(args.api_key_file)
        models = find_models(
            args.given(), args.baseline, args.served_model_name, args.trust_remote_code
        )
        documents = read_corpus(args.corpus) if args.corpus else None
        if documents is not None and "embedder" not in models:
            raise ValueError("corpus: is searched by an embedder; give one")
        socket = listen(args.host, find_port(args, models))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    cores = set_up(args, bool(keys))
    engine = Engine(
        lambda: open_models(args, models),
        args,
        Metrics(),
        precision=args.precision,
        threads=args.threads or cores,
        documents=documents,
    )
    app = build_app(
        engine,
        [role for role in models if "_" not in role],
        keys=keys,
        cors_origins=args.cors_origins,
        open_metrics=args.open_metrics,
        workers=max(1, cores // 2),
    )
    engine.start()
    host, port = socket.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    logger.info("listening at http://%s:%d", address, port)
    Server(app, engine, args.exit_when_unhealthy).run(sockets=[socket])
    return outcome(engine)


def set_up(args: ServeArguments, has_keys: bool) -> int:
    """Prepare the process; return the cores that it is to use."""
    if args.host not in LOCAL_HOSTS and not has_keys:
        logger.warning(
            "%s can be reached from other machines, and there is no API key: whoever reaches it "
            "may use it",
            args.host,
        )
    # The model thread needs the interpreter between any two kernels; by default another thread
    # keeps it for 5 ms.
    sys.setswitchinterval(0.0005)
    # Requests are tokenized by threads of our own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    cores = process_threads()
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    prepare_cpu()
    return cores


def outcome(engine: Engine) -> int:
    """The exit status, after one line if it is an error."""
    if isinstance(engine.start_error, ValueError):
        print(f"error: {engine.start_error}", file=sys.stderr)
        return 2
    if engine.start_error is not None:
        logger.critical("the models could not be loaded", exc_info=engine.start_error)
        return 3
    return 3 if engine.health()[0] == "unhealthy" else 0


def find_port(args: ServeArguments, models: dict[str, Served]) -> int:
    """The port given, or that of the task."""
    if args.port is not None:
        return args.port
    kinds = {served.kind for served in models.values()}
    return PORT_OF_BOTH if len(kinds) > 1 else PORTS[kinds.pop()]


def open_models(args: ServeArguments, models: dict[str, Served]) -> dict[str, ServedModel]:
    """Load them."""
    return {
        role: open_model(
            *served,
            device=args.device,
            max_length=args.max_length,
            truncate_dim=args.truncate_dim,
            max_batch_tokens=args.max_batch_tokens,
            trust_remote_code=args.trust_remote_code,
        )
        for role, served in models.items()
    }


def parse_arguments(argv: Sequence[str] | None) -> ServeArguments:
    """``--config serving.json``, then flags, which win.

    Raises:
        ValueError: A key, value or combination that cannot be.
        SystemExit: After ``--help``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--help" in argv or "-h" in argv:
        print_help()
        raise SystemExit(0)
    flags = read_flags(argv)
    files = flags.pop("config", None)
    if files is not None and len(files) != 1:
        raise ValueError("--config: takes one file (.json or .yaml)")
    given: dict[str, Any] = read_recipe(Path(files[0])) if files else {}
    return ServeArguments(**merge(ServeArguments, given, flags))


def print_help() -> None:
    """List every key with its default and meaning."""
    print(__doc__)
    own = {known.name for known in fields(ServeArguments)} - {f.name for f in fields(Limits)}
    for known in sorted(fields(ServeArguments), key=lambda known: known.name not in own):
        default = [] if known.default is MISSING else known.default
        print(f"  --{known.name} (default {json.dumps(default)})\n        "
              f"{known.metadata['help']}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
