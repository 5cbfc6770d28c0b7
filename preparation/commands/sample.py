"""Write a hundred hand-written rows, split 60/20/20, to try things on.

Writes train_data.json, test_data.json and val_data.json.

    python scripts/prepare_data.py sample --output_dir data/sample --language zh
    python scripts/prepare_data.py sample --output_dir data/sample_en --language en --rows 200
"""

import json
from dataclasses import dataclass
from typing import Literal

from common.flags import option, required
from loaders.formats.row_file import write_lines
from preparation.commands.settings import OutputSettings
from preparation.sample.rows import MAX_ROWS, MIN_ROWS, sample_rows

FILES = ("train_data.json", "test_data.json", "val_data.json")


@dataclass(kw_only=True)
class SampleSettings(OutputSettings):
    """Hand-written rows, to try things on."""

    language: Literal["zh", "en"] = required("Of the rows.")
    rows: int = option(100, f"How many, from {MIN_ROWS} to {MAX_ROWS}.")
    seed: int = option(42, "Decides which rows are drawn, and their order.")


def run(args: SampleSettings) -> None:
    """Write the parts as JSON arrays."""
    args.check_output(FILES)
    parts = sample_rows(args.language, args.rows, args.seed)
    for part, rows in parts.items():
        path = args.output_dir / f"{part}_data.json"
        write_lines(path, [json.dumps(rows, ensure_ascii=False, indent=1)])
        print(f"{path}: {len(rows)} rows")
