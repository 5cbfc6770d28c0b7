"""The model card of a saved model."""
