"""Places where replicas run. ``base.py`` is the protocol, ``registry.py`` the list, and each provider one file.

Where a provider needs more than its file, that is in the folder beside it: ``local_host/`` (a process that runs engines
here), ``docker_api/``, ``slurm_jobs/``, ``kubernetes_api/``, ``ssh_host/``, ``fake/``. What several of them use is
``engine_flags.py``, ``log_store.py`` and ``wire.py``.
"""
