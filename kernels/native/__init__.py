"""Kernels compiled for the CPU: C++ sources, what builds them, and what loads and calls them."""
