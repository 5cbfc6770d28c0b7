"""Embed the documents of a large corpus, shard by shard.

    python scripts/prepare_data.py embed --model outputs/embedding_contrastive \\
        --input data/docstrings/heldout/corpus.jsonl --output_dir outputs/vectors
    # on all GPUs: each process takes every n-th shard
    accelerate launch scripts/prepare_data.py embed --model outputs/embedding_contrastive \\
        --input 'data/corpus/*.parquet' --output_dir outputs/vectors --dtype float16

Shards are Parquet, JSON Lines or JSON files with an id and a text, and may have a title. For each
one a Parquet file with id and vector is written. A run that was stopped continues when the same
command is started again.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import transformers

from common.flags import Settings, option, required
from loaders.beir.problems import listed
from preparation.embedding.documents import DType, EmbedDocuments
from preparation.embedding.shards import embed_shard, find_shards, is_written


@dataclass(kw_only=True)
class EmbedSettings(Settings):
    """Embedding of a corpus."""

    input: list[str] = required("Shards: files, folders, or patterns such as 'corpus/*.parquet'.")
    output_dir: Path = required("The folder of the vectors, a Parquet file for each shard.")
    model: str = required("The embedder: a folder or a name on the Hub.")
    dtype: DType = option("float32", "Of the vectors.")
    truncate_dim: int | None = option(None, "Keep only this many dimensions.", least=1)
    document_prompt: str | None = option(None, "Put before documents; null: as the model says.")
    document_max_length: int | None = option(
        None, "Tokens of a document; null: the model's limit.", least=1
    )
    tokens_per_batch: int | None = option(
        None, "About how many tokens go into one forward; null: what suits the device.", least=1
    )
    bf16: bool = option(False, "Compute in bf16, on devices that have it.")
    trust_remote_code: bool = option(False, "Let Python code of the model's folder run.")


def run(args: EmbedSettings) -> None:
    """Embed the shards of this process. Processes are independent of each other."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    process, processes = (
        int(os.environ.get(*name)) for name in (("RANK", "0"), ("WORLD_SIZE", "1"))
    )
    shards = find_shards(args.input, args.output_dir)
    own = shards[process::processes]
    others = set(args.output_dir.rglob("*.parquet")) - {shard.target for shard in shards}
    if others and process == 0:
        print(
            f"{args.output_dir}: there are vectors of no shard of the input: "
            f"{listed(sorted(map(str, others)))}; remove those whose documents are gone"
        )
    documents = EmbedDocuments(
        args.model,
        document_prompt=args.document_prompt,
        truncate_dim=args.truncate_dim,
        dtype=args.dtype,
        trust_remote_code=args.trust_remote_code,
        max_length=args.document_max_length,
        tokens_per_batch=args.tokens_per_batch,
        bf16=args.bf16,
    )
    identity = documents.identity()
    left = [shard for shard in own if not is_written(shard, identity)]
    if len(left) < len(own):
        print(f"{len(own) - len(left)} of {len(own)} shards are there already")
    for number, shard in enumerate(left, 1):
        count = embed_shard(shard, documents, identity)
        print(f"{shard.target}: {count:,} documents ({number} of {len(left)})")
