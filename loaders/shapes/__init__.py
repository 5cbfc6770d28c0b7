"""Row shapes, and conversions from one shape to another."""
