"""Export a model in half precision or to ONNX, and check what that costs on your own data.

    python scripts/export.py --model outputs/embedding_contrastive --format int8 \\
        --output_dir outputs/embedding_int8 --data data/docstrings/heldout
    python scripts/export.py --model outputs/reranker --format fp16 --output_dir outputs/half \\
        --data data/docstrings/heldout --first_stage outputs/embedding_contrastive --top_k 20

onnx   the model as a graph, in fp32; for scripts/serve.py and scripts/evaluate.py on a CPU
int8   the same with weights of 8 bits
fp16   a model folder as any other, of half the size; bf16 likewise

It is written only if the first of --metrics (of graded pairs: the first that they give) falls by at
most --max_drop. onnx and int8 need the extra onnx: pip install -c constraints.txt -e '.[onnx]'
"""

import logging
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import torch
import transformers
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from common.flags import exit_code, option, parse, required
from common.hardware import prepare_cpu
from common.run_files import FUSION_FILE
from encoders import kinds
from encoders.backbone import Encoder
from encoders.export.graph import export_onnx
from encoders.export.onnx_backbone import ONNX_FILE, is_onnx
from encoders.kinds import detect_kind
from encoders.opening.model_name import resolve_model
from evaluation.data.sets import PairData
from evaluation.search.fusion import read_fusion
from evaluation.settings import Data, EvaluationSettings, build_evaluator, open_model, read_data

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Least agreement of an fp32 graph with the model. The same arithmetic in another order differs by
# about 1e-6.
SAME = 1 - 1e-4
COMPARED = 256  # documents


@dataclass(kw_only=True)
class ExportSettings(EvaluationSettings):
    """Export."""

    model: str = required("A folder, a Hub name or package://<module>/<path>.")
    output_dir: Path = required("A new folder.")
    format: Literal["onnx", "int8", "fp16", "bf16"] = option("onnx", "What is written.")
    max_drop: float = option(0.005, "How much the metric may drop.")


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0; 1 if the model lost too much; 2 after a one-line error."""
    return exit_code(lambda: export(parse(ExportSettings, argv, __doc__)))


def export(args: ExportSettings) -> int:
    """Write the exported model beside its place, compare it, and move it there if it is good."""
    PartialState(cpu=True)
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    check(args)
    data = read_data(args, detect_kind(args.model))
    partial = args.output_dir.with_name(args.output_dir.name + ".partial")
    try:
        write(args, partial)
        if complaint := compare(args, partial, data):
            print(f"error: {complaint}", file=sys.stderr)
            return 1
        partial.rename(args.output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if read_fusion(args.model) is not None:
        print(f"{FUSION_FILE} is not copied: run scripts/fuse.py for the exported model")
    print(f"exported to {args.output_dir}; serve it: scripts/serve.py --model {args.output_dir}")
    return 0


def check(args: ExportSettings) -> None:
    """Refuse what cannot be before anything is done.

    Raises:
        ValueError: A package is missing, the output is there, or the model is exported already.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing and args.format not in HALF:
        raise ValueError(
            f"{', '.join(missing)} is not installed; pip install -c constraints.txt -e '.[onnx]'"
        )
    if args.output_dir.exists():
        raise ValueError(f"output_dir: {args.output_dir} already exists; give another name")
    if is_onnx(resolve_model(args.model)):
        raise ValueError(f"model: {args.model} is an ONNX model already")
    kind = detect_kind(args.model)
    whole = kinds.KINDS[kind].retrieves or kinds.KINDS[kind].reads_pairs
    if not whole and args.format not in HALF:
        raise ValueError(
            f"model: {args.model} is of kind {kind}, which is no ONNX graph; give a format that "
            f"is one of {', '.join(HALF)}"
        )


def write(args: ExportSettings, folder: Path) -> None:
    """Write the exported model; in half precision, it is computed in fp32 when it is opened."""
    shutil.rmtree(folder, ignore_errors=True)
    encoder = kinds.open_model(
        args.model, unpad_inputs=False, trust_remote_code=args.trust_remote_code
    )
    if args.format in HALF:
        weights = encoder.state_dict().items()
        encoder.save_pretrained(folder, {name: w.to(HALF[args.format]) for name, w in weights})
    else:
        export_onnx(encoder, folder, int8=args.format == "int8")


def compare(args: ExportSettings, exported: Path, data: Data) -> str | None:
    """Run both models on a CPU, one after the other, and print what they are worth.

    Returns:
        What speaks against the exported one, if anything.

    Raises:
        ValueError: The metric is undefined on the data.
    """
    kind = detect_kind(args.model)
    evaluator = build_evaluator(args, kind, data)
    models = [open_model(name, kind, args).to("cpu") for name in (args.model, str(exported))]
    queries, documents = example(data)
    one, other = (answer(model, queries, documents) for model in models)
    if one.dim() == 2:
        least = float(torch.cosine_similarity(one, other, dim=-1).min())
    else:
        least = 1 - float((one - other).abs().max())
    table = Table("", "MB", "documents/s", evaluator.metrics[0])
    values = []
    for name, model, folder in zip(
        (args.model, "exported"), models, (resolve_model(args.model), exported), strict=True
    ):
        begun = time.perf_counter()
        answer(model, queries, documents)
        rate = len(documents) / (time.perf_counter() - begun)
        metric, value = next(iter(evaluator(model).items()))
        if isinstance(value, str):
            raise ValueError(f"data: {metric} is undefined on it ({value}); give other data")
        table.add_row(name, f"{size(folder):.1f}", f"{rate:.1f}", f"{value:.4f}")
        values.append(value)
    Console(width=120).print(table)
    print(f"least agreement on {len(documents)} documents: {least:.6f}")
    if args.format == "onnx" and least < SAME:
        return f"the exported model differs from the model (agreement {least:.6f})"
    if (drop := values[0] - values[1]) > args.max_drop:
        return (
            f"{metric} falls by {drop:.4f}, more than --max_drop {args.max_drop:g}: "
            "nothing is written"
        )
    return None


def example(data: Data) -> tuple[list[str], list[str]]:
    """Documents with queries to go with them, as many of each."""
    if isinstance(data, PairData):
        return data.queries[:COMPARED], data.documents[:COMPARED]
    documents = list(data.documents.values())[:COMPARED]
    return list(islice(cycle(data.queries.values()), len(documents))), documents


def answer(model: Encoder, queries: list[str], documents: list[str]) -> torch.Tensor:
    """Embeddings of documents [N, H], or scores of pairs [N]."""
    if kinds.retrieves(model):
        return model.encode(documents, prompt_name="document")
    return torch.from_numpy(
        kinds.displayed_scores(model, model.score_pairs(queries, documents).numpy())
    )


def size(folder: Path) -> float:
    """MB of what holds a model's weights, which may be a graph."""
    graph = folder / ONNX_FILE
    files = [graph] if graph.is_file() else list(folder.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
