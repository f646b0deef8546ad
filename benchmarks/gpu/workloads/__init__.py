"""Inputs of the kernels as the engine makes them: to be compiled for, tuned with and measured on."""
