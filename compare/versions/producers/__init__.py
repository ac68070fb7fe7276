"""`python -m compare.versions --producers`: whose quantization survives which converter."""
