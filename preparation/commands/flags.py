"""What the sub-commands share: flags, the check of the output, a progress bar."""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from loaders import ReadOptions
from loaders.parsing.row_stream import RowStream

T = TypeVar("T")


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    examples: str,
    files: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """A sub-command; the docstring of ``run`` is its help."""
    text = "\n".join(line.strip() for line in (run.__doc__ or "").strip().splitlines())
    writes = f" Writes {', '.join(files)}." if files else ""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.partition("\n")[0],
        description=f"{text}{writes}",
        epilog=f"examples:\n{examples}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def add_output_dir(command: argparse.ArgumentParser, seed: bool = True) -> None:
    """The flags of a sub-command that writes several files."""
    command.add_argument("--output_dir", required=True, metavar="DIR", help="where to write")
    if seed:
        command.add_argument("--seed", type=int, default=42, help="(default: %(default)s)")
    add_overwrite(command)


def add_overwrite(command: argparse.ArgumentParser) -> None:
    """The flag without which no file is replaced."""
    command.add_argument("--overwrite", action="store_true", help="replace files already there")


def add_input(command: argparse.ArgumentParser, help_text: str) -> None:
    """What a sub-command reads."""
    command.add_argument("--input", nargs="+", required=True, metavar="FILE", help=help_text)


def add_read_options(command: argparse.ArgumentParser, split: bool = True) -> None:
    """How rows are read; the flags have the names that recipes use.

    Args:
        command: The sub-command.
        split: Whether ``--split`` is one of them, and not a flag of the command's own.
    """
    add = command.add_argument_group("how rows are read").add_argument
    add("--columns", type=columns, metavar="JSON", help='columns to fields: {"question": "query", '
        '"answers.text": "pos"}')  # fmt: skip
    if split:
        add("--split", metavar="NAME", help="of folders and Hub data sets that have several")
    add("--label_map", type=label_map, metavar="JSON", help='labels to relevances: {"good": 1}')
    add("--label_range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of scores: 0 5")
    add("--relevance_from_scores", action="store_true", help="pos_scores and neg_scores are "
        "relevances, not a teacher's")  # fmt: skip
    add("--positive_threshold", type=float, default=0.5, metavar="REL", help="relevance of a "
        "positive (default: 0.5)")  # fmt: skip


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Whether models may bring Python code of their own."""
    parser.add_argument("--trust_remote_code", action="store_true", help="let Python code of a "
        "model's folder run")  # fmt: skip


def add_bad_rows(command: argparse.ArgumentParser) -> None:
    """What is done about rows that are bad."""
    add = command.add_argument
    add("--on_bad_rows", choices=("error", "skip"), default="error", help="(default: error)")
    add("--rejected_file", type=Path, metavar="FILE", help="where bad rows go, with reasons")


def read_options(args: argparse.Namespace, **changes: Any) -> ReadOptions:
    """The options that the flags ask for."""
    names = ("on_bad_rows", "rejected_file", "split")
    given = {name: getattr(args, name) for name in names if name in args}
    return ReadOptions(
        label_map=args.label_map,
        label_range=tuple(args.label_range) if args.label_range else None,
        relevance_from_scores=args.relevance_from_scores,
        positive_threshold=args.positive_threshold,
        columns=args.columns,
        **(given | changes),
    )


def open_rows(files: Sequence[str], options: ReadOptions, needs_rows: bool = True) -> RowStream:
    """The rows of some files."""
    return RowStream(files, options, needs_rows)


def output_dir_of(args: argparse.Namespace, files: Iterable[str]) -> Path:
    """The folder to write to, once it is sure that nothing is overwritten unasked."""
    output_dir = Path(args.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"--output_dir {output_dir} is a file; give a folder")
    present = [name for name in files if (output_dir / name).exists()]
    if present and not args.overwrite:
        raise ValueError(f"{output_dir} already holds {present[0]}; add --overwrite to replace it")
    return output_dir


def check_output_file(path: Path, overwrite: bool) -> None:
    """Refuse to write to a folder, or over a file unasked."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already; add --overwrite to replace it")


def progress(items: Iterable[T], what: str, unit: str = "row") -> Iterator[T]:
    """Yield the items with a progress bar on stderr."""
    yield from tqdm(items, desc=what, unit=f" {unit}s", mininterval=0.5)


def positive(text: str) -> int:
    """A flag's number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def columns(text: str) -> dict[str, str]:
    """A flag's object of column -> field."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given.values()):
        raise argparse.ArgumentTypeError(
            f'{text} is no JSON object of columns and fields, such as {{"question": "query"}}'
        )
    return given


def label_map(text: str) -> dict[str, float]:
    """A flag's object of label -> relevance."""
    try:
        given = json.loads(text)
        return {str(label): float(relevance) for label, relevance in given.items()}
    except (ValueError, TypeError, AttributeError):
        raise argparse.ArgumentTypeError(
            f'{text} is no JSON object of labels and numbers, such as {{"good": 1, "bad": 0}}'
        ) from None
