"""What every part uses: errors, whole files, workers, downloads, caches and pages."""
