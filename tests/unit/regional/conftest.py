"""One cluster's credentials for all tests here: making keys takes time, and nobody changes them."""

import pytest

from tests.support.pki import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))
