"""The parts of ``benchmarks/serving.py``: Slipway's engine beside vLLM and Transformers on one machine."""
