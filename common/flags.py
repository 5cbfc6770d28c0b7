"""Settings of a command: one dataclass, read from flags and the recipe that ``--config`` names.

Every command's settings are a dataclass whose fields are made by ``option`` or ``required``. All
are read alike: an unknown key, a wrong type or a word outside a choice is one line that names the
key, near misses are suggested, and ``--help`` lists each key with type, default and meaning.
"""

import dataclasses
import difflib
import enum
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from common.recipe import read_recipe
from common.typed_values import LONGEST_SHOWN, shorten, type_text, typed, typed_flag

T = TypeVar("T")

# Names of other projects -> ours.
FAMILIAR = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "accumulation_steps": "gradient_accumulation_steps",
    "warmup_ratio": "warmup_steps (below 1 it is a share of all steps)",
    "warmup_proportion": "warmup_steps (below 1 it is a share of all steps)",
    "query_max_len": "query_max_length",
    "passage_max_len": "document_max_length",
    "doc_max_len": "document_max_length",
    "max_len": "max_length",
    "max_seq_length": "document_max_length (embedder) or max_length (reranker)",
    "max_label": "label_range: [lowest, highest]",
    "min_label": "label_range: [lowest, highest]",
    "scale": 'loss_args: {"temperature": 1 / scale}',
    "log_interval": "logging_steps",
    "model": "model_name_or_path",
    "model_path": "model_name_or_path",
    "train_data": "train_file",
    "train_dataset": "train_file",
    "val_data": "eval_file",
    "val_dataset": "eval_file",
    "save_path": "output_dir",
    "save_dir": "output_dir",
    "loss_type": "objective (classification is bce, regression is mse)",
    "temperature": 'loss_args: {"temperature": ...}',
    "margin": 'loss_args: {"margin": ...}',
    "sentence_pooling_method": "pooling",
    "normalize_embeddings": "normalize",
    "query_instruction_for_retrieval": "query_prompt",
    "passage_instruction_for_retrieval": "document_prompt",
    "knowledge_distillation": "objective (distillation)",
    "sub_batch_size": "gradient_cache_chunk_size",
    "mini_batch_size": "gradient_cache_chunk_size",
    "mixed_precision": "bf16: true or fp16: true",
    "label2id": "label_map",
    "negatives_cross_device": "negatives_across_processes",
    "group_size": "train_group_size",
    "train_datasets": "train_files",
    "train_split": "split",
    "column_mapping": "columns",
}
# The name that another of our commands has for the like -> that of the command at hand.
ELSEWHERE = {
    "data": "input",
    "eval_corpus": "corpus",
    "eval_file": "data",
    "eval_metrics": "metrics",
    "input": "data",
    "model_name_or_path": "model",
    "overwrite_output_dir": "overwrite",
    "revision": "model_revision",
    "train_file": "input",
}


def option(default: Any, help: str, least: int | None = None) -> Any:
    """A field with a default (a list or an object is copied) and its one-line help.

    Args:
        default: Its value where neither a flag nor the recipe gives one.
        help: What it means, for ``--help`` and the documentation.
        least: The lowest number that it may be.
    """
    about = {"help": help, "least": least}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


def required(help: str) -> Any:
    """A field without a default, and its one-line help."""
    return field(metadata={"help": help})


@dataclass(kw_only=True)
class Settings:
    """Base of all commands' settings: checks the least value of each field."""

    def __post_init__(self) -> None:
        for known in dataclasses.fields(self):
            least, value = known.metadata.get("least"), getattr(self, known.name)
            if least is None or value is None:
                continue
            for number in value if isinstance(value, list | tuple) else [value]:
                if number < least:
                    raise ValueError(f"{known.name}: must be at least {least}, got {number:g}")


def parse(kind: type[T], argv: Sequence[str] | None, usage: str | None) -> T:
    """Read a command's settings: ``--config FILE``, then flags, which win.

    Args:
        kind: The dataclass; its ``__post_init__`` refuses combinations that cannot be.
        argv: The words after the command's name; None: those of this process.
        usage: What ``--help`` says of the command; indented lines are its examples.

    Raises:
        ValueError: A key, value or combination that cannot be, named in one line.
        SystemExit: After ``--help``.
    """
    values = read_values(kind, argv, usage)
    for known in dataclasses.fields(kind):  # type: ignore[arg-type]
        if _is_required(known) and known.name not in values:
            name = known.name
            raise ValueError(f"{name}: is missing; give --{name}, or add it to the recipe")
    return kind(**values)


def read_values(kind: type[T], argv: Sequence[str] | None, usage: str | None) -> dict[str, Any]:
    """The checked values that ``parse`` makes the settings of."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--help" in argv or "-h" in argv:
        print_help(kind, usage or "")
        raise SystemExit(0)
    flags = read_flags(argv)
    files = flags.pop("config", None)
    if files is not None and len(files) != 1:
        raise ValueError("--config: takes one recipe (.json or .yaml)")
    return merge(kind, read_recipe(Path(files[0])) if files else {}, flags)


def exit_code(job: Callable[[], int | None]) -> int:
    """Do a command's job; return its exit code: 2 after a one-line error for a user mistake."""
    try:
        return job() or 0
    except (ValueError, OSError) as error:
        return complain(error)


