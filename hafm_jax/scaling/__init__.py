"""Scaling-law sweeps: what is run, and what is made of it."""
