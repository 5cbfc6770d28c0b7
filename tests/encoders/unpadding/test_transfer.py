"""The host never waits for the device: shown on the meta device, which has no values to read."""

from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from encoders.unpadding import known_mask, unpad_inputs
from encoders.unpadding.transfer import mask_on_host
from unpadded import CONFIGS, batch, make

LENGTHS = [9, 1, 30, 4, 4]


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification])
@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_is_read_from_the_device(name: str, auto: Any) -> None:
    model, inputs = make(name, auto).train(), batch(LENGTHS)
    assert unpad_inputs(model)
    model.to("meta")
    on_device = {key: values.to("meta") for key, values in inputs.items()}
    with known_mask(inputs["attention_mask"].numpy()):
        model(**on_device)[0].sum().backward()
    gradients = [weight.grad for weight in model.base_model.parameters() if weight.requires_grad]
    assert any(gradient is not None and gradient.is_meta for gradient in gradients)
    # Where nobody hands over the mask, it is.
    with pytest.raises((RuntimeError, NotImplementedError)):
        model(**on_device)


@pytest.mark.parametrize("left", [False, True])
def test_a_mask_on_the_host_changes_nothing(left: bool) -> None:
    model, inputs = make("bert", AutoModel), batch(LENGTHS, left)
    assert unpad_inputs(model)
    read = model(**inputs).last_hidden_state
    with known_mask(inputs["attention_mask"].numpy()):
        assert torch.equal(model(**inputs).last_hidden_state, read)
    # It is of one batch: another is read again.
    other = batch([3, 2], left)
    assert torch.equal(mask_on_host(other["input_ids"], None), torch.ones(2, 3, dtype=torch.long))
    assert torch.equal(
        mask_on_host(other["input_ids"], other["attention_mask"]), other["attention_mask"]
    )
