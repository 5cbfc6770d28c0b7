"""Export to ONNX, in fp32 or int8 (``graph``), and run the result (``onnx_backbone``)."""