def complain(error: Exception) -> int:
    """Print the one-line error for a user mistake; return the exit code, 2."""
    print(f"error: {error}", file=sys.stderr)
    return 2


class Key(NamedTuple):
    """What documentation tells of a field, and the heading under which it stands."""

    name: str
    type: str
    default: str
    help: str
    group: str


def keys(kind: Any) -> Iterator[Key]:
    """Yield all keys of a settings class, grouped by the class that declares them.

    Its own come first; a group's heading is the first line of its class's docstring.
    """
    hints = typing.get_type_hints(kind)
    left = {known.name: known for known in dataclasses.fields(kind) if known.init}
    for owner in kind.__mro__:
        group = (inspect.cleandoc(owner.__doc__ or "") + "\n").splitlines()[0].rstrip(".")
        for name in inspect.get_annotations(owner):
            if (known := left.pop(name, None)) is not None:
                about = " ".join(str(known.metadata.get("help", "")).split())
                yield Key(name, type_text(hints[name]), _default_text(known), about, group)


def print_help(kind: Any, usage: str) -> None:
    """Print what a command does, its keys with type, default and meaning, and examples."""
    lines = usage.strip().splitlines()
    is_example = [line.startswith("    ") for line in lines]
    about = "\n".join(line for line, example in zip(lines, is_example, strict=True) if not example)
    print(re.sub(r"\n{3,}", "\n\n", about).strip())
    print("\nKeys of the file that --config names (.json, .yaml); as flags they win over it.")
    group = None
    for key in keys(kind):
        if key.group != group:
            group = key.group
            print(f"\n{group}:")
        default = key.default if key.default == "required" else f"default {key.default}"
        print(f"  --{key.name} <{key.type}> ({default})")
        print(textwrap.fill(key.help, 100, initial_indent=" " * 8, subsequent_indent=" " * 8))
    examples = [line for line, example in zip(lines, is_example, strict=True) if example]
    if examples:
        print("\nexamples:\n" + textwrap.indent(textwrap.dedent("\n".join(examples)), "  "))


def _is_required(known: dataclasses.Field[Any]) -> bool:
    return known.init and known.default is MISSING and known.default_factory is MISSING


def _default_text(known: dataclasses.Field[Any]) -> str:
    """The default as JSON; "required" where there is none."""
    if _is_required(known):
        return "required"
    value = known.default if known.default_factory is MISSING else known.default_factory()
    if isinstance(value, enum.Enum):
        value = value.value
    return json.dumps(value, ensure_ascii=False, default=str)


def read_flags(argv: Sequence[str]) -> dict[str, list[str]]:
    """``--name value ...`` and ``--name=value`` as name -> values; a bare ``--name`` gives []."""
    flags: dict[str, list[str]] = {}
    name = None
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name in flags:
                raise ValueError(f"--{name}: is given twice; keep one (several values: after it)")
            flags[name] = [value] if equals else []
        elif name is None:
            raise ValueError(f"{word}: a flag begins with --; a recipe is given as --config {word}")
        elif re.match("-[A-Za-z]", word):
            raise ValueError(
                f"{word}: a flag begins with two dashes, -{word}; a value that begins with one is "
                f"given as --{name}={word}"
            )
        else:
            flags[name].append(word)
    return flags


def check_names(names: Sequence[str], kind: Any) -> None:
    """Refuse names that are no fields of the dataclass ``kind``, suggesting what was meant."""
    fields = {known.name for known in dataclasses.fields(kind) if known.init}
    for name in names:
        check_key(name, name, fields, hint="--help lists all keys")


def check_key(place: str, name: str, known: Collection[str], hint: str) -> None:
    """Refuse a ``name`` that is not ``known``, suggesting what was meant, or else with a hint.

    Args:
        place: What the message calls the name.
    """
    if name in known:
        return
    close = difflib.get_close_matches(name[:LONGEST_SHOWN], known, n=1)
    same = [names[name] for names in (FAMILIAR, ELSEWHERE) if name in names]
    meant = next((key for key in same if re.split(r"\W", key)[0] in known), "".join(close))
    raise ValueError(
        f"{shorten(place)}: unknown key; " + (f"did you mean {meant}?" if meant else hint)
    )


def merge(
    kind: Any, recipe: Mapping[str, Any], flags: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Checked values for fields of the dataclass ``kind``, from a recipe and flags, which win."""
    check_names([*recipe, *flags], kind)
    hints = typing.get_type_hints(kind)
    values = {name: typed(name, value, hints[name]) for name, value in recipe.items()}
    return values | {name: typed_flag(name, words, hints[name]) for name, words in flags.items()}
