"""Sound to tokens and back: semantic features with their clusters, and neural codecs."""
