"""What the evaluation is made of: systems, protocol, report, listening test."""
