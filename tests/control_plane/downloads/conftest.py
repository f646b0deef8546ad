"""What the tests of downloads share: a small repository on the hub, a cache, and a desk from which rows are handled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import pytest

from control_plane.accounts.tables import Team, User
from control_plane.context import Context
from control_plane.database import Database
from control_plane.downloads import repository, service
from control_plane.downloads.remote import Repository
from control_plane.downloads.retry import Backoff
from control_plane.downloads.selection import select_files
from control_plane.downloads.tables import Download, DownloadFile
from control_plane.downloads.transfer import Transfer, TransferOptions
from control_plane.downloads.worker import DownloadWorker, WorkerOptions
from control_plane.hub.source import RepositoryFile
from control_plane.instances.lifecycle import Phase
from control_plane.instances.tables import Desired, Instance
from control_plane.settings import Settings
from tests.hub import HubServer, models
from tests.support.clock import FakeClock

KIB = 1 << 10
MIB = 1 << 20
#: Quick to give up, so that tests of failures do not wait.
QUICK = TransferOptions(
    connections=4,
    range_bytes=64 * KIB,
    connect_timeout_s=5,
    read_timeout_s=5,
    backoff=Backoff(attempts=3, first_s=0.01, longest_s=0.02),
    disk_margin_bytes=0,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, no offline mode and no cache of the person who runs the tests."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Published:
    """A repository on the test hub at one commit."""

    hub: HubServer
    model: str
    sha: str
    folder: Path

    @property
    def listing(self) -> list[RepositoryFile]:
        """All its files, as the hub lists them."""
        files = self.hub.repositories[self.model].commits[self.sha].files.values()
        return [RepositoryFile(f.path, f.size, f.etag, f.sha256) for f in files]

    @property
    def wanted(self) -> list[RepositoryFile]:
        return select_files(self.listing)

    @property
    def repository(self) -> Repository:
        return Repository(self.hub.url, self.model, self.sha)

    def transfer(
        self, root: Path, options: TransferOptions = QUICK, *, token: str | None = None, offline: bool = False
    ) -> Transfer:
        return Transfer(replace(self.repository, token=token), self.wanted, root, options, offline=offline)

    def fetch(
        self, root: Path, options: TransferOptions = QUICK, *, token: str | None = None, offline: bool = False
    ) -> Path:
        return asyncio.run(self.transfer(root, options, token=token, offline=offline).run())

    def assert_equal(self, snapshot: Path) -> None:
        """The snapshot holds the wanted files and nothing else, byte for byte."""
        found = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if not path.is_dir()}
        assert found == {file.path for file in self.wanted}
        for file in self.wanted:
            assert (snapshot / file.path).read_bytes() == (self.folder / file.path).read_bytes(), file.path


@pytest.fixture(scope="session")
def big_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with 2 MiB of padding: 32 ranges of 64 KiB and a bit."""
    return models.big_model(tmp_path_factory.mktemp("big") / "model", 2 * MIB)


@pytest.fixture
def big(hub: HubServer, big_folder: Path) -> Published:
    """``org/big`` on the hub."""
    return Published(hub, "org/big", hub.add_repo("org/big", big_folder), big_folder)


@dataclass
class Desk:
    """Rows, hints and workers of one test."""

    database: Database
    clock: FakeClock
    data_dir: Path
    hints: list[tuple[str, UUID]] = field(default_factory=list)
    options: WorkerOptions = field(default_factory=lambda: WorkerOptions(transfer=QUICK, report_interval_s=0.05))

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.data_dir, stall_after_s=15)

    @property
    def context(self) -> Context:
        return Context(self.settings, self.database, self.clock, {}, lambda task, row: self.hints.append((task, row)))

    def ensure(self, published: Published, listing: list[RepositoryFile] | None = None) -> Download:
        with self.database.transaction() as session:
            return service.ensure_download(
                session,
                self.context,
                endpoint=published.hub.url,
                model=published.model,
                commit_sha=published.sha,
                files=published.listing if listing is None else listing,
            )

    def worker(self, shutdown: threading.Event | None = None, **transfer: object) -> DownloadWorker:
        options = replace(self.options, transfer=replace(self.options.transfer, **transfer))  # type: ignore[arg-type]
        return DownloadWorker(self.context, shutdown, options)

    def run(self, download: Download, **transfer: object) -> Download:
        self.worker(**transfer).run(download.id)
        return self.row(download)

    @contextmanager
    def running(self, download: Download, shutdown: threading.Event | None = None) -> Iterator[threading.Thread]:
        """A worker at it in another thread; joined at the end."""
        thread = threading.Thread(target=self.worker(shutdown).run, args=(download.id,))
        thread.start()
        try:
            yield thread
        finally:
            thread.join(30)
            assert not thread.is_alive()

    def row(self, download: Download) -> Download:
        with self.database.reading() as session:
            row = repository.get(session, download.id)
            assert row is not None
            return row

    def files(self, download: Download) -> list[DownloadFile]:
        with self.database.reading() as session:
            return repository.files(session, download.id)

    def instance(self, download: Download, name: str, *, revision: str = "main") -> UUID:
        """A live instance that waits for ``download``."""
        now = self.clock.now()
        with self.database.transaction() as session:
            team = Team(name=f"team of {name}", created_at=now)
            user = User(email=f"{name}@example.org", name=name, created_at=now)
            session.add_all([team, user])
            session.flush()
            instance = Instance(
                team_id=team.id,
                created_by=user.id,
                name=name,
                slug=name,
                model=download.model,
                provider="local",
                revision=revision,
                download_id=download.id,
                phase=Phase.DOWNLOADING,
                reason="",
                since=now,
                created_at=now,
            )
            session.add(instance)
            return instance.id

    def give_up(self, instance_id: UUID, download: Download) -> bool:
        """The owner terminates an instance; its download is no longer wanted by it."""
        with self.database.transaction() as session:
            instance = session.get(Instance, instance_id)
            assert instance is not None
            instance.desired = Desired.TERMINATED
            session.add(instance)
            return service.cancel(session, self.context, download)


@pytest.fixture
def desk(database: Database, clock: FakeClock, tmp_path: Path) -> Desk:
    """On both databases."""
    return Desk(database, clock, tmp_path / "data")
