"""The engine with a model: Llama 3 8B's shape in bfloat16, random weights, in this process and without HTTP."""
