"""LoRA: train low-rank adapters on a frozen backbone, and merge them when the model is saved.

The arithmetic is peft's. A saved folder holds the merged model, which every library opens, and in
``adapter/`` the adapter in peft's layout, from which a resumed run continues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encoders.opening.bf16_weights import store_in_bf16

FOLDER = "adapter"
WEIGHTS = "adapter_model.safetensors"
NAME = "default"  # peft's name for an unnamed adapter
INSIDE = "base_model.model."  # peft's prefix of weight names


@dataclass(frozen=True)
class Lora:
    """An adapter of a backbone.

    Args:
        config: peft's ``LoraConfig``.
        heads: Modules that are trained in full: the scoring head, a reranker's pooler.
    """

    config: Any
    heads: list[str]

    def merged(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the plain backbone, ``W + alpha / r * B @ A``, from those with both.

        They are on the CPU: a GPU may have no room for a second model.
        """
        plain = {}
        for name, weight in weights.items():
            if f".lora_A.{NAME}" in name or f".lora_B.{NAME}" in name:
                continue
            if weight.dtype == torch.bfloat16:  # see encoders.opening.bf16_weights
                weight = weight.float()
            before, layer, after = name.rpartition(".base_layer.")
            if layer and after == "weight":
                one, other = (weights[f"{before}.lora_{side}.{NAME}.weight"] for side in "AB")
                weight = weight + self.config.lora_alpha / self.config.r * (other @ one)
            plain[f"{before}.{after}" if layer else name] = weight.cpu()
        return plain

    def save(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write what ``peft.PeftModel.from_pretrained`` loads onto the base model."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        own = {
            INSIDE + name.replace(f".{NAME}", ""): weight.detach().cpu().contiguous()
            for name, weight in weights.items()
            if self.trains(name)
        }
        save_file(own, folder / WEIGHTS, metadata={"format": "pt"})

    def load(self, folder: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of the backbone's ``weights`` that ``save`` wrote.

        Raises:
            ValueError: The folder has no such adapter, or one of another size.
        """
        file = folder / WEIGHTS
        if not file.is_file():
            raise ValueError(
                f"{folder} has no {WEIGHTS}: the run that wrote it trained without lora_r; leave "
                "lora_r out, or resume from a checkpoint of a run with it"
            )
        saved, found = load_file(file), {}
        for name in filter(self.trains, weights):
            weight = saved.get(INSIDE + name.replace(f".{NAME}", ""))
            if weight is None or weight.shape != weights[name].shape:
                raise ValueError(
                    f"{file}: {name} is missing or of another size; resume with the run's own "
                    "lora_r and lora_target_modules"
                )
            found[name] = weight
        return found

    def trains(self, name: str) -> bool:
        """Whether a weight of the backbone is trained."""
        return ".lora_" in name or any(f".{head}." in f".{name}" for head in self.heads)


def add_lora(
    backbone: Any,
    base: str,
    *,
    r: int,
    alpha: int,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
    classifier: bool = False,
    frozen_in_bf16: bool = False,
) -> Lora:
    """Freeze a backbone and give its linear layers adapters. (Hu et al., "LoRA", 2021.)

    Args:
        backbone: The transformers model; changed in place.
        base: Its name, recorded in the adapter.
        r: Rank of the matrices A [r, in] and B [out, r].
        alpha: The product B A is scaled by alpha / r.
        dropout: On the adapters' inputs.
        target_modules: Names, or ends of names, of linear layers; None: all of the encoder's.
        classifier: Whether the backbone has a scoring head, which is trained in full.
        frozen_in_bf16: Store what is frozen in bf16 where that loses nothing.

    Raises:
        ValueError: peft is not installed, or no layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ValueError(
            "lora_r: needs peft; pip install -c constraints.txt -e '.[peft]'"
        ) from None
    heads = find_heads(backbone) if classifier else []
    linear = _linear_layers(backbone, heads, target_modules)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=linear,
        task_type="SEQ_CLS" if classifier else "FEATURE_EXTRACTION",
        base_model_name_or_path=base,
    )
    inject_adapter_in_model(config, backbone, adapter_name=NAME)
    # Set only now: peft would have copied the heads, which are trained in place here.
    config.modules_to_save = heads or None
    lora = Lora(config, heads)
    for name, weight in backbone.named_parameters():
        weight.requires_grad_(lora.trains(name))
    if frozen_in_bf16:
        store_in_bf16(backbone)
    return lora


def _linear_layers(
    backbone: Any, heads: list[str], target_modules: Sequence[str] | None
) -> list[str]:
    """Names of the linear layers that get adapters."""
    linear = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name
        and not any(f".{head}." in f".{name}." for head in heads)
    ]  # fmt: skip
    if not linear:
        raise ValueError(
            f"lora_r: {backbone.config.model_type} has no layer of the class nn.Linear that could "
            "get adapters; leave lora_r out"
        )
    if target_modules is None:
        return linear
    for end in target_modules:
        if not any(f".{name}".endswith(f".{end}") for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ValueError(
                f"lora_target_modules: {end!r} is not a linear layer of this model; its layers are "
                f"{', '.join(known)}"
            )
    ends = tuple(f".{end}" for end in target_modules)
    return [name for name in linear if f".{name}".endswith(ends)]


def find_heads(backbone: Any) -> list[str]:
    """Modules of a sequence classifier outside the encoder: its head, and a pooler before it."""
    heads = [
        name
        for name, module in backbone.named_children()
        if name != backbone.base_model_prefix and any(True for _ in module.parameters())
    ]
    return [*heads, *(["pooler"] if getattr(backbone.base_model, "pooler", None) else [])]
