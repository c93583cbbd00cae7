"""The stage model: sizes, network, decoding, and the directory that a trained model is kept in."""
