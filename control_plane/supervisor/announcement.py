"""What ``slipway up`` tells once everything runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Announcement:
    """Addresses, and a command that works as printed. ``setup_url`` is there only while nobody can administer."""

    url: str
    setup_url: str | None
    starter: str | None
    api_url: str | None
    curl: str | None

    def text(self) -> str:
        """For a person."""
        lines = ["", "Slipway is running. Ctrl-C stops it and everything it started.", "", f"  page      {self.url}"]
        if self.setup_url:
            lines.append(f"  set-up    {self.setup_url}   (once: makes the first administrator)")
        if self.starter:
            lines.append(f"  starter   {self.starter}")
        if self.api_url:
            lines.append(f"  API URL   {self.api_url}")
        if self.curl:
            lines += ["", "Try it:", "", f"  {self.curl}"]
        return "\n".join([*lines, ""])
