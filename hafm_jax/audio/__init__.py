"""Audio files, short-time spectra, and what is known of music: keys, chords, song.json."""
