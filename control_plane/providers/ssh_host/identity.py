"""Is it the host that the settings mean? Nothing is sent to one that is not."""

from __future__ import annotations

from typing import Any

import asyncssh

from control_plane.providers.base import ProviderError
from control_plane.providers.ssh_host.settings import SshHost


class HostRefused(ProviderError):
    """A host cannot be used as the settings have it."""

    code = "host_refused"


class Identity(asyncssh.SSHClient):
    """One connection's check: accepts the key that the settings name, remembers the one that was presented."""

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self.presented: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Called for a key that :func:`trusted_keys` did not vouch for."""
        del host, addr, port
        self.presented = key
        return bool(self._host.host_key) and key.get_fingerprint("sha256") == self._host.host_key.strip()

    def refusal(self) -> HostRefused:
        """Why it is not the host, and what a person can do."""
        host, key = self._host, self.presented
        if key is None:
            return HostRefused(f"host {host.name} proved its identity with no key that can be checked", _COMPARE)
        seen = f"{key.get_algorithm()} {key.get_fingerprint('sha256')}"
        if not host.host_key and host.known_hosts is None:
            return HostRefused(
                f"host {host.name} ({host.address}:{host.port}) is not known yet; its key is {seen}",
                f'Compare that with "ssh-keygen -lf" on the host; if it is the same, set host_key = '
                f'"{key.get_fingerprint("sha256")}" for {host.name} in ssh_hosts.',
            )
        expected = host.host_key or f"a key in {host.known_hosts}"
        return HostRefused(
            f"host {host.name} ({host.address}:{host.port}) has another key than expected: {seen}, not {expected}",
            _COMPARE,
        )


_COMPARE = (
    "Somebody may stand between you and the host. If it was set up anew, compare the key on the host itself "
    '("ssh-keygen -lf") and correct host_key or known_hosts in ssh_hosts.'
)


def trusted_keys(host: SshHost) -> Any:
    """What asyncssh calls ``known_hosts``: keys that need no further question.

    :raises HostRefused: the settings cannot be read.
    """
    if host.known_hosts is not None:
        try:
            return asyncssh.read_known_hosts(str(host.known_hosts.expanduser()))
        except (OSError, ValueError) as error:
            raise HostRefused(
                f"known_hosts of host {host.name} cannot be read: {error}", "Correct ssh_hosts."
            ) from None
    if host.host_key and not host.host_key.startswith("SHA256:"):
        try:
            return [asyncssh.import_public_key(host.host_key)], [], []
        except asyncssh.KeyImportError as error:
            detail = f"host_key of host {host.name} is neither a public key nor a fingerprint (SHA256:…): {error}"
            raise HostRefused(detail, "Correct ssh_hosts.") from None
    return [], [], []


def private_key(host: SshHost) -> asyncssh.SSHKey:
    """The key that lets us in.

    :raises HostRefused: it cannot be read.
    """
    try:
        return asyncssh.read_private_key(str(host.key_file.expanduser()))
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        detail = f"the key file of host {host.name} cannot be used: {error}"
        raise HostRefused(detail, "Name a private key without a passphrase as key_file in ssh_hosts.") from None
