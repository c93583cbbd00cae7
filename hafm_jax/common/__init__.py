"""Helpers of every room: errors, files, resuming, workers, downloads, caches, the bootstrap and pages."""
