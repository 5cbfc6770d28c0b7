"""The sub-commands of scripts/prepare_data.py, one module each."""
