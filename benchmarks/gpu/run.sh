#!/bin/sh
# Proves and measures the GPU path on the GPU of this machine:
#
#     benchmarks/gpu/run.sh [correctness] [kernels] [model] [tune] [all]
#
# Each part takes less than 8 minutes; by default all run, in this order, and one that fails does not stop the others.
# No network and no weights are needed. Writes <date>-<device>.json and .md to $OUT, or to benchmarks/results/gpu; the
# tuner writes <date>-<device>.tiles.json there, which python -m benchmarks.gpu.tune --adopt puts into the tables.
#
# $PYTHON (else the project's environment, if its torch sees the GPU, else python3) must have torch with CUDA, triton
# and numpy; correctness also pytest and hypothesis; model also transformers, safetensors, tokenizers and msgspec.
set -eu
cd "$(dirname "$0")/../.."
sees_gpu='import sys, torch; sys.exit(not torch.cuda.is_available())'
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ] && .venv/bin/python -c "$sees_gpu" 2>/dev/null; then PYTHON=.venv/bin/python; fi
    if ! "$PYTHON" -c 'import torch' 2>/dev/null && [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
exec "$PYTHON" -m benchmarks.gpu "$@"
