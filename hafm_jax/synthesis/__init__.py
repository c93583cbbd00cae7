"""Songs that this project composes and plays: the demo model's training data."""
