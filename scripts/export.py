"""Export a model in half precision or for ONNX Runtime, and check on your own data its worth.

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

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from common.hardware import prepare_cpu
from encoders import kinds
from encoders.export.graph import export_onnx
from encoders.export.onnx_backbone import ONNX_FILE, is_onnx
from encoders.kinds import Kind, detect_kind, retrieves, shown
from encoders.opening.source import resolve_model
from evaluation.data.sets import PairData
from evaluation.evaluation_flags import (
    Data,
    add_data,
    add_first_stage,
    add_lengths,
    check_numbers,
    find_first_stage,
    how,
    open_model,
    read_data,
)
from evaluation.measure import Measure, Model, measure_ranking
from evaluation.metrics.pairs import Figure, pair_statistics
from preparation.commands.flags import add_trust

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_DROP = 0.005
# Least agreement of an fp32 graph with the model, as a cosine of embeddings or 1 - the difference
# of scores. The same arithmetic in another order differs by about 1e-6.
SAME = 1 - 1e-4
COMPARED = 256  # documents


class Worth(NamedTuple):
    """What is told of a model."""

    size: float  # MB of weights, or of the graph
    rate: float  # documents (or pairs with a query) a second
    metric: str
    value: float


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0; 1 if the model lost too much; 2 after one line about what the user can mend."""
    args = parse_arguments(argv)
    PartialState(cpu=True)
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    partial = args.output_dir.with_name(args.output_dir.name + ".partial")
    try:
        check(args)
        data = read_data(args, detect_kind(args.model))
        export(args, partial)
        complaint = compare(args, partial, data)
        if complaint is None:
            partial.rename(args.output_dir)
            print(f"exported to {args.output_dir}; scripts/serve.py --model {args.output_dir}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if complaint is not None:
        print(f"error: {complaint}", file=sys.stderr)
        return 1
    return 0


def check(args: argparse.Namespace) -> None:
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
        raise ValueError(f"--output_dir: {args.output_dir} is there already; give another name")
    if is_onnx(resolve_model(args.model)):
        raise ValueError(f"--model: {args.model} is an ONNX model already")


def export(args: argparse.Namespace, folder: Path) -> None:
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


def compare(args: argparse.Namespace, folder: Path, data: Data) -> str | None:
    """Print what both are worth; what speaks against the exported one."""
    kind = detect_kind(args.model)
    run = measurement(args, kind, data)
    opened: list[Model] = [
        open_model(name, kind, args).to("cpu") for name in (args.model, str(folder))
    ]
    queries, documents = example(data)
    answers = [answer(model, queries, documents) for model in opened]
    agreement = least_agreement(*answers)
    worth = []
    for model, files in zip(opened, (resolve_model(args.model), folder), strict=True):
        begun = time.perf_counter()
        answer(model, queries, documents)
        rate = len(documents) / (time.perf_counter() - begun)
        worth.append(Worth(size(files), rate, *run(model)))
    table = Table("", "MB", "documents/s", worth[0].metric)
    for name, one in zip((args.model, "exported"), worth, strict=True):
        table.add_row(name, f"{one.size:.1f}", f"{one.rate:.1f}", f"{one.value:.4f}")
    Console(width=120).print(table)
    print(f"least agreement on {len(documents)} documents: {agreement:.6f}")
    if args.format == "onnx" and agreement < SAME:
        return f"the exported model differs from the model (agreement {agreement:.6f})"
    drop = worth[0].value - worth[1].value
    if drop > args.max_drop:
        return (
            f"{worth[0].metric} falls by {drop:.4f}, more than --max_drop {args.max_drop:g}: "
            "nothing is written"
        )
    return None


def measurement(
    args: argparse.Namespace, kind: Kind, data: Data
) -> Callable[[Model], tuple[str, float]]:
    """What gives a model's main metric: its name and value."""
    if isinstance(data, PairData):
        name = next(iter(pair_statistics(data.judged())))
        return lambda model: one_figure(Measure(data, [name], how(args))(model))
    first = find_first_stage(args, kind, data)

    def run(model: Model) -> tuple[str, float]:
        return one_figure(measure_ranking(model, data, args.metrics, how(args), first).means())

    return run


def one_figure(figures: dict[str, Figure]) -> tuple[str, float]:
    """The name and value of the first metric.

    Raises:
        ValueError: It has no value, so that two models cannot be compared by it.
    """
    name, value = next(iter(figures.items()))
    if isinstance(value, str):
        raise ValueError(f"--data: {name} is undefined on it ({value}); give other data")
    return name, value


def example(data: Data) -> tuple[list[str], list[str]]:
    """Documents with queries to go with them, as many of each."""
    if isinstance(data, PairData):
        return data.queries[:COMPARED], data.documents[:COMPARED]
    documents = list(data.documents.values())[:COMPARED]
    queries = list(data.queries.values())
    return [queries[at % len(queries)] for at in range(len(documents))], documents


def answer(model: Model, queries: list[str], documents: list[str]) -> torch.Tensor:
    """Embeddings of documents [N, H], or scores of pairs [N]."""
    if retrieves(model):
        return model.encode(documents, prompt_name="document")
    return torch.from_numpy(shown(model, model.score_pairs(queries, documents).numpy()))


def least_agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """The lowest cosine of embeddings, or 1 - the largest difference of scores."""
    if one.dim() == 2:
        return float(torch.cosine_similarity(one, other, dim=-1).min())
    return 1 - float((one - other).abs().max())


def size(folder: Path) -> float:
    """MB of what holds a model's weights."""
    graph = folder / ONNX_FILE
    files = [graph] if graph.is_file() else list(folder.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / 1e6


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags; ``--help`` explains each."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, help="a folder, a Hub name or package://module/path")
    add("--output_dir", type=Path, required=True, help="a new folder")
    add_trust(parser)
    add("--format", choices=["onnx", "int8", *HALF], default="onnx", help="default: %(default)s")
    add("--max_drop", type=float, default=MAX_DROP, help="of the metric (default: %(default)s)")
    add_first_stage(parser)
    add_data(parser)
    add_lengths(parser)
    args = parser.parse_args(argv)
    check_numbers(parser, args)
    return args


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
