"""Which documents may become negatives."""
