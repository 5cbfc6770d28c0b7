"""Make training data from the docstrings of Python source files."""
