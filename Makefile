PORT ?= 8000
DATA ?= data

.PHONY: up test setup check bench bench-control-plane bench-gpu test-images test-kubernetes test-lifecycle test-proof

up: setup  ## Start Slipway here: web pages, API, worker, scheduler and the starter instance
	@.venv/bin/slipway up --port $(PORT) --data $(DATA)

setup:
	@scripts/setup run

test:  ## The whole test suite: most of it in parallel, then what needs the machine to itself (marked alone, gpu)
	@scripts/setup dev
	@status=0; \
	.venv/bin/python -m pytest -m "not (alone or gpu)" -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder || status=$$?; \
	.venv/bin/python -m pytest -m "alone or gpu" || status=$$?; \
	exit $$status

test-kubernetes:  ## The kubernetes provider and the Helm chart on a real cluster, which is built once (nine minutes)
	@scripts/setup dev
	@scripts/kubernetes-binaries
	.venv/bin/python -m pytest tests/kubernetes

test-images:  ## Both images built by Podman, one run by the docker provider, and compose brought up whole (six minutes; root, package indexes)
	@scripts/setup dev
	.venv/bin/python -m pytest tests/images

test-lifecycle:  ## Two thousand random histories of kills, lost replies, lags and wishes, other ones each time (ten minutes)
	@scripts/setup dev
	.venv/bin/python -m benchmarks.lifecycle

test-proof:  ## 50 launches and terminations at once, three rounds, under SIGKILLs, locally and on Slurm (10 minutes; root)
	@scripts/setup dev
	.venv/bin/python -m benchmarks.control_plane.proof

check:  ## Lint, formatting, types, import contracts
	@scripts/setup dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench:  ## Side-by-side benchmarks and a soak (60 minutes, on a quiet machine); tables and JSON under benchmarks/results/
	@scripts/setup dev
	.venv/bin/python benchmarks/serving.py $(if $(VLLM_PYTHON),--vllm-python $(VLLM_PYTHON))
	.venv/bin/python benchmarks/families.py $(if $(VLLM_PYTHON),--vllm-python $(VLLM_PYTHON))
	.venv/bin/python benchmarks/prefill_profile.py
	.venv/bin/python benchmarks/attention_variants.py
	.venv/bin/python benchmarks/experts.py
	.venv/bin/python benchmarks/boot.py
	.venv/bin/python benchmarks/download.py
	.venv/bin/python -m benchmarks.soak

bench-control-plane:  ## Sweeps over 10,000 rows, 20 launches a second, 1 to 6 workers (10 minutes, on a quiet machine)
	@scripts/setup dev
	.venv/bin/python -m benchmarks.control_plane.sweep
	.venv/bin/python -m benchmarks.control_plane.launches
	.venv/bin/python -m benchmarks.control_plane.workers

bench-gpu:  ## On a GPU: its tests, kernels and engine measured, kernels tuned (8 minutes each); benchmarks/results/gpu/
	@scripts/setup dev
	benchmarks/gpu/run.sh
