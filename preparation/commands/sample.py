"""A hundred hand-written rows, to try things on."""

import argparse
import json
from typing import Any

from loaders.formats.row_file import write_lines
from preparation.commands.flags import add_command, add_output_dir, output_dir_of
from preparation.sample.rows import MAX_ROWS, MIN_ROWS, sample_rows

FILES = ("train_data.json", "test_data.json", "val_data.json")
EXAMPLES = """\
  python scripts/prepare_data.py sample --output_dir data/sample --language zh
  python scripts/prepare_data.py sample --output_dir data/sample_en --language en --rows 200"""


def add(commands: Any) -> None:
    """Add the sub-command."""
    command = add_command(commands, "sample", sample, EXAMPLES, FILES)
    add_output_dir(command)
    command.add_argument("--language", required=True, choices=("zh", "en"))
    help_text = f"{MIN_ROWS} to {MAX_ROWS} (default: %(default)s)"
    command.add_argument("--rows", type=int, default=100, help=help_text)


def sample(args: argparse.Namespace) -> None:
    """Write the hand-written sample, split 60/20/20, as three JSON arrays."""
    output_dir = output_dir_of(args, FILES)
    parts = sample_rows(args.language, args.rows, args.seed)
    for part, rows in parts.items():
        path = output_dir / f"{part}_data.json"
        write_lines(path, [json.dumps(rows, ensure_ascii=False, indent=1)])
        print(f"{path}: {len(rows)} rows")
