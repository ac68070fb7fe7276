"""The page of compare.versions: a matrix of routes and toolchains."""
