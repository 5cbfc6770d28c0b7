"""Generate, convert, split and validate training data; embed large corpora.

    python scripts/prepare_data.py docstrings --output_dir data/docstrings
    python scripts/prepare_data.py mldr --input mldr-v1.0-zh --output_dir data/mldr --passages 1000
    python scripts/prepare_data.py beir --input data/scifact --output_dir data/scifact_groups
    python scripts/prepare_data.py convert --input graded.tsv --to groups --output groups.jsonl
    python scripts/prepare_data.py split --input groups.jsonl --output_dir data/parts
    python scripts/prepare_data.py validate --input data/parts/train.jsonl data/parts/test.jsonl

COMMAND --help explains each, with examples.
"""

import difflib
import sys
from collections.abc import Sequence
from types import ModuleType

from common.flags import exit_code, parse
from preparation.commands import beir, convert, docstrings, embed, mldr, sample, split, validate

COMMANDS: dict[str, tuple[ModuleType, type]] = {
    "docstrings": (docstrings, docstrings.DocstringsSettings),
    "sample": (sample, sample.SampleSettings),
    "mldr": (mldr, mldr.MldrSettings),
    "beir": (beir, beir.BeirSettings),
    "convert": (convert, convert.ConvertSettings),
    "split": (split, split.SplitSettings),
    "embed": (embed, embed.EmbedSettings),
    "validate": (validate, validate.ValidateSettings),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Returns:
        0; 1 if ``validate`` found something wrong; 2 after a one-line error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return exit_code(lambda: run(words))


def run(words: Sequence[str]) -> int | None:
    """Run the sub-command that the first word names with the settings that the others give."""
    name = words[0] if words else ""
    if name in ("--help", "-h"):
        print(__doc__)
        for command, (module, _) in COMMANDS.items():
            print(f"  {command:<12}{(module.__doc__ or '').splitlines()[0]}")
        raise SystemExit(0)
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {close[0]}?" if close else f"give one of {', '.join(COMMANDS)}"
        what = f"{name}: unknown command" if name else "a command is missing"
        raise ValueError(f"{what}; {meant}")
    module, settings = COMMANDS[name]
    result: int | None = module.run(parse(settings, words[1:], module.__doc__))
    return result


if __name__ == "__main__":
    sys.exit(main())
