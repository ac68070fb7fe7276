"""Scales that training did not decide: what they cost."""
