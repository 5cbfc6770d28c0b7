"""The sentence-transformers modules behind the backbone, and their prompts."""
