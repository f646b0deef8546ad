"""A connection to one host: opened when it is needed, kept, opened anew when it breaks; the supervisor is there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import asyncssh

from control_plane.providers.base import ProviderError, ProviderUnavailable, WeightsMissing
from control_plane.providers.ssh_host.bundle import supervisor_bundle
from control_plane.providers.ssh_host.identity import HostRefused, Identity, private_key, trusted_keys
from control_plane.providers.ssh_host.settings import SshHost

#: sshd permits ten sessions on one connection unless it is told otherwise.
_SESSIONS = 8
_COMMAND_NOT_FOUND = 127


class HostConnection:
    """All traffic with one host. To be used in one event loop.

    :param timeout_s: for connecting, and for each answer.
    """

    def __init__(self, host: SshHost, *, timeout_s: float = 15.0) -> None:
        self.host = host
        self._timeout_s = timeout_s
        self._opening = asyncio.Lock()
        self._sessions = asyncio.Semaphore(_SESSIONS)
        self._connection: asyncssh.SSHClientConnection | None = None
        #: Supervisors that wait for the next request: starting one costs a hundred times as much as asking it.
        self._idle: list[asyncssh.SSHClientProcess[str]] = []
        self._home = ""
        self._failure: tuple[float, Exception] | None = None

    @property
    def state_dir(self) -> str:
        """Where replicas' files are; known once connected."""
        return self.host.state_dir or f"{self._home}/.slipway"

    @property
    def hub_cache(self) -> str:
        """The Hugging Face cache; known once connected."""
        return self.host.hub_cache or f"{self._home}/.cache/huggingface/hub"

    async def connect(self) -> None:
        """Have a connection, with the supervisor at its other end.

        :raises ProviderUnavailable: the host does not answer.
        :raises HostRefused: it is another host, or does not let us in, or has no Python.
        """
        await self._open()

    async def call(self, operation: str, **arguments: Any) -> Any:
        """Have the supervisor do something.

        :raises ProviderUnavailable: the outcome is unknown.
        :raises HostRefused: see :meth:`connect`.
        :raises ProviderError: the supervisor refuses; :class:`WeightsMissing` for the one reason that can be mended.
        """
        connection = await self._open()
        program = f"{self.state_dir}/{supervisor_bundle().name}"
        argv = [self.host.python, "-IS", program, "--root", self.state_dir, "call"]
        answer = await self._ask(connection, argv, json.dumps({"op": operation, **arguments}))
        match answer:
            case {"ok": value}:
                return value
            case {"error": "weights missing", "detail": str(detail), "next_step": str(next_step)}:
                raise WeightsMissing(f"host {self.host.name}: {detail}", next_step)
            case {"error": "refused", "detail": str(detail), "next_step": str(next_step)}:
                raise ProviderError(f"host {self.host.name}: {detail}", next_step)
            case {"detail": str(detail), "next_step": str(next_step)}:
                raise ProviderUnavailable(f"host {self.host.name}: {detail}", next_step)
            case _:
                raise self._unavailable("its supervisor gives an answer that is none")

    async def copy_folder(self, folder: Path) -> str:
        """Bring ``folder`` over, once; returns its path there. Equal content is not sent twice."""
        connection = await self._open()
        digest = await asyncio.to_thread(_digest, folder)
        target = f"{self.state_dir}/models/{digest}"
        try:
            async with self._sessions, connection.start_sftp_client() as sftp:
                if not await sftp.isdir(target):
                    draft = f"{target}.{uuid4().hex}"
                    await sftp.makedirs(f"{self.state_dir}/models", exist_ok=True)
                    await sftp.put(str(folder), draft, recurse=True, follow_symlinks=True)
                    try:
                        await sftp.posix_rename(draft, target)
                    except asyncssh.SFTPError:
                        await sftp.rmtree(draft)
                        if not await sftp.isdir(target):  # somebody else was quicker
                            raise
        except (OSError, asyncssh.Error) as error:
            raise self._unavailable(f"{folder.name} could not be copied: {_words(error)}") from None
        return target

    async def close(self) -> None:
        """Let go of it."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    # Opening.

    async def _open(self) -> asyncssh.SSHClientConnection:
        asked = time.monotonic()
        async with self._opening:
            if self._connection is not None and not self._connection.is_closed():
                return self._connection
            if self._failure is not None and self._failure[0] >= asked:
                raise self._failure[1]  # of the attempt that we waited for: another one would fail in the same way
            try:
                async with AsyncExitStack() as stack:
                    connection = await self._connect()
                    stack.callback(connection.abort)
                    await self._bootstrap(connection)
                    stack.pop_all()
            except (ProviderUnavailable, HostRefused) as error:
                self._failure = (time.monotonic(), error)
                raise
            self._connection, self._failure = connection, None
            self._idle.clear()  # they went with the old connection
            return connection

    async def _connect(self) -> asyncssh.SSHClientConnection:
        host, identity = self.host, Identity(self.host)
        trusted, key = trusted_keys(host), private_key(host)
        try:
            return await asyncssh.connect(
                host.address,
                host.port,
                username=host.user,
                client_keys=[key],
                known_hosts=trusted,
                client_factory=lambda: identity,
                config=None,
                agent_path=None,
                preferred_auth="publickey",
                connect_timeout=self._timeout_s,
                login_timeout=self._timeout_s,
                keepalive_interval=5,
                keepalive_count_max=2,
            )
        except asyncssh.HostKeyNotVerifiable:
            raise identity.refusal() from None
        except asyncssh.PermissionDenied:
            raise HostRefused(
                f"host {host.name} does not let {host.user} in with the key of {host.key_file}",
                f"Add its public key to ~{host.user}/.ssh/authorized_keys on the host, or correct ssh_hosts.",
            ) from None
        except (OSError, asyncssh.Error) as error:
            raise self._unavailable(_words(error)) from None

    async def _bootstrap(self, connection: asyncssh.SSHClientConnection) -> None:
        """Have the supervisor of this version there, byte for byte."""
        bundle = supervisor_bundle()
        try:
            async with asyncio.timeout(self._timeout_s), connection.start_sftp_client() as sftp:
                self._home = str(await sftp.realpath(".")).rstrip("/")
                target = f"{self.state_dir}/{bundle.name}"
                await sftp.makedirs(self.state_dir, asyncssh.SFTPAttrs(permissions=0o700), exist_ok=True)
                if await _content(sftp, target) != bundle.content:
                    draft = f"{target}.{uuid4().hex}"
                    async with sftp.open(draft, "wb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                        await file.write(bundle.content)
                    await sftp.posix_rename(draft, target)
        except asyncssh.SFTPError as error:
            detail = f"host {self.host.name}: the supervisor cannot be put into {self.state_dir}: {error.reason}"
            raise HostRefused(detail, "Name a folder that the user may write as state_dir in ssh_hosts.") from None
        except (OSError, asyncssh.Error) as error:
            raise self._unavailable(_words(error)) from None

    # Asking.

    async def _ask(self, connection: asyncssh.SSHClientConnection, argv: list[str], request: str) -> Any:
        """Send one line to a supervisor and read one; what a login script prints before is passed over."""
        try:
            async with self._sessions, asyncio.timeout(self._timeout_s), AsyncExitStack() as stack:
                supervisor = self._idle.pop() if self._idle else await connection.create_process(shlex.join(argv))
                stack.callback(supervisor.close)  # unless it answers
                supervisor.stdin.write(request + "\n")
                answer = await _answer(supervisor)
                if answer is None:
                    raise await self._failed(supervisor)
                if connection is self._connection:  # else it goes with the old one
                    stack.pop_all()
                    self._idle.append(supervisor)
                return answer
        except (OSError, asyncssh.Error) as error:
            raise self._unavailable(_words(error)) from None

    async def _failed(self, supervisor: asyncssh.SSHClientProcess[str]) -> ProviderUnavailable | HostRefused:
        """Why a supervisor ended without an answer."""
        said = (await supervisor.stderr.read()).strip().splitlines()
        await supervisor.wait_closed()
        if supervisor.exit_status == _COMMAND_NOT_FOUND:
            detail = f"host {self.host.name} has no {self.host.python}"
            return HostRefused(detail, "Install Python 3.8 or newer there, or name it as python in ssh_hosts.")
        return self._unavailable(f"its supervisor failed: {said[-1][:300] if said else 'no output'}")

    def _unavailable(self, what: str) -> ProviderUnavailable:
        host = self.host
        return ProviderUnavailable(
            f"host {host.name} ({host.address}:{host.port}) cannot be asked: {what}",
            "Check the host and the network; what runs there goes on. A host that is gone for good is taken out of "
            "ssh_hosts.",
        )


async def _answer(supervisor: asyncssh.SSHClientProcess[str]) -> Any:
    """The next line that is an answer; None when it says no more."""
    text = ""
    while chunk := await supervisor.stdout.read(1 << 16):
        text += chunk
        while "\n" in text:
            line, _, text = text.partition("\n")
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and ("ok" in value or "error" in value):
                return value
    return None


async def _content(sftp: asyncssh.SFTPClient, path: str) -> bytes | None:
    try:
        async with sftp.open(path, "rb") as file:
            content = await file.read()
            return cast(bytes, content)  # opened as binary, which its type does not say
    except asyncssh.SFTPNoSuchFile:
        return None


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "reason", "") or error or type(error).__name__)


def _digest(folder: Path) -> str:
    """Of every file's name and content."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
