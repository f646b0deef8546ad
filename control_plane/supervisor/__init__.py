"""What ``slipway up`` is made of: a small supervisor of processes, and the plan of which ones it runs.

::

    slipway up ──┬── redis        embedded broker, unless SLIPWAY_BROKER_URL names another
     supervisor  ├── local-host ──── engines      (providers/local_host.py)
                 ├── web          pages, REST API, gateway
                 ├── worker       Celery, in threads
                 └── scheduler    Celery beat: the sweeps

Every process above asks the kernel to be killed when its parent dies, so even SIGKILL leaves nothing behind.
"""
