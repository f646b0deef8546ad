"""The process that runs replicas on this machine, and what its client (``providers/local.py``) shares with it.

It alone spawns engine processes, so killing a worker or the web server never hurts an engine, and exit codes are known.
Run it with ``python -m control_plane.providers.local_host``.
"""
