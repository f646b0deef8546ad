"""The supervisor as one file: a zip that Python runs, the same bytes for the same sources."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from control_plane.providers.ssh_host.supervisor import __name__ as _PACKAGE

_MAIN = f"from {_PACKAGE}.__main__ import main\n\nmain()\n"
#: Zip files know no earlier time; a fixed one makes equal sources equal bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


class Bundle(NamedTuple):
    """``name`` holds the digest of ``content``: another version has another name, and both can be in use."""

    name: str
    content: bytes


@lru_cache
def supervisor_bundle() -> Bundle:
    """The supervisor of this version."""
    files = {"__main__.py": _MAIN}
    parts = _PACKAGE.split(".")
    for depth in range(1, len(parts)):
        files["/".join([*parts[:depth], "__init__.py"])] = ""
    for path in sorted((Path(__file__).parent / "supervisor").glob("*.py")):
        files["/".join([*parts, path.name])] = path.read_text()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), text)
    content = buffer.getvalue()
    return Bundle(f"supervisor-{hashlib.sha256(content).hexdigest()[:24]}.pyz", content)
