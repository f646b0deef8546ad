"""What the control plane is told of a host: one ``[[ssh_hosts]]`` table of ``slipway.toml``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_HostPath = Annotated[str, Field(max_length=1024, pattern=r"^/[^\x00\n]*$")]


class SshHost(BaseModel):
    """A machine that is reached by SSH, with Python 3.8 or newer and Slipway's engine on it.

    :ivar name: what people call it here; part of its hardware's id.
    :ivar key_file: the private key that lets us in; without a passphrase.
    :ivar host_key: by what the host is recognised: its public key (``ssh-ed25519 AAAA…``), or that key's fingerprint
        (``SHA256:…``).
    :ivar known_hosts: or a file in the format of OpenSSH's ``known_hosts`` that has it.
    :ivar engine: ``slipway-serve`` over there: a path, or a name on the PATH of a login without a terminal.
    :ivar agent: ``slipway-agent`` over there; the default is beside the engine.
    :ivar state_dir: where replicas' files are kept; the default is ``~/.slipway`` over there.
    :ivar hub_cache: the Hugging Face cache; the default is the one of that user.
    :ivar replica_address: where replicas listen, and where this machine reaches them; the default is ``address``.
    :ivar agent_ca_file: over there, the certificate of the CA that signed the control plane's.
    :ivar price_per_hour: US dollars, of one device, or of the machine for processors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    address: str = Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:-]+$")
    port: int = Field(default=22, ge=1, le=65535)
    user: str = Field(min_length=1, max_length=64)
    key_file: Path
    host_key: str = ""
    known_hosts: Path | None = None
    python: str = "python3"
    engine: str = "slipway-serve"
    agent: str = ""
    state_dir: _HostPath | None = None
    hub_cache: _HostPath | None = None
    replica_address: str = ""
    agent_ca_file: _HostPath | None = None
    price_per_hour: float = Field(default=0.0, ge=0)

    @property
    def agent_program(self) -> str:
        """``slipway-agent`` over there."""
        return self.agent or str(PurePosixPath(self.engine).with_name("slipway-agent"))

    @property
    def listen_address(self) -> str:
        """Where replicas listen."""
        return self.replica_address or self.address
