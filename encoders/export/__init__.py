"""Export to ONNX, in fp32 or int8 (``graph.export_onnx``), and run what was exported.

Whoever only opens models imports from here; ``graph`` needs the packages of the extra ``onnx``.
"""

from encoders.export.onnx_backbone import ONNX_FILE, OnnxBackbone, is_onnx

__all__ = ["ONNX_FILE", "OnnxBackbone", "is_onnx"]
