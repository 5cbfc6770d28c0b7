"""One file per thing a person does; each runs as ``python scripts/NAME.py``."""
