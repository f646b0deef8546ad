"""What the Slurm provider (``providers/slurm.py``) is made of: its REST client, its jobs, and the folder they share.

::

    provider ──HTTP + JWT──► slurmrestd ──► slurmctld ──► a node runs start_script.py, which runs the engine
        └──────────── shared folder ───────────────────────────────────┘
           (what to run, the key, who may run ──►   ◄── port, end, log)
"""
