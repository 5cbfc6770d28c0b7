"""Every key of a training recipe, with its type, default and help."""

from dataclasses import dataclass
from typing import Any, Literal

from transformers import TrainingArguments

from collators.sampling import GROUP_SIZE
from common.flags import option
from loaders import ReadOptions

# Keys that a source of train_files may have its own value of.
SOURCE_SETTINGS = (
    "objective",
    "loss_args",
    "query_prompt",
    "document_prompt",
    "train_group_size",
    "label_map",
    "label_range",
    "relevance_from_scores",
    "positive_threshold",
    "columns",
    "split",
)


@dataclass
class ModelArguments:
    """The model to train."""

    model_name_or_path: str = option(
        "", "A folder, a name on the Hub, or package://<module>/<path>. Required."
    )
    model_revision: str | None = option(None, "Branch, tag or commit on the Hub.")
    trust_remote_code: bool = option(False, "Let Python code of the model's folder run.")
    pooling: (
        Literal["cls", "mean", "last", "max", "weightedmean", "mean_sqrt_len_tokens"] | None
    ) = option(None, "Embedder: null keeps the folder's; mean for a plain backbone.")
    projection_dim: int | None = option(
        None, "Embedder, multi-vector encoder: add a linear projection to this width."
    )
    normalize: bool | None = option(
        None, "Embedder: unit length; null keeps the folder's, true for a plain backbone."
    )
    append_eos_token: bool | None = option(
        None, "Embedder: end each text with the end token; for decoders whose tokenizer does not."
    )
    lora_r: int | None = option(
        None, "Train LoRA adapters of this rank beside a frozen backbone; null: the whole model."
    )
    lora_alpha: int | None = option(None, "LoRA: strength alpha / r; null: twice lora_r.")
    lora_dropout: float = option(0.0, "LoRA: dropout of the adapters' inputs.")
    lora_target_modules: list[str] | None = option(
        None, "LoRA: ends of the names of linear layers; null: all of the encoder's."
    )
    attention_dropout: float | None = option(
        None, "Dropout of attention weights; null: the model's own."
    )
    unpad_inputs: bool = option(
        True, "Compute on real tokens only, where the backbone can; exact, and much faster."
    )


@dataclass
class DataArguments:
    """The rows to train and evaluate on, and how they are read and truncated."""

    train_file: list[str] | str = option(
        [],
        "Paths, folders or Hub datasets (organisation/name[:config][@split]). This or train_files.",
    )
    train_files: list[dict[str, Any] | str] | None = option(
        None,
        "Several sources, each a path or {path, name, weight} and its own "
        f"{', '.join(SOURCE_SETTINGS)}.",
    )
    batches_from: Literal["one_source", "all_sources"] = option(
        "one_source", "train_files: whether each step has rows of one source, or of all mixed."
    )
    split: str | None = option(
        None, "The split of folders and Hub datasets to train on, where their names say none."
    )
    columns: dict[str, str] | None = option(
        None, 'Columns to fields: {"question": "query", "answers.text": "pos"}.'
    )
    streaming: bool = option(
        False, "Leave the rows of training in their JSON Lines files, without a copy in the cache."
    )
    eval_file: list[str] | str | None = option(
        None, "What to evaluate on, given as train_file is: loss and metrics."
    )
    eval_split: str | None = option(
        None, "The split of eval_file; of a BEIR folder, the file in its qrels/."
    )
    eval_columns: dict[str, str] | None = option(
        None, "The columns of eval_file; null: as columns; {}: none."
    )
    eval_corpus: str | None = option(
        None, "Embedder: more documents to search in evaluation (corpus.jsonl or its folder)."
    )
    eval_metrics: list[str] | None = option(
        None, "Metrics of eval_file; null: what suits it; []: the loss only."
    )
    allow_weak_teacher: bool = option(
        False, "Train even if the teacher's scores order eval_file no better than the model does."
    )
    on_worse: Literal["warn", "error", "keep_base"] = option(
        "warn",
        "If the model ends significantly worse than its base on eval_file: warn; also exit with "
        "1; or save the base instead.",
    )
    merge_with_base: Literal["auto"] | float | None = option(
        None,
        "Save (1 - a) of the base's and a of the fine-tuned weights: a number, or auto: the a that "
        "is best on eval_file.",
    )
    guard_file: list[str] | str | None = option(
        None,
        "merge_with_base auto: more data, as eval_file, on which a must not be worse than 0.",
    )
    query_max_length: int | None = option(
        None, "Embedder, multi-vector encoder: tokens; null: the model's limit."
    )
    document_max_length: int | None = option(
        None, "Embedder, multi-vector encoder: tokens; null: the model's limit."
    )
    max_length: int | None = option(None, "Reranker: tokens of a pair; null: the model's limit.")
    query_prompt: str | None = option(
        None, "Put before each query (a row's own prompt replaces it); null: as the model says."
    )
    document_prompt: str | None = option(None, "Put before each document; null: as the model says.")
    train_group_size: int = option(
        GROUP_SIZE,
        "Candidates of a query in one step: one positive, the rest negatives drawn per epoch.",
    )
    in_batch_negatives: int = option(
        0,
        "Reranker: this many candidates of other queries in the batch are negatives of each.",
    )
    label_map: dict[str, float] | None = option(
        None, 'Labels to relevances; {"3":1,"2":0.75,"1":0.5,"0":0.25} for headerless TSV.'
    )
    label_range: list[float] | None = option(
        None, "[lowest, highest] of scores on another scale; mapped to 0..1."
    )
    relevance_from_scores: bool = option(
        False, "Use a group's pos_scores and neg_scores as its relevances, instead of 1 and 0."
    )
    positive_threshold: float = option(
        ReadOptions.positive_threshold,
        "Documents of at least this relevance become positives where scored pairs become groups.",
    )
    on_bad_rows: Literal["error", "skip"] = option(
        "error", "Stop at bad rows, or write them to rejected_rows.jsonl and go on."
    )


