"""What is read from image archives, whole and damaged."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker import image_archive

CONFIG = {"config": {"Env": ["PATH=/bin", "PG_MAJOR=17"]}}


def archive(path: Path, members: dict[str, object]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def classic(path: Path) -> Path:
    manifest = [{"Config": "abc.json", "RepoTags": ["das-tern/postgres:17"], "Layers": ["l/layer.tar"]}]
    return archive(path, {"l/layer.tar": b"\0" * 300000, "abc.json": CONFIG, "manifest.json": manifest})


@pytest.mark.parametrize("name", ["image.tar", "image.tar.gz"])
def test_classic_layout(tmp_path: Path, name: str) -> None:
    (image,) = image_archive.read(str(classic(tmp_path / name)))
    assert (image.ids, image.tags, image.pg_major) == (("sha256:abc",), ("das-tern/postgres:17",), "17")


def test_oci_layout_has_two_ids(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "image.tar",
        {
            "blobs/sha256/abc": CONFIG,
            "index.json": {"manifests": [{"digest": "sha256:def"}]},
            "manifest.json": [{"Config": "blobs/sha256/abc", "RepoTags": None, "Layers": []}],
        },
    )
    (image,) = image_archive.read(str(path))
    assert (image.ids, image.tags) == (("sha256:abc", "sha256:def"), ())


@pytest.mark.parametrize("name", ["image.tar", "image.tar.gz"])
def test_a_cut_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = classic(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-400] if name.endswith("gz") else path.read_bytes()[:200000])
    with pytest.raises(DasTernError, match="can't be read as an image archive"):
        image_archive.read(str(path))


def test_a_flipped_byte_in_gzip_is_refused(tmp_path: Path) -> None:
    path = classic(tmp_path / "image.tar.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DasTernError):
        image_archive.read(str(path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DasTernError, match="no manifest.json"):
        image_archive.read(str(archive(tmp_path / "x.tar", {"readme": b"hello"})))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DasTernError, match="can't be read"):
        image_archive.read(str(tmp_path / "text"))
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"hello"))
    with pytest.raises(DasTernError, match="can't be read"):
        image_archive.read(str(tmp_path / "text.gz"))
    with pytest.raises(DasTernError, match=r"There is no image archive .*save_image.yml"):
        image_archive.read(str(tmp_path / "missing.tar"))
