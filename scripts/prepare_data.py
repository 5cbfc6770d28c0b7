"""Make training data from what every machine has: docstrings of installed packages, or a sample.

python scripts/prepare_data.py docstrings --output_dir data/docstrings
python scripts/prepare_data.py sample --output_dir data/sample --language zh
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from loaders.docstring_corpus import Part, hard_negatives, split_by_topic, unique
from loaders.docstring_text import MAX_DOCUMENT_CHARACTERS
from loaders.docstrings import PACKAGES, DocstringPair, locate, read_file, source_files
from loaders.sample import MAX_ROWS, MIN_ROWS, sample_rows

DOCSTRING_FILES = (
    *("train_pairs.jsonl", "train_groups.jsonl", "train_scored.jsonl"),
    *("dev_pairs.jsonl", "dev_groups.jsonl"),
    *("heldout/corpus.jsonl", "heldout/queries.jsonl", "heldout/qrels/test.tsv"),
)
DOCSTRINGS_EXAMPLES = """\
  python scripts/prepare_data.py docstrings --output_dir data/docstrings
  python scripts/prepare_data.py docstrings --output_dir data/maths \\
      --packages scipy sympy networkx --heldout_size 300 --dev_size 100
  python scripts/prepare_data.py docstrings --output_dir data/ours --source src/ours"""

SAMPLE_FILES = ("train_data.json", "test_data.json", "val_data.json")
SAMPLE_EXAMPLES = """\
  python scripts/prepare_data.py sample --output_dir data/sample --language zh
  python scripts/prepare_data.py sample --output_dir data/sample_en --language en --rows 200"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; 0, or 2 after one line about what the user can mend."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"prepare_data.py {args.command}: {error}", file=sys.stderr)
        return 2
    return 0


def docstrings(args: argparse.Namespace) -> None:
    """Read docstrings, split them by module and write pairs, groups and a held-out set."""
    output_dir = _output_dir(args, DOCSTRING_FILES)
    dropped: Counter[str] = Counter()
    read = _read(_sources(args.packages, args.source), dropped)
    pairs = unique(read, dropped)
    parts = split_by_topic(pairs, args.heldout_size, args.dev_size, args.seed)

    for part in ("train", "dev"):
        _write_training(output_dir, part, parts[part], args.negatives, args.seed)
    _write_heldout(output_dir / "heldout", parts["heldout"])
    _print_summary(output_dir, parts, dropped)


def sample(args: argparse.Namespace) -> None:
    """Write the hand-written sample, split 60/20/20, as three JSON arrays."""
    output_dir = _output_dir(args, SAMPLE_FILES)
    parts = sample_rows(args.language, args.rows, args.seed)
    for part, rows in parts.items():
        path = output_dir / f"{part}_data.json"
        _write_lines(path, [json.dumps(rows, ensure_ascii=False, indent=1)])
        print(f"{path}: {len(rows)} rows")


def _output_dir(args: argparse.Namespace, files: Iterable[str]) -> Path:
    """The folder to write to, once it is sure that nothing is overwritten unasked."""
    output_dir = Path(args.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"--output_dir {output_dir} is a file; give a folder")
    present = [name for name in files if (output_dir / name).exists()]
    if present and not args.overwrite:
        raise ValueError(f"{output_dir} already holds {present[0]}; add --overwrite to replace it")
    return output_dir


