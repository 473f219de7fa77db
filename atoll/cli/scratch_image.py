"""A small image without a registry: Debian's busybox-static and links to its programs, put into an engine.

The image is built here, byte for byte the same each time: the engine knows it by its content, and loading it again
changes nothing. Leaves to others: whether an engine is wanted at all.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from atoll import errors

TAG = "atoll-busybox:1"
BUSYBOX = Path("/bin/busybox")
CALL_S = 60.0
_FOLDERS = ("bin", "etc", "tmp", "var", "var/www")
_PASSWD = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"


def build(docker_socket: Path, tag: str = TAG) -> str:
    """Loads the image into the engine behind this socket; its tag. Raises Invalid without a static busybox,
    Unavailable when the engine does not take it."""
    import docker  # slow to import, and needed by those with an engine only
    import docker.errors
    import requests

    image = archive(tag)
    try:
        client = docker.APIClient(base_url=f"unix://{docker_socket}", version="auto", timeout=CALL_S)
        try:
            answers = list(client.load_image(image))
            client.inspect_image(tag)
        finally:
            client.close()
    except docker.errors.ImageNotFound:
        raise errors.Unavailable(f"the engine at {docker_socket} did not take {tag}: {answers}") from None
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise errors.Unavailable(f"no Docker engine answers at {docker_socket}: {error}", hint="docker info") from error
    return tag


def archive(tag: str = TAG) -> bytes:
    """What `docker load` reads: one layer, its config and a manifest. Raises Invalid without a static busybox."""
    layer = _layer()
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": "atoll: busybox-static"}],
        },
        sort_keys=True,
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    return _tar([_file(name, config), _file("layer.tar", layer), _file("manifest.json", manifest)])


def _layer() -> bytes:
    try:
        binary = BUSYBOX.read_bytes()
        names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        hint = "apt install busybox-static"
        raise errors.Invalid(f"there is no static busybox at {BUSYBOX}: {error}", hint=hint, code="E1018") from error
    if b"/ld-linux" in binary or b"/ld-musl" in binary:
        hint = "apt install busybox-static"
        raise errors.Invalid(f"{BUSYBOX} is not static: an image cannot hold it alone", hint=hint, code="E1018")
    folders = [_entry(name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755) for name in _FOLDERS]
    links = [_entry(f"bin/{name}", tarfile.SYMTYPE, link="busybox") for name in sorted({*names} - {"busybox"})]
    files = [_file("bin/busybox", binary, 0o755), _file("etc/passwd", _PASSWD)]
    return _tar([*folders, *files, *links])


def _architecture() -> str:
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


_Entry = tuple[tarfile.TarInfo, bytes]


def _file(name: str, data: bytes, mode: int = 0o644) -> _Entry:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def _entry(name: str, kind: bytes, mode: int = 0o777, link: str = "") -> _Entry:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    return info, b""


def _tar(entries: list[_Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
