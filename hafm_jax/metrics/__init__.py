"""Measures of how good a model's music is."""
