"""Token data sets: written, read, checked, described, and cut into batches."""
