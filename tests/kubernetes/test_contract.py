"""The contract of providers, on real kubelets."""

from __future__ import annotations

from tests.control_plane.providers.contract import ProviderContract


class TestKubernetes(ProviderContract):
    """A replica is a StatefulSet with a pod on one of two nodes."""
