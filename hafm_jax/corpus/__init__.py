"""From recordings to songs to tokens: collections, separation, screening, extraction. Offline work."""
