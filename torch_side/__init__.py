"""The PyTorch half: everything that needs torch lives here."""
