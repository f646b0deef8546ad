"""Compiles every Triton form for GPUs that are not there and tables what their machine code needs and does:
``python -m benchmarks.gpu.compiled`` writes ``benchmarks/results/compiled_kernels.md``."""
