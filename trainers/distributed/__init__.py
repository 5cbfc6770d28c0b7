"""Several processes: gathering with gradients, FSDP2, gradient cache."""
