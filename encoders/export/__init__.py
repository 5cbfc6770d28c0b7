"""Export to ONNX, in fp32 or int8, and run the exported model."""
