"""Make, convert, split and check training data.

python scripts/prepare_data.py docstrings --output_dir data/docstrings
python scripts/prepare_data.py mldr --input mldr-v1.0-zh --output_dir data/mldr --passages 1000
python scripts/prepare_data.py beir --input data/scifact --output_dir data/scifact_groups
python scripts/prepare_data.py convert --input graded.tsv --to groups --output groups.jsonl
python scripts/prepare_data.py split --input groups.jsonl --output_dir data/parts
python scripts/prepare_data.py validate --input data/parts/train.jsonl data/parts/test.jsonl

COMMAND --help explains each, with examples.
"""

import argparse
import sys
from collections.abc import Sequence

from preparation.commands import beir, convert, docstrings, mldr, sample, split, validate


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Returns:
        0; 1 if ``validate`` found something wrong; 2 after one line about what the user can mend.
    """
    parser = argparse.ArgumentParser(
        prog="prepare_data.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (docstrings, sample, mldr, beir, convert, split, validate):
        module.add(commands)
    args = parser.parse_args(argv)
    try:
        return args.run(args) or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
