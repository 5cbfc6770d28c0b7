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
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import transformers
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from common.flags import exit_code, option, parse, required
from common.hardware import prepare_cpu
from encoders import kinds
from encoders.export.graph import export_onnx
from encoders.export.onnx_backbone import is_onnx
from encoders.kinds import detect_kind
from encoders.opening.source import resolve_model
from evaluation.exported import Agreement, compare_exported
from evaluation.settings import EvaluationSettings, read_data

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Least agreement of an fp32 graph with the model. The same arithmetic in another order differs by
# about 1e-6.
SAME = 1 - 1e-4


@dataclass(kw_only=True)
class ExportSettings(EvaluationSettings):
    """Export."""

    model: str = required("A folder, a Hub name or package://<module>/<path>.")
    output_dir: Path = required("A new folder.")
    format: Literal["onnx", "int8", "fp16", "bf16"] = option("onnx", "What is written.")
    max_drop: float = option(0.005, "By how much the metric may fall.")


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
        found = compare_exported(args.model, partial, data, args)
        show(args.model, found)
        if complaint := complaint_about(found, args):
            print(f"error: {complaint}", file=sys.stderr)
            return 1
        partial.rename(args.output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"exported to {args.output_dir}; scripts/serve.py --model {args.output_dir}")
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
        raise ValueError(f"output_dir: {args.output_dir} is there already; give another name")
    if is_onnx(resolve_model(args.model)):
        raise ValueError(f"model: {args.model} is an ONNX model already")


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


def show(model: str, found: Agreement) -> None:
    """Print what both models are worth."""
    table = Table("", "MB", "documents/s", found.worth[0].metric)
    for name, one in zip((model, "exported"), found.worth, strict=True):
        table.add_row(name, f"{one.size:.1f}", f"{one.rate:.1f}", f"{one.value:.4f}")
    Console(width=120).print(table)
    print(f"least agreement on {found.documents} documents: {found.least:.6f}")


def complaint_about(found: Agreement, args: ExportSettings) -> str | None:
    """What speaks against the exported model."""
    if args.format == "onnx" and found.least < SAME:
        return f"the exported model differs from the model (agreement {found.least:.6f})"
    before, after = found.worth
    drop = before.value - after.value
    if drop > args.max_drop:
        return (
            f"{before.metric} falls by {drop:.4f}, more than --max_drop {args.max_drop:g}: "
            "nothing is written"
        )
    return None


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
