"""Merge models of one architecture: average their weights, or interpolate them on a sphere.

Averaging a fine-tuned model with its base keeps most of what it gained and most of what it would
have forgotten (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022; Xiao et al.,
"LM-Cocktail", 2023).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

Method = Literal["linear", "slerp"]
State = Mapping[str, Tensor]
# Of one model: for all layers, or from the embeddings to the head, evenly spaced over the depth.
Share = float | Sequence[float]

# Numbers in an embedder's ``head`` are those of its modules.
_LAYER = re.compile(r"^(?!head\.).*?\.(\d+)\.")
_PARALLEL = 1e-6  # sine of the angle below which two tensors have one direction


def merge_weights(
    states: Sequence[State],
    shares: Sequence[Share],
    method: Method = "linear",
    kept: Collection[str] = (),
) -> dict[str, Tensor]:
    """Return ``sum_m share_m * weights_m`` for every tensor, computed in float64.

    ``slerp`` takes the great circle between the directions of two models' tensors instead of the
    straight line: ``sin((1-t)w)/sin(w) * A + sin(tw)/sin(w) * B``, with ``t`` the share of the
    second and ``w`` the angle between ``A`` and ``B`` (Shoemake, 1985).

    Args:
        states: The models' state dicts.
        shares: One for each model; they add up to 1, at each depth.
        method: "slerp" takes two models.
        kept: Names of tensors that are the last model's, such as a head the others do not have.

    Raises:
        ValueError: Tensors or shares do not fit together.
    """
    last = states[-1]
    check_alike(states, kept)
    profiles = check_shares(shares, len(states))
    if method == "slerp" and len(states) != 2:
        raise ValueError(f"method: slerp merges two models, got {len(states)}; take linear")
    merged = {}
    for name, depth in depths(list(last)).items():
        if name in kept or not last[name].is_floating_point():
            merged[name] = last[name].clone()
            continue
        at = [_interpolate(profile, depth) for profile in profiles]
        wide = [state[name].to(torch.float64) for state in states]
        mixed = _slerp(wide[0], wide[1], at[1]) if method == "slerp" else _linear(wide, at)
        merged[name] = mixed.to(last[name].dtype)
    return merged


def merge_with_base(
    tuned: State, base: State, share: float, kept: Collection[str] = ()
) -> dict[str, Tensor]:
    """``(1 - share) * base + share * tuned`` for a model in training, sharded or with adapters.

    With LoRA ``B`` is scaled, which comes to the same: ``W + share * alpha / r * B @ A``; what the
    adapters stand beside is frozen, and stays.

    Args:
        tuned: The state dict of the fine-tuned model, as it is in training.
        base: That of the model it began with, without adapters, sharded alike.
        share: Of the fine-tuned model.
        kept: Names of tensors that the base does not have, such as a new head.
    """
    merged = {}
    for name, weight in tuned.items():
        if ".lora_B." in name:
            merged[name] = share * weight
        elif name in kept or name not in base or not weight.is_floating_point():
            merged[name] = weight
        else:
            mixed = (1 - share) * base[name] + share * weight
            # What is frozen stays to the last bit.
            merged[name] = torch.where(base[name] == weight, weight, mixed)
    return merged


def check_alike(states: Sequence[State], kept: Collection[str] = ()) -> None:
    """Refuse models whose tensors do not correspond.

    Raises:
        ValueError: It names the first tensor that differs.
    """
    first = states[0]
    for number, other in enumerate(states[1:], start=2):
        names = [name for name in {**first, **other} if name not in kept]
        for name in names:
            shapes = [
                tuple(state[name].shape) if name in state else None for state in (first, other)
            ]
            if shapes[0] != shapes[1]:
                one, two = ("no such weights" if s is None else str(list(s)) for s in shapes)
                raise ValueError(
                    f"models: {name} differs in shape: {one} in the first model, {two} in model "
                    f"{number}; only models fine-tuned from one base can be merged"
                )
            if not first[name].is_floating_point() and not torch.equal(first[name], other[name]):
                raise ValueError(f"models: {name} holds integers that differ in model {number}")


def check_shares(shares: Sequence[Share], models: int) -> list[list[float]]:
    """The shares of each model as a profile over the depth, of one value or more.

    Raises:
        ValueError: There is not one for each model, or they do not add up to 1.
    """
    if len(shares) != models:
        raise ValueError(f"weights: {len(shares)} are given for {models} models; give one for each")
    profiles = [[float(s)] if isinstance(s, int | float) else list(map(float, s)) for s in shares]
    points = {len(profile) for profile in profiles} - {1}
    if len(points) > 1 or 0 in points:
        raise ValueError("weights: lists over the layers must be of one length")
    for at in range(max(points, default=1)):
        total = sum(profile[at if len(profile) > 1 else 0] for profile in profiles)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"weights: must add up to 1 in each layer, got {total:g}")
    return profiles


def depths(names: Sequence[str]) -> dict[str, float]:
    """Where each tensor stands, from 0 (embeddings) over the layers to 1 (what follows them).

    Args:
        names: In the order of the state dict, which is that of the modules.
    """
    layers = {name: int(found[1]) for name in names if (found := _LAYER.search(name))}
    count = max(layers.values(), default=-1) + 1
    placed, seen = {}, False
    for name in names:
        seen = seen or name in layers
        placed[name] = (layers[name] + 1) / (count + 1) if name in layers else float(seen)
    return placed


def _interpolate(profile: Sequence[float], depth: float) -> float:
    """The value of evenly spaced points at a depth from 0 to 1."""
    at = depth * (len(profile) - 1)
    below = min(int(at), max(len(profile) - 2, 0))
    above = min(below + 1, len(profile) - 1)
    return profile[below] + (at - below) * (profile[above] - profile[below])


def _linear(weights: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    mixed = torch.zeros_like(weights[0])
    for weight, share in zip(weights, shares, strict=True):
        mixed += share * weight
    return mixed


def _slerp(one: Tensor, other: Tensor, t: float) -> Tensor:
    lengths = one.norm() * other.norm()
    cosine = ((one * other).sum() / lengths).clamp(-1, 1) if lengths else torch.ones(())
    angle = torch.arccos(cosine)
    if angle.sin() < _PARALLEL:
        return (1 - t) * one + t * other
    return (((1 - t) * angle).sin() * one + (t * angle).sin() * other) / angle.sin()
