"""Image archives as `docker save` writes them, plain or gzipped: reading their contents, saving and loading images."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import DasTernError
from .engine import Engine

CHUNK = 1 << 20
# Most bytes of a member that are read into memory; a manifest or a configuration has a few kilobytes.
SMALL = 4 << 20


@dataclass(frozen=True)
class ArchivedImage:
    """One image of an archive: the ids that engines may give it, its tags, and PG_MAJOR from its environment.

    The id is the configuration's digest, or the manifest's if the engine stores images in containerd.
    """

    ids: tuple[str, ...]
    tags: tuple[str, ...]
    pg_major: str


def compressed(path: str) -> bool:
    """Return whether the name asks for gzip."""
    return path.endswith((".gz", ".tgz"))


def read(path: str) -> list[ArchivedImage]:
    """Return the images of an archive. It is read to its end, so that no cut or damaged file is half-loaded later."""
    small: dict[str, bytes] = {}
    try:
        # "r|*" reads forward only and finds the compression by itself.
        with tarfile.open(path, mode="r|*") as archive:
            for member in archive:
                handle = archive.extractfile(member) if member.isfile() else None
                if handle is None:
                    continue
                if member.name == "manifest.json" or (member.size < SMALL and not member.name.endswith(".tar")):
                    small[member.name] = handle.read(SMALL)
        manifest = json.loads(small["manifest.json"])
        return [_image(entry, small) for entry in manifest]
    except FileNotFoundError:
        raise DasTernError(
            f"There is no image archive {path} on this host. Copy it there, or write one on a machine that has the image: "
            "`ansible-playbook playbooks/save_image.yml -e postgres_image_archive=PATH`."
        ) from None
    except KeyError:
        raise DasTernError(
            f"{path} isn't an image archive: it has no manifest.json. Write one with `docker save`."
        ) from None
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, TypeError) as error:
        raise DasTernError(f"{path} can't be read as an image archive: {error}. Copy it again.") from None


def _image(entry: dict[str, Any], small: dict[str, bytes]) -> ArchivedImage:
    config = str(entry["Config"])
    environment = (json.loads(small[config]).get("config") or {}).get("Env") or []
    major = next((item.split("=", 1)[1] for item in environment if item.startswith("PG_MAJOR=")), "")
    # The classic layout has "<digest>.json", the OCI layout "blobs/sha256/<digest>".
    digest = config.rsplit("/", 1)[-1].removesuffix(".json")
    ids = [f"sha256:{digest}"]
    index = json.loads(small.get("index.json", b"{}"))
    ids.extend(str(item["digest"]) for item in index.get("manifests") or [] if "digest" in item)
    return ArchivedImage(tuple(ids), tuple(entry.get("RepoTags") or ()), major)


def save(engine: Engine, name: str, path: str, mode: int = 0o644) -> None:
    """Write image `name` to `path`, by way of a file beside it, so that no half-written archive bears the name."""
    part = f"{path}.part.{os.getpid()}"
    try:
        response = engine.request("GET", f"/images/{name}/get")
        with open(part, "wb") as raw:
            os.fchmod(raw.fileno(), mode)
            # Level 1 gives nearly the best size in a third of the time. Without name and time, bytes can be compared.
            sink = (
                gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0)
                if compressed(path)
                else raw
            )
            while chunk := response.read(CHUNK):
                sink.write(chunk)
            if sink is not raw:
                sink.close()
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(part, path)
    except OSError as error:
        raise DasTernError(f"Image {name} can't be written to {path}: {error.strerror or error}.") from None
    finally:
        Path(part).unlink(missing_ok=True)


def load(engine: Engine, path: str) -> list[str]:
    """Load an archive, and return the engine's own lines about it."""
    lines = []
    with open(path, "rb") as raw:
        response = engine.request(
            "POST", "/images/load?quiet=1", body=_chunks(raw), headers={"Content-Type": "application/x-tar"}
        )
        for message in engine.messages(response):
            lines.extend(str(message.get("stream") or message.get("status") or "").splitlines())
    return lines


def _chunks(raw: Any) -> Iterator[bytes]:
    while chunk := raw.read(CHUNK):
        yield chunk
