"""The hub behind ``internal_ssl``: both sides show a certificate of the hub's own authority."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from escape_hub.core.status import State
from escape_hub.session.hub_client import HubClient, HubConnection
from escape_hub.session.hub_reply import HubUnavailableError
from tests.fakes.hub_api import Behaviour, FakeHub

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")

HUB_NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


def certificate(path: Path, name: str, *, signer: str | None) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    by = ["-CA", str(path / f"{signer}.pem"), "-CAkey", str(path / f"{signer}.key")]
    command = ["openssl", "req", "-x509", *key, *(by if signer else []), "-days", "2"]
    command += ["-subj", f"/CN={name}", "-keyout", str(path / f"{name}.key")]
    command += ["-out", str(path / f"{name}.pem"), "-addext", HUB_NAMES]
    if signer:
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    certificate(path, "ca", signer=None)
    certificate(path, "stranger", signer=None)
    for name in ("hub", "alice"):
        certificate(path, name, signer="ca")
    return path


@pytest.fixture
def hub(authority: Path) -> Iterator[FakeHub]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(authority / "hub.pem", authority / "hub.key")
    with FakeHub(Behaviour(audiences={"rucio": "rucio"}), tls=context) as running:
        yield running


def connection(hub: FakeHub, authority: Path, ca: str, own: str) -> HubConnection:
    return HubConnection.from_environment(
        {
            "JUPYTERHUB_API_URL": hub.url,
            "JUPYTERHUB_API_TOKEN": hub.api_token,
            "JUPYTERHUB_SSL_CLIENT_CA": str(authority / f"{ca}.pem"),
            "JUPYTERHUB_SSL_CERTFILE": str(authority / f"{own}.pem"),
            "JUPYTERHUB_SSL_KEYFILE": str(authority / f"{own}.key"),
        }
    )


def test_with_the_hubs_certificates_it_is_answered(hub: FakeHub, authority: Path) -> None:
    assert HubClient(connection(hub, authority, "ca", "alice")).fetch().state is State.FRESH


@pytest.mark.parametrize(("ca", "own"), [("stranger", "alice"), ("ca", "stranger")])
def test_a_strangers_certificate_on_either_side_ends_it_before_the_token_is_sent(
    hub: FakeHub, authority: Path, ca: str, own: str
) -> None:
    with pytest.raises(HubUnavailableError):
        HubClient(connection(hub, authority, ca, own)).fetch(timeout=5)
    assert hub.requests == []
