"""The blind listening test: the kit for listeners, their answers, and the results."""
