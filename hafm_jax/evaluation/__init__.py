"""Evaluation: the protocol, the systems that are compared, what is measured of them, the report."""
