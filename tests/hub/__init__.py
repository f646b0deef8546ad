"""A model hub for tests: the Hugging Face HTTP API over loopback, with faults that a test switches on and off."""

from tests.hub.faults import Faults
from tests.hub.repository import HubFile, HubRepository
from tests.hub.server import HubServer, RequestRecord

__all__ = ["Faults", "HubFile", "HubRepository", "HubServer", "RequestRecord"]
