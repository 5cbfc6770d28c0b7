"""Quantise an ONNX graph to 8 bits with a scale per token, so that texts do not affect each other.

Ordinary dynamic quantisation has one scale for a layer's whole input: one text with large values
costs all others in the batch precision. ``MatMulNBits`` has scales per token too, but its 8-bit
kernels take twice as long on processors without VNNI. Only standard operators are used here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

# Shapes: K inputs and N outputs of a layer, V rows of a table, H width of a row.

# Without VNNI, pairs of byte products are added in 16 bits: 2 * 255 * 63 is the most that fits.
WEIGHTS, STATES = 63, 127
ZERO = 128  # of states, which are unsigned


class Quantizer:
    """Rewrites the nodes of a graph, in place."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.arrays = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
        }
        self.constants: dict[str, np.ndarray] = {
            "int8/zero": np.array(ZERO, np.uint8),
            "int8/one": np.array(1, np.float32),
            "int8/states": np.array(STATES, np.float32),
            "int8/least": np.array(1e-30, np.float32),
            "int8/last": np.array([-1]),
        }
        self.nodes: list[NodeProto] = []
        self._states: set[str] = set()

    def run(self) -> int:
        """Quantise products with weights and the largest table; return how many products."""
        tables = [node.input[0] for node in self.graph.node if self._is_look_up(node)]
        largest = max(tables, key=lambda name: self.arrays[name].size, default=None)
        products = 0
        for node in self.graph.node:
            if node.op_type == "MatMul" and node.input[1] in self.arrays:
                self._multiply(node)
                products += 1
            elif self._is_look_up(node) and node.input[0] == largest:
                self._look_up(node)
            else:
                self.nodes.append(node)
        self._finish()
        return products

    def _is_look_up(self, node: NodeProto) -> bool:
        axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
        return node.op_type == "Gather" and node.input[0] in self.arrays and axes in ([], [0])

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _multiply(self, node: NodeProto) -> None:
        """``x @ W`` [.., N] as an integer product, times the scales of tokens and of outputs."""
        x, weight = node.input
        state, scale = self._quantize(x)
        whole, scales = self._store(weight, axis=0, steps=WEIGHTS)
        out = node.output[0]
        product = self._add("MatMulInteger", [state, whole, "int8/zero"], f"{out}/int32")
        product = self._add("Cast", [product], f"{out}/float", to=TensorProto.FLOAT)
        product = self._add("Mul", [product, scales], f"{out}/scaled")
        self._add("Mul", [product, scale], out)

    def _quantize(self, x: str) -> tuple[str, str]:
        """States [.., K] as uint8 and their scales [.., 1]; shared by all layers that read them."""
        names = f"{x}/uint8", f"{x}/scale"
        if x not in self._states:
            self._states.add(x)
            size = self._add("Abs", [x], f"{x}/abs")
            size = self._add("ReduceMax", [size, "int8/last"], f"{x}/largest", keepdims=1)
            size = self._add("Max", [size, "int8/least"], f"{x}/size")
            self._add("Div", [size, "int8/states"], names[1])
            steps = self._add("Div", [x, names[1]], f"{x}/steps")
            self._add("QuantizeLinear", [steps, "int8/one", "int8/zero"], names[0])
        return names

    def _look_up(self, node: NodeProto) -> None:
        """Look up rows of a table [V, H], each with its own scale."""
        table, ids = node.input
        whole, scales = self._store(table, axis=1, steps=STATES)
        out = node.output[0]
        row = self._add("Gather", [whole, ids], f"{out}/int8")
        row = self._add("Cast", [row], f"{out}/float", to=TensorProto.FLOAT)
        scale = self._add("Gather", [scales, ids], f"{out}/scale")
        self._add("Mul", [row, scale], out)

    def _store(self, name: str, axis: int, steps: int) -> tuple[str, str]:
        """Weights as int8, and their scales along ``axis``."""
        names = f"{name}/int8", f"{name}/scales"
        values = self.arrays[name]
        scales = np.maximum(np.abs(values).max(axis, keepdims=True), 1e-30) / steps
        self.constants[names[0]] = np.round(values / scales).astype(np.int8)
        self.constants[names[1]] = scales.astype(np.float32)
        return names

    def _finish(self) -> None:
        graph = self.graph
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        own = [
            numpy_helper.from_array(array, name)
            for name, array in self.constants.items()
            if name in used
        ]
        for field, content in (("node", self.nodes), ("initializer", [*kept, *own])):
            graph.ClearField(field)
            getattr(graph, field).extend(content)
        graph.ClearField("value_info")


def quantize(source: Path, target: Path) -> None:
    """Write ``source`` in 8 bits to ``target``.

    Raises:
        ValueError: No product with weights was found in it.
    """
    model = onnx.load(source)
    if not Quantizer(model.graph).run():
        raise ValueError("the model's graph has no layers that can be brought to 8 bits")
    onnx.save(model, target)
