"""Slipway's slurm provider in front of a cluster of ``slurm.py``, with ``tiny_engine.py`` as the engine of its jobs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil
from pydantic import SecretStr

from control_plane.keys import installation_id
from control_plane.providers.base import ReplicaSpec, Weights
from control_plane.providers.slurm import SlurmProvider
from control_plane.settings import Settings
from tests.control_plane.providers.contract import KEY
from tests.support import tiny_engine
from tests.support.processes import alive, eventually
from tests.support.slurm import JOB_USER, SlurmCluster, chown_to_job_user


class SlurmSite:
    """What the contract suite needs, and the settings from which further providers can be made."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self.cluster = cluster
        self.folder = cluster.folder / f"site-{uuid4().hex[:8]}"
        self.folder.mkdir()
        # Jobs run as a user that cannot read the repository: the engine is a copy, run by the system's Python.
        engine = self.folder / "slipway-serve"
        engine.write_text("#!/usr/bin/env python3\n" + Path(tiny_engine.__file__).read_text())
        engine.chmod(0o755)
        token = self.folder / "token"
        token.write_text(cluster.token())
        self.settings = Settings(
            data_dir=self.folder / "data",
            secret_key=SecretStr("secret-1"),
            slurm_url=cluster.url,
            slurm_user=JOB_USER,
            slurm_token_file=token,
            slurm_partition="gpu",
            slurm_engine=str(engine),
            slurm_shared_dir=self.folder / "shared",
            slurm_price_per_hour={"h200": 3.5, "cpu": 0.25},
            slurm_cpus=1,
        )
        self.provider = self.make_provider()
        self.other_installation = self.make_provider(secret_key=SecretStr("secret-2"))

    def make_provider(self, clock: Callable[[], float] = time.time, **changes: object) -> SlurmProvider:
        """A provider of this site whose settings differ by ``changes``: another worker, or another installation."""
        return SlurmProvider.from_settings(self.settings.model_copy(update=changes), clock=clock)

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        """A replica on a processor."""
        model = self.folder / f"model-{uuid4().hex[:8]}"
        model.mkdir()
        (model / "behaviour.json").write_text(json.dumps(behaviour))
        chown_to_job_user(model)
        return ReplicaSpec(
            name=name,
            owner=installation_id(self.settings),
            weights=Weights("org/model", None, model),
            served_model_name="org/model",
            hardware_id="slurm-cpu",
            api_key=KEY,
            boot_token=boot_token,
            labels={"instance": "an instance", "replica": "0"},
        )

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        """slurmrestd is not there."""
        self.cluster.stop("slurmrestd")
        try:
            yield
        finally:
            self.cluster.start("slurmrestd")
            self.cluster.wait_until_ready()

    @contextmanager
    def node_lost(self, node: str | None) -> Iterator[None]:
        """A node's daemon is dead, and Slurm is told so, which would find it out by itself after some ten seconds."""
        self.cluster.stop(str(node))
        self.cluster.scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=test")
        try:
            yield
        finally:
            self.cluster.start(str(node))
            self.cluster.wait_until_ready()

    def jobs(self, name: str) -> list[str]:
        """Ids of the jobs that a replica has in Slurm's queue."""
        return self.cluster.command("squeue", "-h", "-o", "%i", "--name", name).split()

    def engines(self) -> list[psutil.Process]:
        """Engines that run, whatever Slurm thinks of them."""
        return [process for process in self.cluster.processes() if str(self.folder / "slipway-serve") in _argv(process)]

    def start_scripts(self) -> list[psutil.Process]:
        """The processes that watch over engines."""
        return [process for process in self.cluster.processes() if _argv(process)[-1:][0].endswith("/slurm_script")]

    def clear(self) -> None:
        """Cancel every job, and wait until nothing is left of this site."""
        self.cluster.command("scancel", "--user", JOB_USER)
        eventually(lambda: not self.cluster.command("squeue", "-h"), "every job has ended", 30)
        eventually(lambda: not alive(self.engines()), "no engine is left", 40)
        shutil.rmtree(self.folder)


def _argv(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
