"""The Slurm provider on a real cluster of two nodes with eight pretended GPUs each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.control_plane.providers.contract import ProviderContract
from tests.support.slurm import SlurmCluster, running_slurm
from tests.support.slurm_site import SlurmSite


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    with running_slurm() as cluster:
        yield cluster


@pytest.fixture
def site(cluster: SlurmCluster) -> Iterator[SlurmSite]:
    site = SlurmSite(cluster)
    yield site
    site.clear()


class TestContract(ProviderContract):
    """What every provider must do."""
