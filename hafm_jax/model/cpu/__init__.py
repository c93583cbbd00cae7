"""Decoding on a CPU: kernels in C++ that are compiled at first use."""
