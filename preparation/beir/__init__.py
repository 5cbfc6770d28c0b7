"""Write evaluation sets in the BEIR layout, and turn them into training groups."""
