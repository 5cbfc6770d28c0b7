"""Settings of scripts/serve.py."""

from dataclasses import dataclass

from common.flags import Settings, option
from encoders.kinds import KINDS, Kind
from serving.engine.limits import Limits
from serving.engine.model import Precision
from serving.engine.placement import Replicas
from serving.http.auth import VARIABLE

PORT_OF_BOTH = 8000  # of a server with both kinds; KINDS has those of one alone


@dataclass(kw_only=True)
class ServeSettings(Limits, Settings):
    """Models and server."""

    model: str | None = option(
        None, "A folder, a run's output_dir, a name on the Hub, or package://<module>/<path>."
    )
    task: Kind | None = option(None, "The model's kind, if its config.json does not tell.")
    embedder: str | None = option(
        None,
        "Instead of model: an embedder, or with store a multi-vector encoder, beside a reranker.",
    )
    reranker: str | None = option(
        None, "Instead of model: a reranker or multi-vector encoder, to go with an embedder."
    )
    baseline: str | None = option(None, "A model of the same kind, to compare with on the page.")
    corpus: str | None = option(None, "Documents for /search: corpus.jsonl, or its folder.")
    store: str | None = option(
        None, "Instead of corpus: a vector database that scripts/index.py has filled; its URL."
    )
    collection: str = option("docs", "Of the store: the collection to search.")
    allow_writes: bool = option(False, "Of the store: clients may write and delete documents.")
    allow_loading: bool = option(False, "Clients may load more models and switch to them.")
    served_model_name: str | None = option(
        None, "Model name reported to clients; null: the folder's name."
    )
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0: all addresses of the machine.")
    port: int | None = option(
        None,
        f"null: {KINDS['embedder'].port} for an embedder, {KINDS['reranker'].port} for a reranker, "
        f"{KINDS['multi_vector'].port} for a multi-vector encoder, {PORT_OF_BOTH} for two kinds.",
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...")
    precision: Precision = option(
        "auto", "float32 or bfloat16; auto is bfloat16 where the device has it."
    )
    replicas: Replicas = option(
        1,
        "Processes that each hold the models and share one queue; auto: one for each GPU, or for "
        "each NUMA node of the CPU. 1 computes in the server's own process.",
    )
    threads: int | None = option(
        None, "CPU threads of each replica; null: all cores available to the process.", least=1
    )
    text_max_length: int | None = option(
        None,
        "Embedder, multi-vector encoder: tokens of a text, query or document; null: the model's "
        "limit.",
        least=1,
    )
    max_length: int | None = option(
        None, "Reranker: tokens of a pair; null: the model's limit.", least=1
    )
    trust_remote_code: bool = option(False, "Let Python code of a model's folder run.")
    truncate_dim: int | None = option(
        None,
        "Embedder: keep only this many dimensions, for models trained with Matryoshka.",
        least=1,
    )
    api_key_file: str | None = option(None, f"File of API keys, one per line (or set {VARIABLE}).")
    cors_origins: list[str] = option(
        [], "Other sites whose pages may send requests, such as https://a.b."
    )
    open_metrics: bool = option(False, "/metrics needs no API key.")
    exit_when_unhealthy: bool = option(
        False, "Exit with status 3 if the model thread dies, so that a supervisor restarts it."
    )
    log_json: bool = option(False, "Log each line as a JSON object.")

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        Limits.__post_init__(self)
        pair = [name for name in ("embedder", "reranker") if getattr(self, name)]
        if bool(self.model) == bool(pair):
            raise ValueError("model: give --model, or --embedder and --reranker")
        for name in ("task", "served_model_name"):
            if pair and getattr(self, name):
                raise ValueError(f"{name}: is for --model alone; leave it out")
        if self.store and self.corpus:
            raise ValueError("store: cannot be given beside corpus; index the corpus into it")
        if self.allow_writes and not self.store:
            raise ValueError("allow_writes: is for documents in a store; give --store")
        if self.collection != "docs" and not self.store:
            raise ValueError("collection: is of a store; give --store")
        if self.replicas != "auto" and self.replicas < 1:
            raise ValueError(f"replicas: must be auto or at least 1, got {self.replicas}")
        if self.port is not None and not 0 <= self.port < 2**16:
            raise ValueError(f"port: must be from 0 to 65535, got {self.port}")

    def given(self) -> list[tuple[str, Kind | None]]:
        """The models, each with the kind that it must be of."""
        if self.model:
            return [(self.model, self.task)]
        both: list[tuple[str | None, Kind]] = [
            (self.embedder, "embedder"),
            (self.reranker, "reranker"),
        ]
        return [(name, kind) for name, kind in both if name]
