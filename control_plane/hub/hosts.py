"""Which hosts answer for a hub, and which of them may see a token."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

#: Where huggingface.co keeps large files.
_HUGGING_FACE = "huggingface.co"
_HUGGING_FACE_HOSTS = (".huggingface.co", ".hf.co")


@dataclass(frozen=True)
class HubHosts:
    """The hosts that answer for a hub: that of its endpoint, and for huggingface.co Hugging Face's storage as well.

    Hosts are compared whole after parsing, never by prefix; the scheme may not fall from https to http.
    """

    endpoint: str

    def allows(self, url: str) -> bool:
        """Whether a request may be redirected to ``url``."""
        if not is_web_address(url):
            return False
        home, target = urlsplit(self.endpoint), urlsplit(url)
        if home.scheme == "https" and target.scheme != "https":
            return False
        if target.username or target.password:
            return False
        if home.hostname == _HUGGING_FACE:
            host = target.hostname or ""
            return host == _HUGGING_FACE or host.endswith(_HUGGING_FACE_HOSTS)
        return _origin(target) == _origin(home)

    def may_see_token(self, url: str) -> bool:
        """Whether the user's token may be sent to ``url``: to the endpoint alone, not to its storage."""
        return _origin(urlsplit(url)) == _origin(urlsplit(self.endpoint))


def is_web_address(url: str) -> bool:
    """Whether ``url`` is an http or https URL with a host."""
    try:
        parsed = urlsplit(url)
        return parsed.scheme in {"http", "https"} and bool(parsed.hostname) and parsed.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        return False


def _origin(url: SplitResult) -> tuple[str | None, int]:
    return url.hostname, url.port or (443 if url.scheme == "https" else 80)
