"""A linear layer behind the pooling: an embedding of another width."""

import json
from pathlib import Path
from typing import Self

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# Their name -> the module; a projection of our own making is linear.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
}


class Projection(nn.Module):
    """``activation(linear(x))``: sentence-transformers' Dense module.

    Args:
        in_features: Width of the backbone.
        out_features: Width H of the embedding.
        bias: Whether the linear layer has a bias.
        activation: A key of ``ACTIVATIONS``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "torch.nn.modules.linear.Identity",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation} is not one of {', '.join(ACTIVATIONS)}")
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = ACTIVATIONS[activation]()
        self.settings = {
            "in_features": in_features,
            "out_features": out_features,
            "bias": bias,
            "activation_function": activation,
        }

    def forward(self, embeddings: Tensor) -> Tensor:
        """[N, in_features] to [N, out_features]."""
        output: Tensor = self.activation(self.linear(embeddings))
        return output

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open the folder of a Dense module."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        try:
            projection = cls(
                config["in_features"],
                config["out_features"],
                config.get("bias", True),
                config.get("activation_function", "torch.nn.modules.activation.Tanh"),
            )
        except ValueError as error:
            raise ValueError(f"{folder / 'config.json'}: {error}") from None
        if not (folder / "model.safetensors").is_file():
            raise ValueError(
                f"{folder} holds no safetensors weights (pickled .bin files are not read: they can "
                "run code); open the model once with sentence-transformers and save it again"
            )
        projection.load_state_dict(load_file(folder / "model.safetensors"))
        return projection

    def write(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the folder of a Dense module, with these weights or its own."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.settings, indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        weights = self.state_dict() if state_dict is None else state_dict
        weights = {name: weight.contiguous() for name, weight in weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
