"""The stage model: sizes, network, decoding, and the directory of a trained model."""
