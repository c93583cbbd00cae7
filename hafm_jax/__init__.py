"""HAFM in JAX: instrumental accompaniment for a singing voice."""

__version__ = "0.1.0"