@dataclass
class RecipeFields(ModelArguments, DataArguments, TrainingArguments):
    """The objective, and how it is trained."""

    objective: str = option("", "A row of the table in trainers/objectives.py. Required.")
    loss_args: dict[str, Any] = option({}, 'Arguments of the loss: {"temperature": 0.02}.')
    head_learning_rate: float | None = option(
        None,
        "Learning rate of weights that the base lacks, such as a new scoring head; null: "
        "learning_rate.",
    )
    guide_model: str | None = option(
        None,
        "contrastive: an embedder whose similarities the margins in loss_args compare to find "
        "false negatives; null: the model's own.",
    )
    matryoshka_dims: list[int] | None = option(
        None, "Embedder: prefix lengths that should be usable as embeddings; the loss is summed."
    )
    matryoshka_weights: list[float] | None = option(
        None, "The weight of each of matryoshka_dims in the sum; null: 1 each."
    )
    gradient_cache_chunk_size: int | None = option(
        None, "contrastive: texts embedded at once, for batches that do not fit; same gradients."
    )
    negatives_across_processes: bool = option(
        True, "contrastive: the documents of all processes are negatives, with their gradients."
    )
    on_bad_loss: Literal["error", "skip"] = option(
        "error", "Stop where a loss or gradient is NaN or infinite, or skip and count such steps."
    )
    overwrite: bool = option(False, "Delete the run that output_dir holds, and train.")
    early_stopping_patience: int | None = option(
        None, "Stop after this many evaluations without a new best."
    )

    # Other defaults than TrainingArguments has:
    output_dir: str = option("", "Where the run and its model go. Required.")
    resume_from_checkpoint: str | bool | None = option(  # type: ignore[assignment]
        None, "true: the last checkpoint in output_dir; or the path of one."
    )
    dataloader_num_workers: int | None = option(  # type: ignore[assignment]
        None, "Worker processes that collate batches. null: none on a CPU, at most 4 on a GPU."
    )
    warmup_steps: float = option(0.1, "Linear warm-up; below 1: a share of all steps.")
    logging_steps: float = option(10, "Steps between two log lines; below 1: a share of all.")
    remove_unused_columns: bool = option(False, "Fixed: the collators read the text columns.")
    logging_nan_inf_filter: bool = option(False, "Fixed: on_bad_loss decides about NaN.")
    prediction_loss_only: bool = option(True, "Fixed: metrics do not come from logits.")
    ddp_find_unused_parameters: bool | None = option(False, "Every trained weight is used.")
    hub_strategy: str = option("end", "Fixed: push the whole folder when training has ended.")
