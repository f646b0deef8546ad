"""What the API says of our own processes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ProcessState(StrEnum):
    """How a process does: ``idle`` is a worker that lives and takes no tasks; ``ended`` was silent for long."""

    ALIVE = "alive"
    IDLE = "idle"
    SILENT = "silent"
    ENDED = "ended"


class ProcessView(BaseModel):
    """One process; ``words`` says its state in a sentence, ``age_s`` is how long ago it was seen."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    last_task_at: datetime | None
    age_s: float = 0.0
    state: ProcessState = ProcessState.ALIVE
    words: str = ""


class Backlog(BaseModel):
    """Rows that have been due for longer than ``older_than_s`` seconds and that nobody has claimed."""

    instances: int
    downloads: int
    older_than_s: float

    @property
    def words(self) -> str:
        """For a person."""
        if not self.instances and not self.downloads:
            return f"no row has waited for more than {self.older_than_s:g} s"
        counted = ((self.instances, "instance"), (self.downloads, "download"))
        waiting = [f"{count} {noun}{'s' if count > 1 else ''}" for count, noun in counted if count]
        return f"rows wait that nobody claims: {' and '.join(waiting)} older than {self.older_than_s:g} s"


class WorkersView(BaseModel):
    """``GET /admin/workers``."""

    items: list[ProcessView]
    waiting: Backlog
