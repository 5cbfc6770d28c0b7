"""Files, folders and Hub datasets to raw records."""
