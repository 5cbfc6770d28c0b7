"""Read evaluation sets in the BEIR layout."""
