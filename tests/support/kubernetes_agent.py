"""The real download agent as a layer of a test image, and a way for it to the control plane on this machine."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path

from tests.support.https import Certificate
from tests.support.kubernetes_image import File

_ROOT = Path(__file__).parents[2]
_PROGRAM = b"""#!/usr/bin/python3
import sys
sys.path.insert(0, "/opt/agent")
from control_plane.agent.__main__ import main
sys.exit(main())
"""
#: Of the control plane, what the agent imports; it takes care that this is little.
_MODULES = """
import sys, control_plane.agent.__main__
print("\\n".join(m.__file__ for name, m in sys.modules.items() if name.startswith("control_plane")))
"""
_PACKAGES = ("anyio", "certifi", "h11", "httpcore", "httpx", "idna", "typing-extensions")


def agent_files() -> dict[str, File]:
    """``slipway-agent`` with what it imports and Debian's Python does not bring."""
    argv = [sys.executable, "-c", _MODULES]
    modules = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=_ROOT, timeout=60).stdout.split()
    files = {f"/opt/agent/{Path(module).relative_to(_ROOT)}": File(Path(module).read_bytes()) for module in modules}
    for package in _PACKAGES:
        for file in distribution(package).files or ():
            if file.suffix in (".py", ".pem"):
                files[f"/opt/agent/{file}"] = File(file.read_binary())
    return files | {"/usr/local/bin/slipway-agent": File(_PROGRAM, 0o755)}


@contextmanager
def behind_tls(address: str, port: int, certificate: Certificate, target: list[int]) -> Iterator[None]:
    """TLS at ``address`` in front of the loopback port ``target[-1]``, once there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with socket.create_server((address, port)) as listener:
        threading.Thread(target=_accept, args=(listener, context, target), daemon=True).start()
        try:
            yield
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, target: list[int]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_relay, args=(connection, context, target), daemon=True).start()


def _relay(connection: socket.socket, context: ssl.SSLContext, target: list[int]) -> None:
    with suppress(OSError, IndexError), context.wrap_socket(connection, server_side=True) as outer:
        inner = socket.create_connection(("127.0.0.1", target[-1]))
        with inner:
            answers = threading.Thread(target=_copy, args=(inner, outer), daemon=True)
            answers.start()
            _copy(outer, inner)
            answers.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
