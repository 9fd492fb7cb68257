"""The source `ms-graph-ad` in the configuration, and what the bridge is given of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aim.app import graph_settings_of
from aim.bridges.msgraph.settings import (
    ClientCertificate,
    ClientSecret,
    Credential,
    GraphSettings,
    ManagedIdentity,
    WorkloadIdentity,
)
from aim.config.root import Config
from aim.config.section import faults_of
from aim.config.sources import MsGraphSource
from aim.errors import ConfigError
from aim.run import _graph

APP = {"type": "ms-graph-ad", "tenant_id": "example.com", "client_id": "app"}
SECRET = {**APP, "client_secret": "secret"}
GROUP = "00000000-0000-0000-0000-00000000000A"


def settings(**more: Any) -> GraphSettings:
    return graph_settings_of(MsGraphSource.model_validate({**SECRET, **more}))


def faults(values: object) -> list[tuple[str, str]]:
    """Path and text of everything that is wrong."""
    with pytest.raises(ValidationError) as caught:
        MsGraphSource.model_validate(values)
    return [(fault.path, fault.text) for fault in faults_of(caught.value)]


def test_nothing_but_the_app_has_to_be_said() -> None:
    expected = GraphSettings(
        tenant_id="example.com", client_id="app", credential=ClientSecret(value="secret")
    )
    assert settings() == expected


def test_everything_reaches_the_bridge() -> None:
    found = settings(
        authority="https://login.example.com",
        base_url="https://graph.example.com/",
        scopes="https://other.example.com/.default",
        ca_cert="/ca.pem",
        filter="companyName eq 'A'",
        groups=GROUP,
        transitive="false",
        include_guests="true",
        attributes={"uid": "onPremisesExtensionAttributes/extensionAttribute1"},
        full_read_interval="6h",
        connect_timeout="1s",
        read_timeout="2s",
    )
    assert found == GraphSettings(
        tenant_id="example.com",
        client_id="app",
        credential=ClientSecret(value="secret"),
        authority="https://login.example.com",
        base_url="https://graph.example.com",
        scopes=("https://other.example.com/.default",),
        ca_cert=Path("/ca.pem"),
        connect_timeout=1,
        read_timeout=2,
        filter="companyName eq 'A'",
        groups=(GROUP.lower(),),
        transitive=False,
        include_guests=True,
        localpart="onPremisesExtensionAttributes/extensionAttribute1",
        full_read_interval=timedelta(hours=6),
    )


def test_the_scope_is_that_of_the_graph_that_is_asked() -> None:
    assert settings(base_url="https://graph.microsoft.us/").scopes == ("https://graph.microsoft.us/.default",)


@pytest.mark.parametrize(
    ("given", "credential"),
    [
        ({"client_secret": "s"}, ClientSecret(value="s")),
        ({"client_certificate": {"file": "/a.pem"}}, ClientCertificate(file=Path("/a.pem"))),
        (
            {"clientCertificate": {"cert": "c", "key": "k", "passphrase": "p"}},
            ClientCertificate(pem="c", key="k", passphrase="p"),
        ),
        ({"managed_identity": "system"}, ManagedIdentity()),
        ({"managed_identity": "0001"}, ManagedIdentity(client_id="0001")),
        ({"workload_identity": "/token"}, WorkloadIdentity(token_file=Path("/token"))),
    ],
)
def test_credentials(given: dict[str, object], credential: Credential) -> None:
    assert graph_settings_of(MsGraphSource.model_validate({**APP, **given})).credential == credential


def test_one_credential_is_needed() -> None:
    ((_, text),) = faults(APP)
    assert text == "must have one of client_secret, client_certificate, managed_identity, workload_identity"


def test_of_two_credentials_one_has_to_go() -> None:
    ((path, text),) = faults({**SECRET, "managed_identity": "system"})
    assert (path, text) == ("managed_identity", "client_secret is given too; keep one of them")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("groups", "Staff"),
        ("groups", [GROUP, "x"]),
        ("webhook_url", "http://aim.example.com/graph"),
        ("webhook_url", "https://aim.example.com/graph?a=b"),
        ("attributes", {"uid": "mail,id"}),
        ("attributes", {"uid": "a/b/c"}),
        ("attributes", {"uid": ["mail", "mailNickname"]}),
        ("full_read_interval", "24"),
    ],
)
def test_what_can_not_be_is_refused(key: str, value: object) -> None:
    ((path, _),) = faults({**SECRET, key: value})
    assert path.startswith((key, "uid"))


async def test_a_webhook_needs_somebody_who_listens(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "homeserver": {"url": "http://127.0.0.1:1", "server_name": "example.com"},
        "appservice": {"as_token": "one", "hs_token": "two"},
        "data_dir": str(tmp_path / "data"),
        "source": {**SECRET, "webhookUrl": "https://aim.example.com/graph"},
    }
    config = Config.model_validate(values)
    assert isinstance(config.source, MsGraphSource)
    assert config.source.webhook_url == "https://aim.example.com/graph"
    with pytest.raises(ConfigError, match=r"source\.webhook_url leads nowhere"):
        async with _graph(config, config.source, lambda: None):
            pass
