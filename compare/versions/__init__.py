"""The version matrix: the same routes under many toolchains, every file on many runtimes."""
