"""slurmrestd over HTTP: version 0.0.38 of its API, which Slurm 22.05 to 23.11 serve.

It answers errors of the controller with status 500 and a list in the body; some of them mean "no", others "not now".
"""

from __future__ import annotations

from typing import Any

import httpx

from control_plane.providers.base import ProviderError, ProviderUnavailable
from control_plane.providers.slurm_jobs.job import Job
from control_plane.providers.slurm_jobs.node import Node, Partition
from control_plane.providers.slurm_jobs.token import TokenSource

API = "/slurm/v0.0.38"
_INVALID_JOB_ID = 2017
#: slurm_errno.h: from 2000 on the controller has understood and refuses; below, and from 3000 on, it was not reached.
_REFUSALS = range(2000, 3000)
#: Of the refusals, those that pass: cannot make a record now, cannot be altered now, standby, disabled, spooling …
_PASSING = frozenset({2007, 2019, 2020, 2027, 2037, 2061, 2103, 2105, 2125, 2131})
_HINTS = {
    2000: "Set SLIPWAY_SLURM_PARTITION to one that 'sinfo' lists.",
    2014: "Choose hardware that one node has: 'sinfo -o \"%N %c %m %G\"' lists it.",
    2050: "Ask the cluster's administrator about your limits, or stop another instance.",
    2051: "Set SLIPWAY_SLURM_TIME_LIMIT_S to at most what the partition permits.",
}


class SlurmRest:
    """One cluster's REST API, asked as one user."""

    def __init__(self, url: str, tokens: TokenSource, *, timeout_s: float = 8.0) -> None:
        self._tokens = tokens
        self._url = url
        self._client = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def submit(self, job: dict[str, Any], script: str) -> int:
        """Queue a batch job; its id. Not idempotent: when the answer is lost, the job may be there all the same.

        :raises ProviderError: Slurm will never run it.
        :raises ProviderUnavailable: the outcome is unknown.
        """
        return int(self._ask("POST", "/job/submit", {"job": job, "script": script})["job_id"])

    def jobs(self) -> list[Job]:
        """Every job that this user may see, those included that ended a short while ago (``MinJobAge``)."""
        return [Job.from_json(value) for value in self._ask("GET", "/jobs")["jobs"]]

    def job(self, job_id: int) -> Job | None:
        """One job; None when Slurm does not know it (any more)."""
        try:
            (value,) = self._ask("GET", f"/job/{job_id}")["jobs"]
        except _UnknownJob:
            return None
        return Job.from_json(value)

    def cancel(self, job_id: int) -> None:
        """End a job: dropped if it waits; else SIGTERM, and SIGKILL after the cluster's ``KillWait``."""
        try:
            self._ask("DELETE", f"/job/{job_id}")
        except _UnknownJob:
            return

    def nodes(self) -> list[Node]:
        """Every node."""
        return [Node.from_json(value) for value in self._ask("GET", "/nodes")["nodes"]]

    def partitions(self) -> list[Partition]:
        """Every partition."""
        return [Partition.from_json(value) for value in self._ask("GET", "/partitions")["partitions"]]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"X-SLURM-USER-NAME": self._tokens.user, "X-SLURM-USER-TOKEN": self._tokens.token()}
        try:
            answer = self._client.request(method, API + path, json=body, headers=headers)
        except httpx.HTTPError as error:
            detail = f"slurmrestd at {self._url} does not answer ({error or type(error).__name__})"
            raise ProviderUnavailable(detail, "Start slurmrestd, or correct SLIPWAY_SLURM_URL.") from error
        try:
            value = answer.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise _no_api(answer, self._url)
        if value.get("errors"):
            raise _refusal(value["errors"][0], self._tokens.user)
        return value


class _UnknownJob(ProviderError):
    """Slurm does not know a job of this id."""


def _no_api(answer: httpx.Response, url: str) -> ProviderUnavailable:
    detail = f"slurmrestd at {url} answers {answer.status_code}: {answer.text.strip()[:200] or 'nothing'}"
    if answer.status_code == 401:
        return ProviderUnavailable(detail, "Start slurmrestd with '-a rest_auth/jwt', and renew the token.")
    return ProviderUnavailable(detail, f"It must serve {API} ('slurmrestd -s openapi/v0.0.38').")


def _refusal(error: dict[str, Any], user: str) -> ProviderError | ProviderUnavailable:
    number = int(error.get("error_number") or error.get("error_code") or 0)
    words = str(error.get("error") or error.get("description") or "no reason given")
    if number == _INVALID_JOB_ID:
        return _UnknownJob(words)
    if number in _REFUSALS and number not in _PASSING:
        hint = _HINTS.get(number, "Ask the cluster's administrator what this means.")
        return ProviderError(f"Slurm refuses: {words}", hint)
    if number in {-1, 5005}:
        # All that slurmrestd sees when the controller is away, and when it hangs up on a token it does not accept.
        detail = f"Slurm's controller gave no answer ({words}): it is away, or does not accept {user!r}'s token"
        step = f"'scontrol ping' tells which; 'scontrol token username={user}' makes a new token."
        return ProviderUnavailable(detail, step)
    return ProviderUnavailable(f"Slurm cannot be asked: {words}", "Look whether slurmctld runs: 'scontrol ping'.")
