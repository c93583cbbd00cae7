"""Audio files, loudness and mixing, short-time spectra, augmentation, and the names of keys."""
