"""The control plane at scale: a sweep over many rows, launches at a steady rate, and what more workers bring.

    .venv/bin/python -m benchmarks.control_plane.sweep
    .venv/bin/python -m benchmarks.control_plane.launches
    .venv/bin/python -m benchmarks.control_plane.workers

Each writes its JSON and its table, ``control_plane_<name>``, under benchmarks/results/.
"""
