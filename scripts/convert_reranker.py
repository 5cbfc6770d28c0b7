"""Convert a decoder that answers "yes" or "no" (Qwen3-Reranker) to an ordinary reranker.

    python scripts/convert_reranker.py --model Qwen/Qwen3-Reranker-0.6B \\
        --output_dir models/qwen3_reranker
    python scripts/convert_reranker.py --model my/decoder --output_dir models/decoder \\
        --instruction "为给定的搜索问题找出能回答它的段落" --answers 是 否

The folder scores as the decoder does. It is trained (model_name_or_path), evaluated, served and
opened by sentence-transformers' CrossEncoder as any reranker; the instruction is part of its
tokenizer, so that queries and documents are given as they are.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import transformers

from common.flags import Settings, exit_code, option, parse, required
from common.hardware import prepare_cpu
from encoders.causal_reranker import ANSWERS, INSTRUCTION, PAIR_TEMPLATE, open_causal_reranker


@dataclass(kw_only=True)
class ConvertRerankerSettings(Settings):
    """What is converted, and what it is asked about a pair."""

    model: str = required("A folder, a Hub name or package://<module>/<path>.")
    model_revision: str | None = option(None, "Branch, tag or commit on the Hub.")
    trust_remote_code: bool = option(False, "Let Python code of the model's folder run.")
    output_dir: Path = required("A new folder.")
    instruction: str = option(INSTRUCTION, "What the search is for.")
    answers: tuple[str, str] = option(
        ANSWERS, "The words for a relevant document and for another, one token each."
    )
    pair_template: Path | None = option(
        None, "File of a text with {instruction}, {query}, {document}; null: Qwen3-Reranker's."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0; 2 after a one-line error."""
    return exit_code(lambda: convert(parse(ConvertRerankerSettings, argv, __doc__)))


def convert(args: ConvertRerankerSettings) -> None:
    """Open the decoder as a reranker, and save it as one."""
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if args.output_dir.exists():
        raise ValueError(f"output_dir: {args.output_dir} already exists; give another name")
    template = PAIR_TEMPLATE
    if args.pair_template:
        template = args.pair_template.read_text(encoding="utf-8-sig")
    if args.instruction != INSTRUCTION and "{instruction}" not in template:
        raise ValueError(
            f"instruction: {args.pair_template} has no {{instruction}} to put it in; add that, or "
            "leave instruction out"
        )
    reranker = open_causal_reranker(
        args.model,
        pair_template=template.replace("{instruction}", args.instruction),
        answers=args.answers,
        revision=args.model_revision,
        trust_remote_code=args.trust_remote_code,
    )
    reranker.save_pretrained(args.output_dir)
    print(f"the reranker is in {args.output_dir}")


if __name__ == "__main__":
    sys.exit(main())
