"""Runs on a host, copied there by the ``ssh`` provider: starts replicas, watches them, outlives the SSH session.

It needs Python 3.8 or newer and nothing else; it knows nothing of a control plane. A request is a line of JSON::

    python3 supervisor.pyz --root FOLDER call   < {"op": "create", …}     > {"ok": …} or {"error": …}
    python3 supervisor.pyz --root FOLDER run NAME                         the process that watches one replica

    FOLDER/lock                one call at a time changes anything
    FOLDER/replicas/NAME/
        spec.json              what was asked for; the secret is not in it
        secret                 the engine's key or the agent's token (mode 0600)
        run.lock               held by the watching process as long as it lives: no pid can be mistaken for it
        status.json            what it knows: port, devices, exit code, under which boot of the host
        stop.json              the wish that it end, and within how many seconds
        log/                   segments named by the offset of their first byte
    FOLDER/ended/NAME/         the log of what was deleted; the oldest go

The replica dies with its watching process (PR_SET_PDEATHSIG), so that nothing runs that nobody watches.
"""
