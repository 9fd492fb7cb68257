"""The way to Microsoft Graph, over TLS, against the stand-in: logins by msal, and all that can go wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from aim.bridges.msgraph.graph import ResyncNeeded
from aim.bridges.msgraph.settings import ClientCertificate, ClientSecret, GraphSettings, WorkloadIdentity
from aim.bridges.msgraph.throttle import Retries
from aim.bridges.msgraph.transport import Transport, open_transport
from aim.errors import SourceInvalid, SourceUnavailable
from tests.servers.certificates import Certificates
from tests.servers.graph import CLIENT_ID, CLIENT_SECRET, TENANT_ID, Graph, NewGraph
from tests.servers.graph_faults import at

QUICK = Retries(tries=6, first=0.01)
USERS = 2500


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def graph(new_graph: NewGraph) -> Graph:
    graph = await new_graph()
    for number in range(USERS):
        graph.tenant.add_user(f"user{number}")
    return graph


def settings_of(graph: Graph) -> GraphSettings:
    return GraphSettings(
        tenant_id=TENANT_ID,
        client_id=CLIENT_ID,
        credential=ClientSecret(value=CLIENT_SECRET),
        authority=graph.authority,
        base_url=graph.base_url,
        scopes=(f"{graph.url}/.default",),
        ca_cert=graph.ca,
        read_timeout=10,
    )


@asynccontextmanager
async def way(graph: Graph, settings: GraphSettings | None = None) -> AsyncIterator[Transport]:
    async with open_transport(settings or settings_of(graph), retries=QUICK) as transport:
        yield transport
    # Nobody was led elsewhere, and msal asked nobody but the authority.
    assert graph.strays == []
    assert graph.requests["discovery"] == 0


async def names(transport: Transport) -> list[object]:
    query = {"$select": "id,userPrincipalName", "$top": "999"}
    return [item["id"] async for page in transport.pages("/users", query) for item in page.items]


# -- logging in ------------------------------------------------------------------------------------------


async def test_users_are_read_with_one_token(graph: Graph) -> None:
    async with way(graph) as transport:
        assert len(set(await names(transport))) == USERS
        assert await transport.count("/users/$count") == USERS
    assert graph.requests == {"metadata": 1, "token": 1, "users": 3, "users/$count": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"credential": ClientSecret(value="wrong")}, "the client secret is wrong"),
        ({"client_id": "00000000-1111-2222-3333-444444444444"}, "no such app in this tenant"),
        ({"tenant_id": "00000000-1111-2222-3333-444444444444"}, "no such tenant"),
        ({"scopes": ("https://graph.example.net/.default",)}, "no service that source.scopes names"),
    ],
)
async def test_whoever_is_not_known_is_told_why(graph: Graph, change: dict[str, object], words: str) -> None:
    async with way(graph, replace(settings_of(graph), **change)) as transport:  # type: ignore[arg-type]  # fits
        with pytest.raises(SourceInvalid, match=words):
            await names(transport)
    assert graph.requests["users"] == 0


async def test_a_secret_that_has_expired_is_told(graph: Graph) -> None:
    graph.app.secrets[CLIENT_SECRET] = graph.clock.now() - timedelta(days=1)
    async with way(graph) as transport:
        with pytest.raises(SourceInvalid, match="the client secret has expired"):
            await names(transport)


def certificate(folder: Path) -> tuple[Path, x509.Certificate]:
    key = rsa.generate_private_key(65537, 2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aim")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=300))
        .sign(key, hashes.SHA256())
    )
    file = folder / "graph.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + pem)
    return file, made


async def test_a_certificate_lets_us_in_once_it_is_known(graph: Graph, tmp_path: Path) -> None:
    file, made = certificate(tmp_path)
    settings = replace(settings_of(graph), credential=ClientCertificate(file=file))
    async with way(graph, settings) as transport:
        with pytest.raises(SourceInvalid, match="does not know our certificate"):
            await names(transport)
    graph.app.certificates.append(made)
    async with way(graph, settings) as transport:
        assert len(await names(transport)) == USERS


async def test_a_token_of_another_issuer_lets_us_in(graph: Graph, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of.another.issuer\n")
    graph.app.federated.add("of.another.issuer")
    async with way(
        graph, replace(settings_of(graph), credential=WorkloadIdentity(token_file=file))
    ) as transport:
        assert len(await names(transport)) == USERS


async def test_a_token_that_ends_in_the_middle_is_replaced(graph: Graph) -> None:
    graph.faults.expire(lambda asked: asked.kind == "users" and "$skiptoken" in asked.query)
    async with way(graph) as transport:
        assert len(set(await names(transport))) == USERS
    assert graph.requests["token"] == 2


async def test_claims_that_graph_wants_are_brought(graph: Graph) -> None:
    async with way(graph) as transport:
        await names(transport)
        graph.identity.challenge()
        assert len(await names(transport)) == USERS
    assert graph.requests["token"] == 2


async def test_a_permission_that_is_missing_is_named_and_found_later(graph: Graph) -> None:
    graph.app.roles.discard("User.Read.All")
    async with way(graph) as transport:
        with pytest.raises(SourceInvalid, match=r"User\.Read\.All is missing"):
            await names(transport)
        graph.app.roles.add("User.Read.All")
        assert len(await names(transport)) == USERS


# -- bad days --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_everybody_is_read_once(graph: Graph, seed: int) -> None:
    graph.faults.mix(seed, 0.5)
    async with way(graph) as transport:
        found = await names(transport)
    assert len(found) == len(set(found)) == USERS


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
async def test_as_long_as_graph_asks_nothing_is_sent(graph: Graph, status: int, as_date: bool) -> None:
    graph.faults.throttle(at("users"), status=status, retry_after=2, as_date=as_date)
    began = time.monotonic()
    async with way(graph) as transport:
        assert len(await names(transport)) == USERS
    # A date has no fractions of a second.
    assert time.monotonic() - began >= 1.0


async def test_only_what_was_refused_in_a_batch_is_asked_again(graph: Graph) -> None:
    groups = [graph.tenant.add_group(f"Group {number}") for number in range(25)]
    graph.faults.throttle(at("groups/*"), times=3, retry_after=0)
    async with way(graph) as transport:
        items = await transport.batch([f"/groups/{group}?$select=id" for group in groups])
    assert [item["id"] for item in items] == groups
    assert graph.in_batches["groups/*"] == 28


@pytest.mark.parametrize("fault", ["cut", "lose", "html", "no_value", "dead_end"])
async def test_what_is_always_spoilt_is_an_error(graph: Graph, fault: str) -> None:
    spoil = getattr(graph.faults, fault)
    spoil(at("users/delta"), None)
    async with way(graph) as transport:
        with pytest.raises(SourceUnavailable):
            _ = [page async for page in transport.pages("/users/delta", {"$select": "id"})]
    assert graph.requests["users/delta"] == QUICK.tries


async def test_a_graph_that_never_answers_is_an_error(graph: Graph) -> None:
    held = graph.faults.hold(at("users"), None)
    settings = replace(settings_of(graph), read_timeout=0.2)
    async with open_transport(settings, retries=Retries(tries=2, first=0.01)) as transport:
        with pytest.raises(SourceUnavailable, match="no answer in time"):
            await names(transport)
    held.release.set()


async def test_a_link_that_leads_elsewhere_is_not_followed(graph: Graph) -> None:
    graph.faults.link(f"{graph.elsewhere}/v1.0/users?$skiptoken=x", at("users"), None)
    async with way(graph) as transport:
        with pytest.raises(SourceInvalid, match="our token is not sent there"):
            await names(transport)
    assert graph.requests["users"] == 1


async def test_a_redirect_is_not_followed(graph: Graph) -> None:
    graph.faults.redirect(f"{graph.elsewhere}/v1.0/users", at("users"), None)
    async with way(graph) as transport:
        with pytest.raises(SourceInvalid, match="redirected"):
            await names(transport)
    assert graph.requests["users"] == 1


async def test_a_link_that_graph_has_forgotten_asks_for_all(graph: Graph) -> None:
    async with way(graph) as transport:
        pages = [page async for page in transport.pages("/users/delta", {"$select": "id"}, page_size=999)]
        link = pages[-1].delta_link
        assert link is not None
        assert sum(len(page.items) for page in pages) == USERS
        assert [page.items async for page in transport.pages(link)] == [[]]
        graph.faults.gone(at("users/delta"))
        with pytest.raises(ResyncNeeded):
            _ = [page async for page in transport.pages(link)]


# -- whom we trust, and by which way ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_no_bundle_of_the_environment_decides_whom_we_trust(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    other = Certificates(tmp_path / "other").ca
    monkeypatch.setenv(name, str(other))
    async with way(graph) as transport:
        assert len(await names(transport)) == USERS
    # And the other way round: what it would allow is not allowed.
    monkeypatch.setenv(name, str(graph.ca))
    async with open_transport(replace(settings_of(graph), ca_cert=other), retries=QUICK) as transport:
        with pytest.raises(SourceUnavailable, match="can't be trusted"):
            await names(transport)


@dataclass(slots=True)
class Tunnel:
    """A proxy for CONNECT (RFC 9110, section 9.3.6) that notes whom it leads to."""

    url: str = ""
    targets: list[str] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        assert method == "CONNECT"
        self.targets.append(target)
        host, _, port = target.rpartition(":")
        beyond = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(self._carry(reader, beyond[1]), self._carry(beyond[0], writer))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


@pytest.fixture
async def tunnel() -> AsyncIterator[Tunnel]:
    tunnel = Tunnel()
    server = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
    tunnel.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield tunnel
    server.close()
    await server.wait_closed()


async def test_the_proxy_of_the_environment_is_used_for_both(
    graph: Graph, tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
    async with way(graph) as transport:
        assert len(await names(transport)) == USERS
    # One connection for the token, at least one for the users.
    assert len(tunnel.targets) >= 2
    assert {f"https://{target}" for target in tunnel.targets} == {graph.url}


async def test_a_host_that_the_environment_exempts_needs_no_proxy(
    graph: Graph, tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with way(graph) as transport:
        assert len(await names(transport)) == USERS
    assert tunnel.targets == []
