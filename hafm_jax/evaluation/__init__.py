"""Evaluation: the protocol, the systems that are compared, the report, the listening test."""
