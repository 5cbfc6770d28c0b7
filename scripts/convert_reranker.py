"""Make an ordinary reranker of a decoder that answers "yes" or "no", such as Qwen3-Reranker.

    python scripts/convert_reranker.py --model Qwen/Qwen3-Reranker-0.6B \\
        --output_dir models/qwen3_reranker
    python scripts/convert_reranker.py --model my/decoder --output_dir models/decoder \\
        --instruction "为给定的搜索问题找出能回答它的段落" --answers 是 否

The folder scores as the decoder does. It is trained (model_name_or_path), evaluated, served and
opened by sentence-transformers' CrossEncoder as any reranker; the instruction is part of its
tokenizer, so that queries and documents are given as they are.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import transformers

from common.hardware import prepare_cpu
from encoders.causal_reranker import ANSWERS, INSTRUCTION, PAIR_TEMPLATE, open_causal_reranker
from preparation.commands.flags import add_trust


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0; 2 after one line about what the user can mend."""
    args = parse_arguments(argv)
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        if args.output_dir.exists():
            raise ValueError(f"--output_dir: {args.output_dir} is there already; give another name")
        template = PAIR_TEMPLATE
        if args.pair_template:
            template = args.pair_template.read_text(encoding="utf-8")
        reranker = open_causal_reranker(
            args.model,
            pair_template=template.replace("{instruction}", args.instruction),
            answers=tuple(args.answers),
            revision=args.revision,
            trust_remote_code=args.trust_remote_code,
        )
        reranker.save_pretrained(args.output_dir)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"the reranker is in {args.output_dir}")
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags; ``--help`` explains each."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, help="a folder, a Hub name or package://module/path")
    add("--revision", help="branch, tag or commit on the Hub")
    add("--output_dir", type=Path, required=True, help="a new folder")
    add_trust(parser)
    add("--instruction", default=INSTRUCTION, help="what the search is for (default: %(default)s)")
    add("--answers", nargs=2, default=ANSWERS, metavar=("YES", "NO"), help="one token each "
        "(default: yes no)")  # fmt: skip
    add("--pair_template", type=Path, metavar="FILE", help="text with {instruction}, {query} and "
        "{document} (default: Qwen3-Reranker's)")  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
