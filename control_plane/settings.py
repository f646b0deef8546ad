"""Configuration: ``SLIPWAY_*`` environment variables, then ``slipway.toml``, then flags; the later one wins."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from control_plane.provider_settings import ProviderSettings

#: Where a running control plane's command line finds its configuration file.
CONFIG_FILE = "slipway.toml"
#: How a parent process hands its flags, which win over the file, to its children (JSON).
OVERRIDES = "SLIPWAY_OVERRIDES"

_MAXIMUM_SOCKET_DIR_BYTES = 107 - len("/local-host.sock")


class Settings(ProviderSettings, BaseSettings):
    """Everything the control plane can be told. Paths are made absolute; nothing is created by reading them."""

    model_config = SettingsConfigDict(env_prefix="SLIPWAY_", toml_file=CONFIG_FILE, extra="ignore")

    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    #: SQLAlchemy URL; the default is SQLite in the data folder.
    database_url: str = ""
    #: Celery broker; the default is the embedded Redis that ``slipway up`` starts.
    broker_url: str = ""
    #: Root of every derived key. The default is a random one, kept in the data folder (mode 0600).
    secret_key: SecretStr | None = None
    #: Names of providers; in the environment separated by commas.
    providers: Annotated[list[str], NoDecode] = ["local"]
    #: What users type to reach this server, without a trailing slash; the default follows host and port.
    public_url: str = ""
    #: Where download agents reach this server; https, unless they run on this machine. The default is the public URL.
    agent_url: str = ""
    #: Seconds between sweeps over rows that nobody has claimed.
    sweep_interval_s: float = Field(default=2.0, gt=0)
    #: Seconds without a new byte after which a download is shown as stalled.
    stall_after_s: float = Field(default=15.0, gt=0)
    #: Seconds for which a gateway goes by what it knew of keys and instances while the database does not answer.
    gateway_stale_s: float = Field(default=600.0, ge=0)
    #: Seconds a starting replica may go without any sign of progress before it counts as failed.
    start_timeout_s: float = Field(default=600.0, gt=0)
    #: Seconds between two checks of a provider's list against our rows.
    reap_interval_s: float = Field(default=30.0, gt=0)

    @field_validator("providers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over file over environment; no dotenv and no secrets folder."""
        return init_settings, TomlConfigSettingsSource(settings_cls), env_settings

    def model_post_init(self, _context: Any) -> None:
        """Fill the defaults that follow from other values."""
        self.data_dir = self.data_dir.expanduser().absolute()
        if not self.database_url:
            self.database_url = f"sqlite:///{self.data_dir / 'slipway.db'}"
        if not self.broker_url:
            self.broker_url = self._embedded_broker_url
        if not self.public_url:
            self.public_url = self.local_url
        self.public_url = self.public_url.rstrip("/")
        self.agent_url = (self.agent_url or self.public_url).rstrip("/")

    @property
    def local_url(self) -> str:
        """Where the web answers on this machine, whatever address users type."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (a comparison)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def embedded_broker(self) -> bool:
        """Whether ``slipway up`` must run a Redis of its own."""
        return self.broker_url == self._embedded_broker_url

    @property
    def _embedded_broker_url(self) -> str:
        return f"redis+socket://{quote(str(self.redis_socket))}"

    @property
    def run_dir(self) -> Path:
        """Sockets and pid files of the processes that ``slipway up`` runs."""
        return self.data_dir / "run"

    @property
    def socket_dir(self) -> Path:
        """Where Unix sockets are: the run folder, or a short private one where that path is too long for a socket.

        A socket's path has at most 107 bytes (``sun_path`` in unix(7)).
        """
        if len(os.fsencode(self.run_dir)) <= _MAXIMUM_SOCKET_DIR_BYTES:
            return self.run_dir
        digest = hashlib.sha256(os.fsencode(self.run_dir)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"slipway-{os.geteuid()}-{digest}"

    @property
    def redis_socket(self) -> Path:
        """Unix socket of the embedded Redis."""
        return self.socket_dir / "redis.sock"

    @property
    def local_host_socket(self) -> Path:
        """Unix socket of the process that runs local replicas (see providers/local_host.py)."""
        return self.socket_dir / "local-host.sock"

    @property
    def client_header(self) -> Path:
        """This user's key as a header line, for ``curl -H @file``: a secret in a file, not on a command line."""
        return self.data_dir / "client.header"

    @property
    def instances_dir(self) -> Path:
        """One folder per replica: log, key file."""
        return self.data_dir / "instances"

    @property
    def hub_cache(self) -> Path:
        """The Hugging Face cache that downloads fill: ``HF_HUB_CACHE``, ``HF_HOME``/hub, or one in the data folder."""
        if explicit := os.environ.get("HF_HUB_CACHE"):
            return Path(explicit).expanduser()
        if home := os.environ.get("HF_HOME"):
            return Path(home).expanduser() / "hub"
        return self.data_dir / "hub"

    @property
    def hub_endpoint(self) -> str:
        """``HF_ENDPOINT``, as huggingface_hub reads it."""
        return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")

    @property
    def hub_token(self) -> str | None:
        """``HF_TOKEN``, used where no secret of the user's own is named."""
        return os.environ.get("HF_TOKEN") or None

    @property
    def hub_offline(self) -> bool:
        """``HF_HUB_OFFLINE``: use only what is already in the cache."""
        return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}

    @cached_property
    def key_material(self) -> bytes:
        """The root secret; made once and kept in ``data_dir/secret.key`` when none was given."""
        if self.secret_key is not None:
            return self.secret_key.get_secret_value().encode()
        path = self.data_dir / "secret.key"
        if not path.exists():
            self._make_secret_key(path)
        return path.read_bytes()

    @staticmethod
    def _make_secret_key(path: Path) -> None:
        """Put a key at ``path``, complete from the first moment; of two processes that do so at once, one wins."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".secret.key.") as draft:  # mode 0600
            draft.write(secrets.token_hex(32).encode())
            draft.flush()
            with suppress(FileExistsError):
                os.link(draft.name, path)

    def child_environment(self) -> dict[str, str]:
        """Environment that makes a child process read the same settings."""
        given = self.model_dump(mode="json", exclude={"secret_key"}, exclude_unset=True)
        resolved = {name: str(getattr(self, name)) for name in ("data_dir", "database_url", "broker_url", "public_url")}
        return dict(os.environ) | {OVERRIDES: json.dumps(given | resolved)}


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings(**json.loads(os.environ.get(OVERRIDES, "{}")))
