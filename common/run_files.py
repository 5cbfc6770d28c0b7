"""Names of the files in a run's folder, which of them a run may delete, and which stay private."""

import tempfile
from pathlib import Path

RUN_FILE = "train_config.json"  # the resolved arguments; a recipe itself
STATE_FILE = "trainer_state.json"  # how far the run is, and what it logged
LOG_FILE = "finetune.log"
REJECTED_FILES = "rejected_*.jsonl"  # bad rows, written anew whenever files are read
BEST_FILE = "best_checkpoint.json"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
RANKING_FILE = "run.trec"
SUITE_FILE = "suite.json"  # the mean over the tasks of a suite
FUSION_FILE = "fusion.json"  # of a model: what its scores are fused with
CARD_FILE = "README.md"
# Nothing opens a model folder without it: written last, removed first.
CONFIG_FILE = "config.json"
# In a checkpoint: size and SHA-256 of every other file.
MANIFEST_FILE = "manifest.json"
LOCK_FILE = ".lock"  # held by the run that writes into the folder
# The final model is written here and then moved into the run's folder.
MODEL_PART = ".model.part"


def make_weights_readable(folder: Path) -> None:
    """Let whoever may read a model's configuration read its weights.

    safetensors writes files that only their owner may read, and a server is often another user.
    """
    mode = (folder / CONFIG_FILE).stat().st_mode
    for place in (".", "[0-9]*_*", "adapter"):
        for file in folder.glob(f"{place}/*.safetensors"):
            file.chmod(mode)


# Files that describe the run rather than the model.
_PRIVATE = (
    "checkpoint-*", ".checkpoint-*.part", ".checkpoint-*.old", MODEL_PART, "runs", STATE_FILE,
    BEST_FILE, EVALUATION_FILE, REPORT_FILE, FIGURES_FOLDER, RANKING_FILE,
)  # fmt: skip
# As transformers names them: in one file, or in several with an index.
WEIGHT_FILES = (
    "model.safetensors", "model-[0-9]*-of-[0-9]*.safetensors", "model.safetensors.index.json",
)  # fmt: skip
_MODEL = (
    CARD_FILE, CONFIG_FILE, "generation_config.json", "modules.json", *WEIGHT_FILES,
    "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "*.model", "chat_template.jinja", "sentence_bert_config.json",
    "config_sentence_transformers.json", "[0-9]_*", "adapter", FUSION_FILE,
)  # fmt: skip

# Those that a model may write over: where no run wrote them, they are somebody's.
MODEL_FILES = [name for name in _MODEL if not set("[*") & set(name)]

# What --overwrite deletes: nothing that is not named here.
DELETABLE = (*_PRIVATE, *_MODEL)
# Patterns that are not pushed to the Hub: logs and bad rows may contain private data.
NOT_UPLOADED = [".*", "*.log", "rejected_*", *_PRIVATE, *(f"{name}/*" for name in _PRIVATE)]


def make_output_dir(folder: Path) -> None:
    """Create the folder of a setting ``output_dir``, before the work that is to be kept there.

    Raises:
        ValueError: It cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir: {folder} is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"output_dir: {folder} cannot be written to ({error.strerror}); give another folder"
        ) from None
