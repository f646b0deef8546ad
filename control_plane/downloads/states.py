"""Where a download stands. Apart from the tables, because agents know these words and no database."""

from __future__ import annotations

from enum import StrEnum


class DownloadState(StrEnum):
    """Where a download stands.

    ::

        queued ─► downloading ─► verifying ─► done
           │           │             │
           └───────────┴─────────────┴─► failed | cancelled ─► queued (asked for again; finished bytes are kept)
    """

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_STATES = frozenset({DownloadState.DONE, DownloadState.FAILED, DownloadState.CANCELLED})
