"""The README.md of a saved model: what it is, how it was made, how to load it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from trainers.arguments import TandemArguments

USE = {
    "embedder": """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
queries = model.encode_query(["how do I sort a list?"])
documents = model.encode_document(["list.sort() sorts a list in place."])
print(model.similarity(queries, documents))
""",
    "reranker": """\
from sentence_transformers import CrossEncoder

model = CrossEncoder("{name}")
print(model.predict([("how do I sort a list?", "list.sort() sorts a list in place.")]))
""",
}


def write_model_card(folder: Path, args: "TandemArguments") -> None:
    """Write ``README.md`` with metadata that the Hub understands.

    Args:
        folder: The model's folder.
        args: The run's arguments.
    """
    name = args.hub_model_id or Path(args.output_dir).name
    kind = args.row_of_table.model
    lines = [
        "---",
        yaml.safe_dump(_metadata(args), allow_unicode=True, sort_keys=False).strip(),
        "---",
        "",
        f"# {name}",
        "",
        f"A{'n' if kind == 'embedder' else ''} {kind} fine-tuned from `{args.model_name_or_path}` "
        f"with Tandem, objective `{args.objective}`.",
        "",
        "## Use",
        "",
        "```python",
        USE[kind].format(name=name).strip(),
        "```",
        "",
        "## Training",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| `{setting}` | `{value}` |" for setting, value in _settings(args).items()),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _metadata(args: "TandemArguments") -> dict[str, Any]:
    kind = args.row_of_table.model
    metadata: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity" if kind == "embedder" else "text-ranking",
        "tags": ["tandem", "sentence-transformers", kind, args.objective],
    }
    # Only a name on the Hub is a base model there; a folder or a package is not.
    if args.model_name_or_path.count("/") == 1 and not Path(args.model_name_or_path).exists():
        metadata["base_model"] = args.model_name_or_path
    return metadata


def _settings(args: "TandemArguments") -> dict[str, Any]:
    names = [
        "objective",
        "loss_args",
        "seed",
        "train_file",
        "max_steps" if args.max_steps > 0 else "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "train_group_size",
        "query_max_length",
        "document_max_length",
        "max_length",
        "bf16",
    ]
    return {name: getattr(args, name) for name in names if getattr(args, name) not in (None, {})}
