"""The pod of a replica or an agent: confined, and placed where it may run."""

from __future__ import annotations

from control_plane.providers.kubernetes_api.client import Json
from control_plane.providers.kubernetes_api.options import ClusterOptions

GPU_RESOURCE = "nvidia.com/gpu"
CONTAINER = "slipway"
#: What an eviction gives requests in flight; our own deletions say how long.
EVICTION_GRACE_S = 60
#: Where a pod finds its secret (``secret``), and the certificates that an agent trusts (``ca.crt``).
SECRETS, AUTHORITY = "/run/secrets/slipway", "/run/secrets/slipway-ca"
#: What a pod that shares its node's network listens at.
NODE_ADDRESS = "$(NODE_ADDRESS)"

#: The user of the serving image; files of the image are readable by all.
_RUN_AS = 10001
_WEIGHTS = "/weights"


def confined(options: ClusterOptions, container: Json, *, secret: str, offline: bool) -> Json:
    """A pod that may do nothing but compute: no rights in the cluster, no root, no writing but to its own scratch."""
    container |= {
        "name": CONTAINER,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(options, offline=offline),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "secret", "mountPath": SECRETS, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - of the container
        ],
    }
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _RUN_AS,
            "runAsGroup": _RUN_AS,
            "fsGroup": _RUN_AS,
            "fsGroupChangePolicy": "OnRootMismatch",  # the other policy walks all the weights at every start
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": EVICTION_GRACE_S,
        "containers": [container],
        "volumes": [
            {"name": "secret", "secret": {"secretName": secret, "defaultMode": 0o440}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
    if options.access == "host":
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if options.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": options.image_pull_secret}]
    return pod


def mount_weights(pod: Json, options: ClusterOptions, *, read_only: bool) -> None:
    """Give ``pod`` everybody's weights, where ``HF_HOME`` says that they are."""
    mount = {"name": "weights", "mountPath": _WEIGHTS, "readOnly": read_only}
    pod["containers"][0]["volumeMounts"].append(mount)
    pod["volumes"].append({"name": "weights", "persistentVolumeClaim": {"claimName": options.claim_name}})


def _environment(options: ClusterOptions, *, offline: bool) -> list[Json]:
    values = {"HOME": "/tmp", "HF_HOME": _WEIGHTS, "PYTHONUNBUFFERED": "1"}  # noqa: S108 - of the container
    if offline:
        values["HF_HUB_OFFLINE"] = "1"  # weights are here already; an engine has no reason to talk to the hub
    environment: list[Json] = [{"name": name, "value": value} for name, value in values.items()]
    if options.access == "host":
        address = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIP"}}
        environment.append({"name": "NODE_ADDRESS", "valueFrom": address})
    return environment


def probe(path: str, port: int, *, every_s: int, failures: int) -> Json:
    """A question that the kubelet asks; it acts after so many bad answers in a row."""
    request = {"path": path, "port": port, "scheme": "HTTP"}
    return {"httpGet": request, "periodSeconds": every_s, "timeoutSeconds": 5, "failureThreshold": failures}


def tolerations(options: ClusterOptions, *, gpu: bool) -> list[Json]:
    """Which taints do not matter; a silent node matters after ``node_loss_s`` seconds."""
    lost = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": options.node_loss_s}
        for key in ("not-ready", "unreachable")
    ]  # fmt: skip
    devices = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}] if gpu else []
    return [*options.tolerations, *devices, *lost]


def literally(argument: str) -> str:
    """Kubernetes expands ``$(NAME)`` in arguments; only our own reference to the node's address is meant."""
    return argument if argument == f"--host={NODE_ADDRESS}" else argument.replace("$(", "$$(")
