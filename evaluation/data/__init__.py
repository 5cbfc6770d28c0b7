"""What a model is evaluated on: BEIR folders, training rows, MTEB tasks, TREC runs."""
