"""A hundred hand-written rows in Chinese and English."""
