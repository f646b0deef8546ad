"""A worker process of its own, for tests that kill it: ``python -m … DATABASE_URL DATA_DIR DOWNLOAD_ID``."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

from control_plane.clock import SYSTEM_CLOCK
from control_plane.context import Context
from control_plane.database import Database
from control_plane.downloads.transfer import TransferOptions
from control_plane.downloads.worker import DownloadWorker, WorkerOptions
from control_plane.settings import Settings

if __name__ == "__main__":
    database_url, data_dir, download_id = sys.argv[1:]
    context = Context(Settings(data_dir=Path(data_dir)), Database(database_url), SYSTEM_CLOCK, {}, lambda *_: None)
    transfer = TransferOptions(connections=4, range_bytes=512 << 10, disk_margin_bytes=0)
    options = WorkerOptions(transfer=transfer, report_interval_s=0.05)
    DownloadWorker(context, options=options).run(UUID(download_id))
