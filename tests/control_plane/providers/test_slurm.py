"""The Slurm provider on a real cluster of two nodes with eight pretended GPUs each."""

from __future__ import annotations

import json
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from control_plane.errors import Invalid
from control_plane.providers.base import (
    HardwareOffer,
    Limits,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
)
from control_plane.providers.slurm import SlurmProvider
from control_plane.providers.slurm_jobs import submission
from control_plane.providers.slurm_jobs.job import Tag
from tests.control_plane.providers.contract import BOOT, KEY, ProviderContract, boot_at, names, wait_until
from tests.support.processes import eventually
from tests.support.slurm import JOB_USER, SlurmCluster, running_slurm
from tests.support.slurm_proxy import faulty_proxy
from tests.support.slurm_site import SlurmSite


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    with running_slurm() as cluster:
        yield cluster


@pytest.fixture
def site(cluster: SlurmCluster) -> Iterator[SlurmSite]:
    site = SlurmSite(cluster)
    yield site
    site.clear()


class TestContract(ProviderContract):
    """What every provider must do."""


def gpus(site: SlurmSite, name: str, count: int, boot_token: str = BOOT, **behaviour: object) -> ReplicaSpec:
    """A replica on ``count`` GPUs."""
    spec = site.spec(name, boot_token, **behaviour)
    return replace(spec, hardware_id="slurm-gpu-h200", accelerator_count=count)


def offer(site: SlurmSite) -> HardwareOffer:
    return next(offer for offer in site.provider.offers() if offer.id == "slurm-gpu-h200")


def environment(site: SlurmSite, name: str) -> dict[str, str]:
    """What the engine of a replica found in its environment."""
    log = site.provider.logs(name, tail_bytes=1 << 16)
    seen: dict[str, str] = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
    return seen


class TestHardware:
    """GPUs, limits, offers."""

    def test_gpus_are_given_by_count_and_no_secret_shows(self, site: SlurmSite) -> None:
        for name in ("replica-a", "replica-b"):
            site.provider.create(gpus(site, name, 2, print_environment=True))
        for name in ("replica-a", "replica-b"):
            wait_until(site.provider, name, ReplicaState.RUNNING)
        environments = [environment(site, name) for name in ("replica-a", "replica-b")]

        nodes = [site.provider.find(name).node for name in ("replica-a", "replica-b")]
        devices = [tuple(seen["CUDA_VISIBLE_DEVICES"].split(",")) for seen in environments]
        assert all(len(each) == 2 for each in devices)
        assert len({(node, device) for node, each in zip(nodes, devices, strict=True) for device in each}) == 4
        assert not [name for name in environments[0] if name.startswith(("SLURM", "SLIPWAY"))]
        job = site.jobs("replica-a")[0]
        visible = site.cluster.scontrol("-dd", "show", "job", job) + site.cluster.scontrol("write", "batch", job, "-")
        assert KEY not in visible + str(environments) + " ".join(site.engines()[0].cmdline())
        (key_file,) = site.folder.glob("shared/*/replica-a/boot-1/api-key")
        assert key_file.read_text().strip() == KEY
        assert (stat.S_IMODE(key_file.stat().st_mode), key_file.owner()) == (0o600, JOB_USER)

    def test_limits_are_the_jobs(self, site: SlurmSite) -> None:
        limits = Limits(cpus=1.5, memory_bytes=1 << 30)
        provider = site.make_provider(slurm_time_limit_s=5400.0)
        provider.create(replace(site.spec("replica", "boot-1"), limits=limits))
        shown = site.cluster.scontrol("show", "job", site.jobs("replica")[0])
        assert "NumCPUs=2 " in shown
        assert "MinMemoryNode=1G " in shown
        assert "TimeLimit=01:30:00 " in shown
        provider.create(replace(site.spec("planned", "boot-1"), memory_bytes=3 << 30))
        assert "MinMemoryNode=4G " in site.cluster.scontrol("show", "job", site.jobs("planned")[0])

    def test_what_waits_says_for_what_and_starts_when_its_turn_comes(self, site: SlurmSite) -> None:
        assert (offer(site).free_count, offer(site).accelerator_count, offer(site).price_per_hour) == (16, 8, 3.5)
        assert offer(site).memory_bytes > 130 << 30
        for name in ("replica-a", "replica-b"):
            site.provider.create(gpus(site, name, 8))
            wait_until(site.provider, name, ReplicaState.RUNNING)
        waiting = site.provider.create(gpus(site, "replica-c", 8))
        assert waiting.state is ReplicaState.PENDING
        eventually(lambda: "(Resources)" in (site.provider.find("replica-c").reason or ""), "Slurm says why")
        assert "for hardware to become free" in (site.provider.find("replica-c").reason or "")
        assert (offer(site).free_count, offer(site).available) == (0, False)
        assert "in use" in (offer(site).why_unavailable or "")

        site.provider.delete("replica-a", boot_token=None, grace_s=1)
        assert wait_until(site.provider, "replica-c", ReplicaState.RUNNING).boot_token == "boot-1"

    def test_what_waits_is_deleted_at_once(self, site: SlurmSite) -> None:
        site.cluster.scontrol("update", "PartitionName=gpu", "State=DOWN")
        try:
            assert "takes no jobs" in (offer(site).why_unavailable or "")
            site.provider.create(site.spec("replica", "boot-1"))
            eventually(lambda: "(PartitionDown)" in (site.provider.find("replica").reason or ""), "Slurm says why")
            site.provider.delete("replica", boot_token=None, grace_s=60)
            eventually(lambda: site.provider.find("replica").state is ReplicaState.ABSENT, "it is gone")
        finally:
            site.cluster.scontrol("update", "PartitionName=gpu", "State=UP")
        assert not list(site.folder.glob("shared/*/replica/*/api-key"))

    def test_more_than_a_node_has_is_refused(self, site: SlurmSite) -> None:
        with pytest.raises(ProviderError, match="the most is 8"):
            site.provider.create(gpus(site, "replica", 9))