def _sources(packages: Sequence[str] | None, folders: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, folder or file) of all that is to be read. Default packages may be absent."""
    found: list[tuple[str, Path]] = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"--source {folder} is not a folder")
        found.append((Path(folder).resolve().name, Path(folder)))
    absent = []
    for package in packages or (() if folders else PACKAGES):
        if root := locate(package):
            found.append((package, root))
        else:
            absent.append(package)
    if absent and packages:
        raise ValueError(f"--packages: {', '.join(absent)} is not installed; leave it out")
    if absent:
        print(f"not installed, left out: {', '.join(absent)}")
    return found


def _read(sources: list[tuple[str, Path]], dropped: Counter[str]) -> list[DocstringPair]:
    files = [(name, *file) for name, root in sources for file in source_files(root, name)]
    pairs: list[DocstringPair] = []
    for package, module, path in tqdm(files, desc="reading source files", unit="file"):
        pairs.extend(read_file(package, module, path, dropped))
    return pairs


def _write_training(
    output_dir: Path, part: Part, pairs: list[DocstringPair], negatives: int, seed: int
) -> None:
    """Pairs and groups of one part; for training also the groups as scored rows, 1 and 0."""
    mined = hard_negatives(pairs, negatives, seed)
    groups: list[dict[str, Any]] = [
        {"query": pair.query, "pos": [pair.document], "neg": found}
        for pair, found in zip(pairs, tqdm(mined, f"{part} negatives", len(pairs)), strict=True)
    ]
    positives = [{"query": pair.query, "pos_doc": pair.document} for pair in pairs]
    _write_lines(output_dir / f"{part}_pairs.jsonl", map(_json, positives))
    _write_lines(output_dir / f"{part}_groups.jsonl", map(_json, groups))
    if part == "train":
        scored = (
            {"query": group["query"], "doc": doc, "rel": rel, "weight": 1.0}
            for group in groups
            for rel, docs in ((1.0, group["pos"]), (0.0, group["neg"]))
            for doc in docs
        )
        _write_lines(output_dir / "train_scored.jsonl", map(_json, scored))


def _write_heldout(folder: Path, pairs: list[DocstringPair]) -> None:
    """The held-out pairs as a retrieval set in BEIR's layout.

    Titles are empty: a document is read as it was in training, where it has none. A query's id
    differs from its document's because BEIR's own evaluation skips documents with the query's id.
    """
    corpus = [{"_id": pair.name, "title": "", "text": pair.document} for pair in pairs]
    queries = [{"_id": f"q:{pair.name}", "text": pair.query} for pair in pairs]
    judgements = [f"q:{pair.name}\t{pair.name}\t1" for pair in pairs]
    _write_lines(folder / "corpus.jsonl", map(_json, corpus))
    _write_lines(folder / "queries.jsonl", map(_json, queries))
    _write_lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *judgements])


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write aside and rename, so that a file that is there is always a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
    partial.replace(path)


def _print_summary(
    output_dir: Path, parts: dict[Part, list[DocstringPair]], dropped: Counter[str]
) -> None:
    counts = {part: Counter(pair.package for pair in pairs) for part, pairs in parts.items()}
    print(f"{'package':<24}" + "".join(f"{part:>9}" for part in parts))
    for package in dict.fromkeys(pair.package for pairs in parts.values() for pair in pairs):
        print(f"{package:<24}" + "".join(f"{count[package]:>9}" for count in counts.values()))
    print(f"{'total':<24}" + "".join(f"{count.total():>9}" for count in counts.values()))
    pairs = [pair for part in parts.values() for pair in part]
    query_words = median(len(pair.query.split()) for pair in pairs)
    document_words = median(len(pair.document.split()) for pair in pairs)
    print(f"median length: query {query_words:g} words, document {document_words:g} words")
    shortened = sum(pair.shortened for pair in pairs)
    print(f"documents cut at {MAX_DOCUMENT_CHARACTERS} characters: {shortened}")
    print("left out: " + "; ".join(f"{count} {reason}" for reason, count in dropped.most_common()))
    for pair in parts["train"][:: -(-len(parts["train"]) // 3)]:
        print(f"\n{pair.name}\n  query     {pair.query}")
        print(f"  document  {' '.join(pair.document.split())[:160]}")
    print(f"\nwritten to {output_dir}: {', '.join(DOCSTRING_FILES)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare_data.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    command = _command(commands, "docstrings", docstrings, DOCSTRING_FILES, DOCSTRINGS_EXAMPLES)
    command.add_argument(
        "--packages",
        nargs="+",
        metavar="NAME",
        help=f"top-level packages to read, or stdlib (default: {' '.join(PACKAGES)})",
    )
    command.add_argument(
        "--source",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of source files to read, instead of the default packages",
    )
    for flag, default, meaning in (
        ("--negatives", 7, "hard negatives per query"),
        ("--heldout_size", 1200, "about how many queries to hold out, with all of their modules"),
        ("--dev_size", 400, "about how many pairs to keep for validation, of other modules still"),
    ):
        help_text = f"{meaning} (default: %(default)s)"
        command.add_argument(flag, type=_positive, default=default, help=help_text)

    command = _command(commands, "sample", sample, SAMPLE_FILES, SAMPLE_EXAMPLES)
    command.add_argument("--language", required=True, choices=("zh", "en"))
    help_text = f"{MIN_ROWS} to {MAX_ROWS} (default: %(default)s)"
    command.add_argument("--rows", type=int, default=100, help=help_text)
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    files: Sequence[str],
    examples: str,
) -> argparse.ArgumentParser:
    """A sub-command with the flags that both share."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=(run.__doc__ or "").strip(),
        description=f"{run.__doc__} Writes {', '.join(files)}.",
        epilog=f"examples:\n{examples}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("--output_dir", required=True, metavar="DIR", help="where to write")
    command.add_argument("--seed", type=int, default=42, help="(default: %(default)s)")
    command.add_argument("--overwrite", action="store_true", help="replace files already there")
    return command


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
