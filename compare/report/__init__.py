"""The record of a run, and the views drawn only from it."""
