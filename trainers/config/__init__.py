"""The arguments of a run: their fields, their checks, and the objects made from them."""
