"""Compute on real tokens only: padding is taken out inside the model, exactly.

Outside, a batch stays ``input_ids`` and ``attention_mask`` [B, L]. Inside the backbone all T real
tokens run as one row [1, T] with the positions they have in their own texts; attention stays
within each text; the result is laid back to [B, L, H], zero where there was padding. Everything
but attention works token by token, so nothing else has to know.

Texts are ordered by length on the way in, so that those of one length attend in one call.
"""

import logging
from collections import Counter
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from encoders.attention import ATTENTION

logger = logging.getLogger(__name__)

# Shapes: B texts, L tokens of the longest, T real tokens of all, H width.


def unpad_inputs(model: PreTrainedModel) -> bool:
    """Take padding out of ``model``'s backbone from now on, if it can be done exactly.

    Whether it can is tried: a small batch must give the same states with and without padding.

    Returns:
        Whether the model runs unpadded; if not, it is as it was.
    """
    backbone: Any = model.base_model
    before = model.config._attn_implementation
    if backbone._can_set_attn_implementation():
        padded = _probe(backbone)
        model.set_attn_implementation(ATTENTION)
        unpadding = Unpadding(backbone)
        try:
            if torch.allclose(padded, _probe(backbone), atol=1e-4, rtol=1e-3):
                return True
        except (TypeError, ValueError, RuntimeError, IndexError, AssertionError) as error:
            logger.debug("unpadding %s: %s", model.config.model_type, error)
        unpadding.remove()
        model.set_attn_implementation(before)
    logger.warning(
        "%s cannot run without padding: it runs padded, which is slower", model.config.model_type
    )
    return False


class Unpadding:
    """The hooks on one backbone, and what they hand to each other during a forward.

    Args:
        backbone: A model whose attention goes through transformers' ``AttentionInterface``.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        self.parameters = signature(backbone.forward).parameters
        self.open = any(p.kind is Parameter.VAR_KEYWORD for p in self.parameters.values())
        # RoBERTa and its kin number positions from the padding token's id + 1.
        padding_index = getattr(getattr(backbone, "embeddings", None), "padding_idx", None)
        self.first_position = 0 if padding_index is None else padding_index + 1
        self.shape = (0, 0)
        self.index = torch.empty(0, dtype=torch.long)
        self.hooks = [
            backbone.register_forward_pre_hook(self._take_out, with_kwargs=True),
            backbone.register_forward_hook(self._lay_back),
        ]
        pooler = getattr(backbone, "pooler", None)
        if isinstance(pooler, nn.Module):
            # It picks each text's first token.
            self.hooks.append(
                pooler.register_forward_pre_hook(lambda _, args: (self._padded(args[0]), *args[1:]))
            )

    def remove(self) -> None:
        """Leave the backbone as it was."""
        for hook in self.hooks:
            hook.remove()

    def _take_out(
        self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        inputs = dict(zip(self.parameters, args, strict=False)) | kwargs
        ids = inputs["input_ids"]  # [B, L]
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        lengths = mask.sum(dim=1)
        order = lengths.argsort(stable=True)
        rows, columns = mask[order].nonzero(as_tuple=True)
        self.shape = (ids.shape[0], ids.shape[1])
        self.index = order[rows] * ids.shape[1] + columns  # [T]: where each token stood in [B * L]
        for name in ("input_ids", "token_type_ids"):
            if inputs.get(name) is not None:
                inputs[name] = inputs[name].flatten()[self.index][None]  # [1, T]
        positions = mask.cumsum(dim=1) - 1 + self.first_position
        inputs["position_ids"] = positions.flatten()[self.index][None]
        inputs["attention_mask"] = None
        inputs["text_groups"] = sorted(Counter(lengths.tolist()).items())
        if "use_cache" in self.parameters or self.open:
            inputs["use_cache"] = False
        return (), inputs

    def _lay_back(self, backbone: nn.Module, args: Any, output: Any) -> Any:
        for name in ("last_hidden_state", "hidden_states"):
            value = getattr(output, name, None)
            if isinstance(value, tuple):
                output[name] = tuple(self._padded(states) for states in value)
            elif value is not None:
                output[name] = self._padded(value)
        return output

    def _padded(self, states: Tensor) -> Tensor:
        """[1, T, H] to [B, L, H]."""
        rows, columns = self.shape
        laid = states.new_zeros(rows * columns, states.shape[-1])
        return laid.index_copy(0, self.index, states[0]).view(rows, columns, -1)


@torch.no_grad()
def _probe(backbone: PreTrainedModel) -> Tensor:
    """States of two texts of different length, 0 at padding."""
    training = backbone.training
    backbone.eval()
    device = next(backbone.parameters()).device
    vocabulary = backbone.config.vocab_size
    ids = torch.arange(10, device=device).view(2, 5) * 7 % (vocabulary - 5) + 5
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], device=device)
    padding = getattr(backbone.config, "pad_token_id", None) or 0
    ids = ids.masked_fill(mask == 0, padding)
    states = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    backbone.train(training)
    return states * mask[..., None]
