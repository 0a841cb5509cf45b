"""Where a further repository of backups can be: an S3-compatible bucket, and a host reached over SSH (SFTP).

Both listen on the gateway of the server's own network, for as long as a test needs them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import boto3
import trustme
from botocore.exceptions import ClientError, EndpointConnectionError
from migrating import wait_until

FILES = "/etc/pgbackrest/files"
# moto's own server ends a connection without a word of TLS, which pgBackRest rightly takes for one that was cut.
_STORE = """
import sys
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
address, port, certificate = sys.argv[1:]
server = Server((address, int(port)), DomainDispatcherApplication(create_backend_app))
server.ssl_adapter = BuiltinSSLAdapter(certificate, certificate)
server.start()
"""


class _SftpServer(asyncssh.SFTPServer):
    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], host: SftpHost) -> None:
        super().__init__(channel, chroot=str(host.folder))
        self._host = host

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if b"/backup/dastern/2" in path:
            await asyncio.sleep(self._host.delay)
        return super().open(path, pflags, attrs)


class SftpHost:
    """A host with an SFTP server that can go away and come back; `options` and `files` are what the inventory declares."""

    def __init__(self, address: str, folder: Path) -> None:
        self.delay = 0.0
        """Seconds that each file of a backup takes."""
        self.folder = folder / "sftp"
        self.folder.mkdir()
        self._address, self._port = address, free_port(address)
        self._host_key, client_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        self._authorized = asyncssh.import_authorized_keys(client_key.export_public_key().decode())
        self.files = {
            "id_ed25519": client_key.export_private_key().decode(),
            "id_ed25519.pub": client_key.export_public_key().decode(),
        }
        self.options = {
            "repo2-type": "sftp",
            "repo2-path": "/das-tern",
            "repo2-sftp-host": address,
            "repo2-sftp-host-port": self._port,
            "repo2-sftp-host-user": "das-tern",
            "repo2-sftp-host-key-check-type": "fingerprint",
            "repo2-sftp-host-key-hash-type": "sha256",
            "repo2-sftp-host-fingerprint": hashlib.sha256(self._host_key.public_data).hexdigest(),
            "repo2-sftp-private-key-file": f"{FILES}/id_ed25519",
            "repo2-sftp-public-key-file": f"{FILES}/id_ed25519.pub",
        }

    @contextmanager
    def serving(self) -> Iterator[None]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                self._address, self._port, server_host_keys=[self._host_key], authorized_client_keys=self._authorized,
                sftp_factory=lambda channel: _SftpServer(channel, self),
            )  # fmt: skip

        server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


class Bucket:
    """An S3-compatible store with TLS of its own making."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address, self._port = address, free_port(address)
        authority = trustme.CA()
        self._authority, self._certificate = folder / "ca.crt", folder / "s3.pem"
        authority.cert_pem.write_to_path(str(self._authority))
        authority.issue_cert(address, "s3.das-tern.test").private_key_and_cert_chain_pem.write_to_path(
            str(self._certificate)
        )
        self.files = {"ca.crt": self._authority.read_text()}
        self.options = {
            "repo2-type": "s3",
            "repo2-path": "/das-tern",
            "repo2-s3-bucket": "backups",
            "repo2-s3-endpoint": "s3.das-tern.test",
            "repo2-s3-region": "ap-southeast-1",
            "repo2-s3-key": "the-key",
            "repo2-s3-key-secret": "the-secret-of-the-key",
            "repo2-s3-uri-style": "path",
            "repo2-storage-host": address,
            "repo2-storage-port": self._port,
            "repo2-storage-ca-file": f"{FILES}/ca.crt",
        }

    @contextmanager
    def serving(self) -> Iterator[None]:
        server = subprocess.Popen(
            [sys.executable, "-c", _STORE, self._address, str(self._port), str(self._certificate)],
            env={**os.environ, "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(self._made)
            yield
        finally:
            server.terminate()
            server.wait()

    def _made(self) -> bool:
        client: Any = boto3.client(
            "s3", endpoint_url=f"https://{self._address}:{self._port}", verify=str(self._authority),
            region_name="ap-southeast-1", aws_access_key_id="the-key", aws_secret_access_key="the-secret-of-the-key",
        )  # fmt: skip
        try:
            client.create_bucket(Bucket="backups", CreateBucketConfiguration={"LocationConstraint": "ap-southeast-1"})
        except EndpointConnectionError:
            return False
        except ClientError as error:
            return "BucketAlreadyOwnedByYou" in str(error)
        return True


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
