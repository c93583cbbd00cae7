"""Evaluation: the protocol, the systems that it compares, their measures and distances, the report."""
