"""What a call may ask for."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from control_plane.providers.ssh_host.supervisor import machine
from control_plane.providers.ssh_host.supervisor.files import Json, write_json, write_private
from control_plane.providers.ssh_host.supervisor.log import read
from control_plane.providers.ssh_host.supervisor.ports import reserved_port
from control_plane.providers.ssh_host.supervisor.replicas import (
    Host,
    Refused,
    WeightsMissing,
    forget,
    status_of,
    taken_devices,
    watched,
)

#: Seconds that a replica gets when the host itself shuts down.
HOST_GRACE_S = 20.0


def facts(host: Host, request: Json) -> Json:
    """What this machine has, and whether the programs are there."""
    taken = taken_devices(host)
    return {
        "cpu_name": machine.cpu_name(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "memory_bytes": machine.memory_available(),
        "bfloat16": machine.cpu_has_bfloat16(),
        "gpus": [dict(gpu, busy=gpu["busy"] or gpu["uuid"] in taken) for gpu in machine.gpus()],
        "programs": {program: shutil.which(program) is not None for program in request["programs"]},
    }


def create(host: Host, request: Json) -> Json:
    """Start a replica, or return the one of this name: the live one, or the same boot after its end."""
    spec, secret = request["spec"], request["secret"]
    folder = host.folder(spec["name"])
    with host.locked():
        present = status_of(host, folder)
        if present is not None:
            if status_of(host, folder, spec["owner"]) is None:
                raise Refused(f"{spec['name']} belongs to another installation", "Delete it there first.")
            if present["state"] in {"running", "pending"} or present["boot_token"] == spec["boot_token"]:
                return present
            forget(host, folder)
        check(spec)
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call left
        folder.mkdir(parents=True, mode=0o700)
        write_private(folder / "secret", secret)
        spec = dict(spec, boot_id=host.boot_id, created_at=time.time())
        write_json(folder / "spec.json", spec)
        spawn(host, spec)
        deadline = time.monotonic() + 15
        while not (folder / "status.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        status = status_of(host, folder)
    return status or {"state": "absent", "name": spec["name"]}


def check(spec: Json) -> None:
    """Refuse at once what cannot work."""
    if shutil.which(spec["argv"][0]) is None:
        raise Refused(f"{spec['argv'][0]} is not there or cannot be run", "Install Slipway on the host.")
    if spec.get("needs") and not Path(spec["needs"]).is_dir():
        raise WeightsMissing(f"the folder {spec['needs']} is not there", "Start again: the weights are fetched anew.")
    try:
        with reserved_port(spec["address"]):
            pass
    except OSError as error:
        detail = f"replicas cannot listen on {spec['address']}: {error.strerror or error}"
        raise Refused(detail, "Name an address of the host as replica_address in ssh_hosts.") from error
    have = sum(gpu["model"] == spec["device"] for gpu in machine.gpus()) if spec["device_count"] else 0
    if have < spec["device_count"]:
        raise Refused(f"{spec['device_count']} × {spec['device']} asked for, the host has {have}", "Ask for fewer.")
    if any(spec["limits"].values()) and not machine.systemd():
        raise Refused("limits can be kept by systemd only, which does not run on this host", "Launch without limits.")


def find(host: Host, request: Json) -> Json | None:
    """The replica of this name."""
    return status_of(host, host.folder(request["name"]), request["owner"])


def list_owned(host: Host, request: Json) -> list[Json]:
    """Every replica of one owner."""
    found = (status_of(host, folder, request["owner"]) for folder in host.folders())
    return [status for status in found if status is not None]


def delete(host: Host, request: Json) -> bool:
    """Begin to end a replica, forget one that has ended, leave another boot; whether there was one of the name."""
    folder = host.folder(request["name"])
    with host.locked():
        present = status_of(host, folder, request["owner"])
        if present is None:
            return False
        if request["boot_token"] not in {None, present["boot_token"]}:
            return True
        if watched(folder):
            write_json(folder / "stop.json", {"grace_s": float(request["grace_s"])})
        else:
            forget(host, folder)
    return True


def log(host: Host, request: Json) -> Json | None:
    """A piece of a log, of a deleted replica too; None where there never was one."""
    folder = host.folder(request["name"]) / "log"
    if not folder.exists():
        folder = host.root / "ended" / request["name"]
    return read(folder, request["offset"], request["limit"], request["tail"]) if folder.exists() else None


def spawn(host: Host, spec: Json) -> None:
    """Start the watching process in a session of its own: as a unit where systemd runs, else detached."""
    argv = [sys.executable, "-IS", os.path.abspath(sys.argv[0]), "--root", str(host.root), "run", spec["name"]]
    runner = machine.systemd()
    if runner:
        cpus, memory = spec["limits"].get("cpus"), spec["limits"].get("memory_bytes")
        properties = ["KillMode=mixed", "OOMPolicy=continue", f"TimeoutStopSec={HOST_GRACE_S + 10:g}"]
        properties += [f"CPUQuota={round(cpus * 100)}%"] if cpus else []
        properties += [f"MemoryMax={int(memory)}"] if memory else []
        unit = [f"--unit={spec['name']}-{spec['boot_token'][:8]}", "--collect", "--quiet"]
        argv = [*runner, *unit, *(f"--property={entry}" for entry in properties), "--", *argv]
        started = subprocess.run(argv, capture_output=True, text=True, check=False)
        if started.returncode:
            raise Refused(f"systemd does not start it: {started.stderr.strip()[:500]}", "Look at journalctl there.")
        return
    quiet = subprocess.DEVNULL
    subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True, cwd="/")


OPERATIONS = {"facts": facts, "create": create, "find": find, "list": list_owned, "delete": delete, "log": log}


def call(host: Host, request: Json) -> Json:
    """Answer one request."""
    try:
        return {"ok": OPERATIONS[request["op"]](host, request)}
    except Refused as refusal:
        kind = "weights missing" if isinstance(refusal, WeightsMissing) else "refused"
        return {"error": kind, "detail": refusal.args[0], "next_step": refusal.args[1]}
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        step = "Free space on the host's disk." if full else f"Check the permissions of {host.root} on the host."
        return {"error": "failed", "detail": f"{error}", "next_step": step}
