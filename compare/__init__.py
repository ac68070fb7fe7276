"""Runs the matrix of routes, measures, explains and reports."""
