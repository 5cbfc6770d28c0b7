"""Raw records to typed, validated rows."""
