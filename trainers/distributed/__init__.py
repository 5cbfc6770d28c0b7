"""Several processes: gathering with gradients, means, FSDP2, gradient cache."""
