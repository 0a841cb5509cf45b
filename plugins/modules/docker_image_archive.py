#!/usr/bin/python
"""Ansible module: save an image to an archive file, or load it into the engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_archive
short_description: Save an image to an archive, or load it from one
description:
  - An archive has the format of C(docker save); if its name ends in C(.gz) or C(.tgz) it is gzipped.
  - Unlike C(community.docker.docker_image_export) and C(docker_image_load) this writes the file atomically, compresses
    it, reads an archive before it is loaded, and loads only an image that the engine lacks.
options:
  state:
    description: V(saved) ensures that the file holds the image; V(loaded) ensures that the engine holds the image of the file.
    type: str
    choices: [saved, loaded]
    required: true
  path:
    description: The archive, on the host.
    type: path
    required: true
  name:
    description: With O(state=saved), the image as NAME:TAG.
    type: str
    default: ""
  accept:
    description: With O(state=loaded), refuse an archive that holds none of these images. Empty accepts any single image.
    type: list
    elements: str
    default: []
  pg_major:
    description: With O(state=loaded), refuse an image whose C(PG_MAJOR) isn't this. Empty accepts any.
    type: str
    default: ""
  endpoint:
    description: URL of the engine.
    type: str
    required: true
  timeout:
    description: Seconds without a byte from the engine after which it counts as gone.
    type: float
    default: 300
attributes:
  check_mode:
    support: full
    description: Reads image and archive, and writes neither.
  diff_mode:
    support: full
    description: Ids before and after.
  idempotent:
    support: full
    description: Compares the image's id. An archive that can't be read to its end is written anew.
author: Das Tern
"""

EXAMPLES = r"""
- name: Write the image to a file
  docker_image_archive:
    state: saved
    name: das-tern/postgres:17
    path: /srv/images/das-tern-postgres-17.tar.gz
    endpoint: unix:///var/run/docker.sock
"""

RETURN = r"""
id:
  description: Id of the image.
  returned: success
  type: str
reference:
  description: Tag of the image in engine and archive.
  returned: success
  type: str
bytes:
  description: Size of the archive.
  returned: success
  type: int
"""

import http.client
import os
from pathlib import Path
from shlex import quote
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.commands import variable
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker import engine as docker_engine
from ansible.module_utils.dastern.docker import image_archive


def save(engine: docker_engine.Engine, name: str, path: str, check: bool) -> dict[str, Any]:
    """Ensure that the file holds the image."""
    inspected = engine.image(name)
    if inspected is None:
        raise DasTernError(f"There is no image {name} to save. See `docker image ls`.")
    parent = Path(path).parent
    if not parent.is_dir():
        raise DasTernError(f"There is no directory {parent} for the archive. Make it: `mkdir -p {quote(str(parent))}`.")
    before = ""
    if Path(path).exists():
        try:
            held = image_archive.read(path)
            if len(held) == 1 and inspected["Id"] in held[0].ids and name in held[0].tags:
                before = inspected["Id"]
            else:
                before = ", ".join(f"{' '.join(image.tags) or 'untagged'} {image.ids[0]}" for image in held)
        except DasTernError as unreadable:
            before = unreadable.message
    changed = before != inspected["Id"]
    if changed and not check:
        image_archive.save(engine, name, path)
    size = Path(path).stat().st_size if Path(path).exists() else 0
    return {"changed": changed, "id": inspected["Id"], "reference": name, "bytes": size, "before": before}


def load(engine: docker_engine.Engine, accept: list[str], path: str, pg_major: str, check: bool) -> dict[str, Any]:
    """Ensure that the engine holds the image of the file."""
    held = image_archive.read(path)
    tags = sorted(tag for image in held for tag in image.tags)
    fitting = [(image, tag) for image in held for tag in image.tags if not accept or tag in accept]
    if len({image.ids for image, _ in fitting}) != 1:
        raise DasTernError(
            f"{path} holds {', '.join(tags) or 'no tagged image'}; expected: {' or '.join(accept) or 'one tagged image'}. "
            "Nothing was loaded. Write another archive with `docker save NAME:TAG`"
            + (
                f", or use this one under its name: `{variable('postgres_image_local', tags[0])}`."
                if len(tags) == 1
                else "."
            )
        )
    image, reference = fitting[0]
    if pg_major and image.pg_major != pg_major:
        raise DasTernError(
            f"{path} holds PostgreSQL {image.pg_major or 'of an unknown version (no PG_MAJOR)'}; expected: {pg_major}. "
            f"Nothing was loaded. Name another postgres_image_archive."
        )
    inspected = engine.image(reference)
    before = inspected["Id"] if inspected else ""
    changed = before not in image.ids
    if changed and not check:
        image_archive.load(engine, path)
        inspected = engine.image(reference)
        if inspected is None:
            raise DasTernError(f"The engine loaded {path}, but doesn't have its image {reference} afterwards.")
    new_id = image.ids[0] if (changed and check) or inspected is None else inspected["Id"]
    return {
        "changed": changed,
        "id": new_id,
        "reference": reference,
        "bytes": Path(path).stat().st_size,
        "before": before,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["saved", "loaded"], "required": True},
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "default": ""},
            "accept": {"type": "list", "elements": "str", "default": []},
            "pg_major": {"type": "str", "default": ""},
            "endpoint": {"type": "str", "required": True},
            "timeout": {"type": "float", "default": 300},
        },
        required_if=[("state", "saved", ["name"])],
        supports_check_mode=True,
    )
    params = module.params
    try:
        endpoint = docker_engine.resolve({}, os.path.expanduser("~"), os.geteuid(), params["endpoint"])
        engine = docker_engine.Engine(endpoint, params["timeout"])
        if params["state"] == "saved":
            result = save(engine, params["name"], params["path"], module.check_mode)
        else:
            result = load(engine, params["accept"], params["path"], params["pg_major"], module.check_mode)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    except (OSError, ValueError, http.client.HTTPException) as error:
        module.fail_json(msg=f"The Docker Engine at {params['endpoint']} stopped answering: {error}")
    before = result.pop("before")
    thing = params["path"] if params["state"] == "saved" else result["reference"]
    module.exit_json(
        **result,
        diff={"before_header": thing, "after_header": thing, "before": f"{before}\n", "after": f"{result['id']}\n"},
    )


if __name__ == "__main__":
    main()
