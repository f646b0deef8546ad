"""What ``slipway status`` shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx

from control_plane import client_file
from control_plane.settings import Settings
from control_plane.supervisor.data_folder import Holder, read_processes
from control_plane.supervisor.supervisor import ProcessReport


@dataclass(frozen=True)
class Status:
    """The supervisor, its processes, and instances counted by phase (None while the API does not answer)."""

    pid: int
    url: str
    version: str
    started_at: str
    data_dir: str
    processes: list[ProcessReport]
    instances: dict[str, int] | None

    def text(self) -> str:
        """For a person."""
        rows = [("PROCESS", "STATE", "PID", "RESTARTS", "LOG")]
        rows += [(p.name, str(p.state), str(p.pid or "-"), str(p.restarts), p.log) for p in self.processes]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        head = f"Slipway {self.version} at {self.url}, process {self.pid} since {self.started_at}, data {self.data_dir}"
        return "\n".join([head, *table, f"instances: {self._instances()}"])

    def _instances(self) -> str:
        if self.instances is None:
            return "unknown, the API does not answer"
        return ", ".join(f"{count} {phase}" for phase, count in sorted(self.instances.items())) or "none"


def read_status(settings: Settings, holder: Holder) -> Status:
    """What runs now."""
    return Status(
        **{name: getattr(holder, name) for name in ("pid", "url", "version", "started_at")},
        data_dir=str(settings.data_dir),
        processes=read_processes(settings),
        instances=_count_instances(settings),
    )


def _count_instances(settings: Settings) -> dict[str, int] | None:
    client = client_file.read(settings.data_dir)
    if client is None:
        return None
    phases: Counter[str] = Counter()
    cursor: str | None = None
    headers = {"Authorization": f"Bearer {client.api_key}"}
    try:
        with httpx.Client(base_url=client.url, headers=headers, timeout=5, trust_env=False) as http:
            while True:
                page: dict[str, Any] = (
                    http.get("/api/v1/instances", params={"cursor": cursor} if cursor else None)
                    .raise_for_status()
                    .json()
                )
                phases.update(item["phase"] for item in page["items"])
                cursor = page["next_cursor"]
                if cursor is None:
                    return dict(phases)
    except (httpx.HTTPError, ValueError):
        return None
