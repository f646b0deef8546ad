"""The offline tuner: ``python -m benchmarks.gpu.tune [operation …]`` on a GPU.

For every entry of ``kernels/<operation>/tiles.json`` that realistic workloads use, neighbouring shapes are compiled on
all cores, those that do not fit or spill in loops are dropped, and the rest are measured, until none is better. A shape
counts only if it gives the same result as the one before. What is found goes into the tables under the device's own
compute capability.
"""
