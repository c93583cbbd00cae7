"""Sound to tokens to sound."""
