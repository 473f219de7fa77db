"""Names of container images: two spellings of one image are one name.

As the engine reads them: without a registry it is Docker's, there a name without a user is in `library`, and without a
tag or digest the tag is `latest`. A digest says more than a tag, which is left out beside it.
"""

MOST_IMAGES = 256  # that a node tells
LONGEST_IMAGE = 256
_DOCKERS = ("docker.io/", "index.docker.io/")


def canonical(written: str) -> str:
    """The shortest spelling with its tag or digest: `nginx:latest`, `quay.io/a/b@sha256:…`."""
    name, at, digest = written.partition("@")
    for registry in _DOCKERS:
        name = name.removeprefix(registry)
    if "/" in (short := name.removeprefix("library/")):
        short = name
    folder, slash, last = short.rpartition("/")
    base, colon, tag = last.partition(":")
    if at:
        return f"{folder}{slash}{base}@{digest}"
    return f"{folder}{slash}{base}:{tag if colon and tag else 'latest'}"
