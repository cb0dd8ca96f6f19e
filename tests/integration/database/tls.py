"""TLS before a server that has none: a proxy of the tests, with certificates of their own."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from tests.integration.database.driving import Server

OPENSSL = shutil.which("openssl")

needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the command openssl is not installed")

_SSL_REQUEST = 80877103


def make_certificate(directory: Path, name: str) -> Path:
    """Make a self-signed certificate for 127.0.0.1 and localhost; return its path, beside which the key is."""
    certificate = directory / f"{name}.crt"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(directory / f"{name}.key"), "-out", str(certificate)]
    command = [str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True, timeout=30)
    return certificate


class TlsProxy:
    """Answers PostgreSQL's request for TLS, and passes what comes over it to a server's port."""

    def __init__(self, server: Server, certificate: Path) -> None:
        self._server = server
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: The other end is closed when the proxy is to end.
        self._is_over, self._end = socket.socketpair()
        self._threads = [threading.Thread(target=self._accept, name="tls")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.close()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()
        self._is_over.close()

    def _accept(self) -> None:
        while self._listener in select.select([self._listener, self._is_over], [], [])[0]:
            client, _address = self._listener.accept()
            self._threads.insert(0, threading.Thread(target=self._serve, args=(client,), name="tls"))
            self._threads[0].start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(5)
        with client:
            try:
                if client.recv(8) != struct.pack("!ii", 8, _SSL_REQUEST):
                    return
                client.sendall(b"S")
                with (
                    self._context.wrap_socket(client, server_side=True) as encrypted,
                    socket.create_connection(("127.0.0.1", self._server.port)) as server,
                ):
                    self._pass_on(encrypted, server)
            except OSError:
                pass  # a client that does not trust the certificate goes away

    def _pass_on(self, encrypted: ssl.SSLSocket, server: socket.socket) -> None:
        while True:
            # What TLS has decrypted already makes no descriptor ready.
            ready = [encrypted] if encrypted.pending() else select.select([encrypted, server, self._is_over], [], [])[0]
            if self._is_over in ready:
                return
            for source, target in ((encrypted, server), (server, encrypted)):
                if source in ready:
                    if not (data := source.recv(65_536)):
                        return
                    target.sendall(data)
