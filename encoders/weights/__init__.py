"""What is done to weights: adapters (LoRA), merging with the base, sharding (FSDP)."""
