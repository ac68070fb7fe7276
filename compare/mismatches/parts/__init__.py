"""What several entries of the catalogue use: small networks, files, edits, searches."""
