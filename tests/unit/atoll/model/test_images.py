import pytest

from atoll.model.images import canonical


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("nginx", "nginx:latest"),
        ("nginx:1.27", "nginx:1.27"),
        ("library/nginx", "nginx:latest"),
        ("docker.io/library/nginx:1.27", "nginx:1.27"),
        ("index.docker.io/acme/web", "acme/web:latest"),
        ("localhost:5000/web", "localhost:5000/web:latest"),
        ("localhost:5000/web:2", "localhost:5000/web:2"),
        ("quay.io/acme/web:2@sha256:ab", "quay.io/acme/web@sha256:ab"),
        ("library/acme/web", "library/acme/web:latest"),
    ],
)
def test_spellings_of_one_image_are_one_name(written: str, name: str) -> None:
    assert canonical(written) == name
    assert canonical(name) == name