class TestTakenAway:
    """Nodes that fail, jobs that are preempted or cancelled: explained, and never two engines of one replica."""

    def test_a_lost_node_is_explained_and_what_outlives_it_is_fenced(self, site: SlurmSite) -> None:
        site.provider.create(gpus(site, "replaced", 1))
        site.provider.create(gpus(site, "deleted", 1, ignore_sigterm=True))
        first, other = (wait_until(site.provider, name, ReplicaState.RUNNING) for name in ("replaced", "deleted"))
        assert first.node == other.node
        with site.node_lost(first.node):
            for status in (first, other):
                assert boot_at(status.url) == BOOT, "the engine outlives its node's daemon"
                lost = wait_until(site.provider, status.name, ReplicaState.LOST)
                assert f"node {first.node} failed" in (lost.reason or "")
            assert names(site.provider.list_owned()) == {"replaced", "deleted"}

            site.provider.create(gpus(site, "replaced", 1, "boot-2"))
            site.provider.delete("deleted", boot_token=None, grace_s=60)
            assert site.provider.find("deleted").state is ReplicaState.ABSENT
            second = wait_until(site.provider, "replaced", ReplicaState.RUNNING)
            assert (second.boot_token, second.node != first.node) == ("boot-2", True)
            eventually(lambda: len(site.engines()) == 1, "the engines of the lost node are ended")
            assert boot_at(second.url) == "boot-2"

    def test_slurm_runs_it_again_and_the_first_run_is_fenced(self, site: SlurmSite) -> None:
        provider = site.make_provider(slurm_requeue=True)
        provider.create(gpus(site, "replica", 1))
        first = wait_until(provider, "replica", ReplicaState.RUNNING)
        with site.node_lost(first.node):
            eventually(lambda: provider.find("replica").node != first.node, "it is taken from the node", 30)
            seen = provider.find("replica")
            assert seen.url is None or seen.node != first.node, "the first run's address means nothing any more"
            second = wait_until(provider, "replica", ReplicaState.RUNNING)
            assert (second.boot_token, second.url != first.url) == ("boot-1", True)
            eventually(lambda: boot_at(first.url) is None, "the first run is ended")
            assert len(site.engines()) == 1
            assert "has taken over" in provider.logs("replica", tail_bytes=1 << 16)

    @pytest.mark.parametrize("requeue", [False, True])
    def test_preemption(self, site: SlurmSite, requeue: bool) -> None:
        provider, urgent = site.make_provider(slurm_requeue=requeue), site.make_provider(slurm_partition="urgent")
        for name in ("replica-a", "replica-b"):
            provider.create(gpus(site, name, 8))
            wait_until(provider, name, ReplicaState.RUNNING, 150)  # a busy machine's node may have missed its pings
        urgent.create(gpus(site, "urgent", 8))
        wait_until(urgent, "urgent", ReplicaState.RUNNING)

        seen = [provider.find(name) for name in ("replica-a", "replica-b")]
        (taken,) = [status for status in seen if status.state is not ReplicaState.RUNNING]
        if not requeue:
            assert taken.state is ReplicaState.LOST
            assert "preempted" in (taken.reason or "")
            return
        assert taken.state is ReplicaState.PENDING
        assert "cut short" in (taken.reason or "")

    def test_cancelled_by_somebody_else(self, site: SlurmSite) -> None:
        site.provider.create(site.spec("replica", "boot-1"))
        wait_until(site.provider, "replica", ReplicaState.RUNNING)
        site.cluster.command("scancel", site.jobs("replica")[0])
        lost = wait_until(site.provider, "replica", ReplicaState.LOST)
        assert "not by Slipway" in (lost.reason or "")

    def test_cut_off_from_the_shared_folder(self, site: SlurmSite, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(submission, "LEASE_S", 1.0)
        site.provider.create(site.spec("replica", "boot-1"))
        wait_until(site.provider, "replica", ReplicaState.RUNNING)
        (folder,) = site.folder.glob("shared/*/replica")
        elsewhere = folder.rename(site.folder / "elsewhere")
        eventually(lambda: not site.engines(), "the engine is ended")
        elsewhere.rename(folder)
        lost = wait_until(site.provider, "replica", ReplicaState.LOST)
        assert "cut off from the shared folder" in (lost.reason or "")


class TestAsking:
    """Tokens, a controller that is away, answers that are lost."""

    def test_an_expired_token_says_so(self, site: SlurmSite) -> None:
        token_file = site.folder / "short"
        provider = site.make_provider(slurm_token_file=token_file)
        token_file.write_text(f"SLURM_JWT={site.cluster.token(lifespan_s=1)}\n")
        eventually(
            lambda: refusal(provider).detail.startswith(f"the Slurm token in {token_file} expired"), "it expires"
        )
        assert f"scontrol token username={JOB_USER}" in refusal(provider).next_step
        assert not provider.offers()[0].available

        token_file.write_text(site.cluster.token())
        assert provider.list_owned() == [], "a renewed token is read without a restart"

    @pytest.mark.parametrize("bad", ["forged", "absent", "none"])
    def test_a_token_that_slurm_does_not_take(self, site: SlurmSite, bad: str) -> None:
        token_file = site.folder / bad
        if bad == "forged":
            head, claims, _ = site.cluster.token().split(".")
            token_file.write_text(f"{head}.{claims}.AAAA")
        provider = site.make_provider(slurm_token_file=None if bad == "none" else token_file)
        words = {"forged": "does not accept", "absent": "cannot be read", "none": "none is configured"}
        assert words[bad] in refusal(provider).detail

    def test_tokens_are_made_from_the_clusters_key(self, site: SlurmSite) -> None:
        provider = site.make_provider(slurm_token_file=None, slurm_jwt_key_file=site.cluster.jwt_key_file)
        provider.create(site.spec("replica", "boot-1"))
        assert site.cluster.command("squeue", "-h", "-o", "%u") == f"{JOB_USER}\n"

    def test_the_controller_is_away_and_comes_back(self, site: SlurmSite) -> None:
        site.provider.create(site.spec("replica", "boot-1"))
        running = wait_until(site.provider, "replica", ReplicaState.RUNNING)
        site.cluster.stop("slurmctld", signal.SIGTERM)  # killed, it may not have saved what it knows
        try:
            assert "it is away" in refusal(site.provider).detail
            assert boot_at(running.url) == BOOT, "serving goes on"
        finally:
            site.cluster.start("slurmctld")
            site.cluster.wait_until_ready()
        assert site.provider.find("replica").url == running.url

    def test_a_controller_that_lost_its_memory(self, site: SlurmSite) -> None:
        site.provider.create(site.spec("ended", "boot-1", exit_code=3, message="the last words"))
        site.provider.create(site.spec("running", "boot-1"))
        wait_until(site.provider, "ended", ReplicaState.EXITED)
        wait_until(site.provider, "running", ReplicaState.RUNNING)
        site.cluster.lose_memory()

        ended, running = (site.provider.find(name) for name in ("ended", "running"))
        assert (ended.state, ended.exit_code, dict(ended.labels)) == (
            ReplicaState.EXITED,
            3,
            {"instance": "an instance", "replica": "0"},
        )
        assert "the last words" in site.provider.logs("ended", tail_bytes=4096)
        assert (running.state, running.boot_token) == (ReplicaState.LOST, BOOT)
        assert names(site.provider.list_owned()) == {"ended", "running"}
        site.provider.delete("running", boot_token=None, grace_s=60)
        eventually(lambda: not site.engines(), "what the controller has forgotten is fenced")

    def test_a_lost_answer_to_a_submission_gives_one_job(self, site: SlurmSite) -> None:
        with faulty_proxy(site.cluster.url, lose_submissions=True) as url:
            worker = site.make_provider(slurm_url=url)
            with pytest.raises(ProviderUnavailable):
                worker.create(site.spec("replica", "boot-1"))
            assert worker.create(site.spec("replica", "boot-1")).boot_token == BOOT
        wait_until(site.provider, "replica", ReplicaState.RUNNING)
        assert len(site.jobs("replica")) == 1

    @pytest.mark.parametrize("both_seen", [True, False])
    def test_of_two_jobs_of_one_replica_one_runs(self, site: SlurmSite, both_seen: bool) -> None:
        spec = site.spec("replica", "boot-1")
        site.cluster.scontrol("update", "PartitionName=gpu", "State=DOWN")
        try:
            with faulty_proxy(site.cluster.url, lose_submissions=True) as url, pytest.raises(ProviderUnavailable):
                site.make_provider(slurm_url=url).create(spec)
            (first,) = site.jobs("replica")
            # A second worker does not see that job: not before it submits its own, or not at all.
            with faulty_proxy(site.cluster.url, old_lists=2 if both_seen else 9) as url:
                site.make_provider(slurm_url=url).create(spec)
            left = site.jobs("replica")
            assert left == [first] if both_seen else (len(left) == 2 and first in left)
            assert [status.name for status in site.provider.list_owned()] == ["replica"]
        finally:
            site.cluster.scontrol("update", "PartitionName=gpu", "State=UP")
        wait_until(site.provider, "replica", ReplicaState.RUNNING)
        eventually(lambda: len(site.jobs("replica")) == 1, "the job that was not chosen ends by itself")
        assert len(site.engines()) == 1
        assert (site.jobs("replica") == [first]) is both_seen

    def test_another_users_job_with_our_tag_is_not_ours(self, site: SlurmSite) -> None:
        spec = site.spec("replica", "boot-1")
        forged = Tag(spec.owner, BOOT, {}).to_comment()
        site.cluster.command(
            "sbatch", "--job-name=replica", f"--comment={forged}", "--output=/dev/null", "--wrap=sleep 9"
        )
        assert site.provider.list_owned() == []
        assert site.provider.find("replica").state is ReplicaState.ABSENT
        site.cluster.command("scancel", *site.jobs("replica"))

    def test_slurm_kills_what_does_not_end_by_itself(self, site: SlurmSite) -> None:
        site.provider.create(site.spec("replica", "boot-1", ignore_sigterm=True))
        wait_until(site.provider, "replica", ReplicaState.RUNNING)
        for process in site.start_scripts():
            process.suspend()
        site.provider.delete("replica", boot_token=None, grace_s=30)
        for seconds in (35, 45):
            site.make_provider(clock=lambda late=seconds: time.time() + late).delete(
                "replica", boot_token=None, grace_s=30
            )
            assert len(site.jobs("replica")) == 1
            assert ("COMPLETING" in site.cluster.command("squeue", "-h", "-o", "%T")) is (seconds > 40)
        eventually(lambda: site.provider.find("replica").state is ReplicaState.ABSENT, "it is gone", 30)
        assert not site.engines()

    def test_a_long_log_keeps_its_end(self, site: SlurmSite) -> None:
        mib = 1 << 20
        site.provider.create(site.spec("replica", "boot-1", exit_code=1, message="line\n" * (21 * mib // 5)))
        wait_until(site.provider, "replica", ReplicaState.EXITED)
        pieces = list(site.provider.follow_logs("replica", offset=0))
        assert pieces[-1][0] > 21 * mib - 5
        assert 12 * mib < sum(len(text) for _, text in pieces) < 17 * mib
        assert "exit code 1" in site.provider.logs("replica", tail_bytes=200)

    def test_an_engine_that_is_not_there(self, site: SlurmSite) -> None:
        site.make_provider(slurm_engine="/nowhere/slipway-serve").create(site.spec("replica", "boot-1"))
        ended = wait_until(site.provider, "replica", ReplicaState.EXITED)
        assert (ended.exit_code, ended.node) == (127, "node1")
        assert "/nowhere/slipway-serve cannot be started" in (ended.reason or "")
        assert "SLIPWAY_SLURM_ENGINE" in site.provider.logs("replica", tail_bytes=4096)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slurm_url": ""}, "does not know its cluster"),
        ({"slurm_user": "no-such-user"}, "no user here"),
    ],
)
def test_settings_that_cannot_work(site: SlurmSite, changes: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=message) as refused:
        site.make_provider(**changes)
    assert "SLIPWAY_SLURM_" in refused.value.next_step


@pytest.mark.parametrize("partition", ["gpus", ""])
def test_the_partition(site: SlurmSite, partition: str) -> None:
    provider = site.make_provider(slurm_partition=partition)
    if partition:
        assert "no partition 'gpus'" in (provider.offers()[0].why_unavailable or "")
    else:
        assert provider.offers()[0].available, "the cluster's default"


def refusal(provider: SlurmProvider) -> ProviderUnavailable:
    """Why the provider cannot list now."""
    try:
        provider.list_owned()
    except ProviderUnavailable as error:
        return error
    return ProviderUnavailable("it could", "")
