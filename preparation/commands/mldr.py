"""Convert MLDR files to training groups: query, pos, neg.

Each file of rows (query_id, query, positive_passages, negative_passages) becomes a .jsonl file of
the same name in OUTPUT_DIR. Documents go there whole; with --max_characters N their first N
characters; with --passages N the passages that match the query best.

Passages: whole lines are packed up to N characters; where those fill less than half, a passage
ends after a sentence (Chinese or English marks), else at a space, else at N. Of each document of a
row, the passages that match the query best by BM25 (among the passages of the row) are taken.
Those of a positive document are its positives; its other passages are neither positive nor
negative. Those of a negative document are negatives.

With --beir, OUTPUT_DIR/beir holds the documents of the rows and of corpus files (whole, cut, or
all their passages); what is positive in a group is judged 1, what is negative 0.

    # as they are, or cut
    python scripts/prepare_data.py mldr --input mldr-v1.0-zh --output_dir data/mldr
    python scripts/prepare_data.py mldr --input mldr-v1.0-en --output_dir data/mldr \\
        --max_characters 4000
    # passages of up to 1,000 characters, the two best of each document, and a BEIR folder
    python scripts/prepare_data.py mldr --input train.jsonl dev.jsonl corpus.jsonl \\
        --output_dir data/mldr --passages 1000 --best 2 --beir
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.flags import option, required
from loaders.formats.records import data_suffix
from loaders.formats.row_file import RowFile
from loaders.formats.sources import Source, all_files
from preparation.commands.settings import InputSettings, OutputSettings, progress
from preparation.mldr import MldrFolder, Shortening, is_corpus, read_corpus, read_rows


@dataclass(kw_only=True)
class MldrSettings(InputSettings, OutputSettings):
    """MLDR, long documents in many languages, to training groups and an evaluation set."""

    input: list[str] = required("Folders or files of MLDR: rows, and perhaps the corpus.")
    max_characters: int | None = option(None, "Cut documents here.", least=1)
    passages: int | None = option(
        None, "Split documents into passages of at most this many characters.", least=1
    )
    best: int | None = option(
        None, "With passages: how many are taken of each document; null: 1.", least=1
    )
    beir: bool = option(False, "Write OUTPUT_DIR/beir too: corpus.jsonl, queries.jsonl and qrels/.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_characters and self.passages:
            raise ValueError("max_characters: cannot be combined with passages; give one of them")
        if self.best and not self.passages:
            raise ValueError("best: chooses among passages; give --passages too, or leave it out")


def run(args: MldrSettings) -> None:
    """Write a file of groups for each file of rows, and the BEIR folder."""
    rows, corpora = _sort_out(args.input)
    beir = ["beir/corpus.jsonl", "beir/queries.jsonl", *(f"beir/qrels/{each}.tsv" for each in rows)]
    args.check_output([f"{each}.jsonl" for each in rows] + (beir if args.beir else []))
    shortening = Shortening(args.max_characters, args.passages, args.best or 1)
    with ExitStack() as stack:
        folder = None
        if args.beir:
            written = MldrFolder(args.output_dir / "beir", rows, shortening)
            folder = stack.enter_context(written)
            for source in corpora:
                for document in progress(read_corpus(source), source.name, "document"):
                    folder.add_whole(document)
        for split, source in rows.items():
            path = args.output_dir / f"{split}.jsonl"
            file = stack.enter_context(RowFile(path, ["query", "pos", "neg"]))
            for row in progress(read_rows(source), source.name):
                shortened = shortening.row(row)
                positives = [document.text for document in shortened.positives]
                negatives = [document.text for document in shortened.negatives]
                file.write({"query": row.query, "pos": positives, "neg": negatives})
                if folder:
                    folder.add_row(split, row, shortened)
            print(f"{path}: {file.rows} groups")
    _tell(shortening, corpora, folder)


def _sort_out(names: list[str]) -> tuple[dict[str, Source], list[Source]]:
    """Sort the inputs into files of rows, by name without suffix, and corpus files."""
    rows: dict[str, Source] = {}
    corpora: list[Source] = []
    for source in all_files(names):
        if is_corpus(source):
            corpora.append(source)
            continue
        name = Path(source.name).name
        stem = name.removesuffix(".gz").removesuffix(data_suffix(Path(name)))
        if stem in rows:
            raise ValueError(
                f"{rows[stem].name} and {source.name} would both become {stem}.jsonl; convert "
                "them into different folders"
            )
        rows[stem] = source
    if not rows:
        raise ValueError(f"{' '.join(names)}: there is no file of rows with a query in it")
    return rows, corpora


def _tell(shortening: Shortening, corpora: list[Source], folder: MldrFolder | None) -> None:
    """Report what was cut, and what was written beside the groups."""
    if shortening.cut:
        print(f"{shortening.cut} documents were cut at {shortening.max_characters} characters")
    if shortening.unmatched:
        print(
            f"{shortening.unmatched} documents have no passage with a word of their query: their "
            "first passages were taken"
        )
    if folder is None:
        for source in corpora:
            print(f"{source.name} is a corpus, which groups do not need; --beir makes use of it")
        return
    print(folder.summary())
    if corpora and folder.added:
        print(f"{folder.added} documents of rows were not in the corpus files and were added")
