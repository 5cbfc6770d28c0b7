"""Bring an ONNX graph to 8 bits, so that what is computed for a text does not depend on others.

"Dynamic" quantisation has one scale for all that a layer is given: a text with large values makes
those of its neighbours coarse. Here each token's state has a scale of its own, as it has in
``MatMulNBits``, whose kernels for 8 bits take twice as long on processors without VNNI. Only
standard operators are used.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

# Shapes: K inputs and N outputs of a layer, V rows of a table, H width of a row.

# Products of two bytes are added up in pairs in 16 bits where there is no VNNI: 2 * 255 * 63.
WEIGHTS, STATES = 63, 127
ZERO = 128  # of states, which are unsigned


class Quantizer:
    """Writes a graph's nodes anew.

    Args:
        graph: Changed in place.
    """

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
        """Replace products with weights and the look-up in the largest table; how many products."""
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
        """``x @ W`` [.., N]: bytes times bytes, then the scales of tokens and of outputs."""
        x, weight = node.input
        state, scale = self._quantize(x)
        whole, scales = self._store(weight, axis=0, steps=WEIGHTS)
        out = node.output[0]
        product = self._add("MatMulInteger", [state, whole, "int8/zero"], f"{out}/int32")
        product = self._add("Cast", [product], f"{out}/float", to=TensorProto.FLOAT)
        product = self._add("Mul", [product, scales], f"{out}/scaled")
        self._add("Mul", [product, scale], out)

    def _quantize(self, x: str) -> tuple[str, str]:
        """States [.., K] as bytes, and the scale of each [.., 1]; once for all that use them."""
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
        """Rows of a table [V, H], which have a scale each."""
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
