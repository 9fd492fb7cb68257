"""Tokens from Entra ID: msal itself, against an authority that is a function."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from aim.bridges.msgraph import trust
from aim.bridges.msgraph.faults import TokenRefused
from aim.bridges.msgraph.settings import ClientCertificate, Credential, ManagedIdentity, WorkloadIdentity
from aim.bridges.msgraph.tokens import new_client
from aim.errors import SourceError, SourceInvalid, SourceUnavailable
from tests.unit.graph_way import GRAPH, LOGIN, SECRET, SETTINGS, START, TENANT, Authority, Way, aadsts, reply


def way(authority: Authority | None = None, credential: Credential | None = None) -> Way:
    settings = SETTINGS if credential is None else replace(SETTINGS, credential=credential)
    return Way(lambda request: reply([]), settings, authority=authority or Authority())


async def refused(by: Way) -> SourceError:
    with pytest.raises(SourceError) as error:
        await by.get()
    assert by.requests == []
    for text in (error.value.message, error.value.remedy):
        assert text
        assert "\n" not in text
        assert SECRET not in text
    return error.value


# -- what is asked ---------------------------------------------------------------------------------------


async def test_nobody_but_the_authority_is_asked() -> None:
    asked = way()
    await asked.get()
    assert asked.authority.asked == [
        f"{LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration",
        f"{LOGIN}/{TENANT}/oauth2/v2.0/token",
    ]
    (form,) = asked.authority.forms
    assert form["grant_type"] == "client_credentials"
    assert form["client_secret"] == SECRET
    assert form["scope"] == f"{GRAPH}/.default"


async def test_no_region_of_the_environment_changes_who_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSAL_FORCE_REGION", "westeurope")
    asked = way()
    await asked.get()
    assert {httpx.URL(url).host for url in asked.authority.asked} == {"login.example.com"}


async def test_an_authority_that_sends_us_elsewhere_gets_no_secret() -> None:
    authority = Authority(endpoint=f"https://evil.example.net/{TENANT}/oauth2/v2.0/token")
    error = await refused(way(authority))
    assert "sends us to https://evil.example.net" in error.message
    assert authority.forms == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"authority": "http://login.example.com"}, "no https:// URL"),
        ({"tenant_id": "common"}, "not one tenant"),
        ({"tenant_id": "a/b"}, "not one tenant"),
    ],
)
async def test_settings_that_can_not_be_right(change: dict[str, str], words: str) -> None:
    asked = Way(lambda request: reply([]), replace(SETTINGS, **change))  # type: ignore[arg-type]  # all are str
    error = await refused(asked)
    assert words in error.message
    assert asked.authority.asked == []


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words", "remedy"),
    [
        (7000215, "the client secret is wrong", "Value"),
        (7000222, "the client secret has expired", "new client secret"),
        (90002, "no such tenant", "source.tenant_id"),
        (700016, "no such app", "source.client_id"),
        (65001, "nobody has consented", "grant admin consent"),
        (700027, "does not know our certificate", "source.client_certificate"),
        (500011, "no service that source.scopes names", "source.scopes"),
        (53003, "Conditional Access", "sign-in logs"),
        (999999, "In Microsoft's words.", "source.client_id"),
    ],
)
async def test_a_refusal_is_told_in_plain_words(number: int, words: str, remedy: str) -> None:
    error = await refused(way(Authority(refusals=[aadsts(number)])))
    assert isinstance(error, TokenRefused)
    assert words in error.message
    assert f"AADSTS{number}" in error.message
    assert "Trace ID" not in error.message
    assert remedy in error.remedy


async def test_a_tenant_that_is_not_there_is_known_by_its_metadata() -> None:
    def authority(request: httpx.Request) -> httpx.Response:
        return aadsts(90002, "invalid_tenant", 400)

    asked = way()
    asked.authority = _Function(authority)
    error = await refused(asked)
    assert "no such tenant" in error.message


async def test_after_a_refusal_the_authority_is_left_alone_for_a_while() -> None:
    authority = Authority(refusals=[aadsts(7000215), aadsts(7000215)])
    asked = way(authority)
    async with asked.open() as graph:
        for _ in range(3):
            with pytest.raises(TokenRefused, match="secret is wrong") as error:
                await graph.get("/users")
        assert "The next try is at 12:01:00 UTC" in error.value.remedy
        assert len(authority.refusals) == 1
        await asked.clock.sleep(60)
        with pytest.raises(TokenRefused):
            await graph.get("/users")
        assert authority.refusals == []
        # Twice as long now; then it works.
        await asked.clock.sleep(60)
        with pytest.raises(TokenRefused):
            await graph.get("/users")
        await asked.clock.sleep(60)
        await graph.get("/users")


class _Function(Authority):
    """An authority that answers otherwise."""

    __slots__ = ("answer",)

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        super().__init__()
        self.answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return self.answer(request)


# -- what may pass ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (httpx.Response(503, html="<h1>Down</h1>", headers={"Retry-After": "7"}), 7.0),
        (httpx.Response(429, json={"error": "throttled"}), 0.25),
        (httpx.Response(200, html="<h1>Log in to the Wi-Fi</h1>"), 0.25),
        (httpx.Response(200, json={"token_type": "Bearer"}), 0.25),
        (aadsts(90033, "temporarily_unavailable", 400), 0.25),
    ],
)
async def test_what_may_pass_is_tried_again(fault: httpx.Response, wait: float) -> None:
    asked = way(Authority(refusals=[fault]))
    await asked.get()
    assert asked.clock.slept == [wait]


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(502),
        lambda _: httpx.Response(200, html="<h1>Log in</h1>"),
        lambda _: httpx.Response(200, json=[]),
        lambda _: httpx.Response(200, json={"issuer": LOGIN}),
    ],
)
async def test_what_stays_is_an_error(answer: Callable[[httpx.Request], httpx.Response]) -> None:
    asked = way()
    asked.authority = _Function(answer)
    assert isinstance(await refused(asked), SourceUnavailable)
    assert len(asked.authority.asked) == 4


async def test_an_authority_that_can_not_be_reached_is_an_error() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    asked = way()
    asked.authority = _Function(lost)
    error = await refused(asked)
    assert error.message == f"{LOGIN}: no connection: [Errno 111] Connection refused"


async def test_a_certificate_that_can_not_be_trusted_is_not_tried_again() -> None:
    def untrusted(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    asked = way()
    asked.authority = _Function(untrusted)
    error = await refused(asked)
    assert "source.ca_cert" in error.remedy
    assert len(asked.authority.asked) == 1


# -- other credentials -----------------------------------------------------------------------------------


def certified(folder: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, passphrase: str = "") -> str:
    """A certificate and its key as PEM, the certificate first."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aim")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return certificate.public_bytes(serialization.Encoding.PEM).decode() + pem.decode()


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("passphrase", ["", "open sesame"])
async def test_a_certificate_proves_who_we_are(
    tmp_path: Path, key: rsa.RSAPrivateKey, passphrase: str
) -> None:
    file = tmp_path / "aim.pem"
    file.write_text(certified(tmp_path, key, passphrase))
    asked = way(credential=ClientCertificate(file=file, passphrase=passphrase or None))
    await asked.get()
    (form,) = asked.authority.forms
    assert "client_secret" not in form
    assert form["client_assertion_type"].endswith(":jwt-bearer")
    header, payload, _ = (
        base64.urlsafe_b64decode(part + "==") for part in form["client_assertion"].split(".")
    )
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    thumbprint = base64.urlsafe_b64decode(json.loads(header)["x5t#S256"])
    assert thumbprint == certificate.fingerprint(hashes.SHA256())
    assert json.loads(payload)["aud"] == asked.authority.endpoint
    assert trust.own(ClientCertificate(file=file, passphrase=passphrase or None)).ends_at == datetime(
        2027, 3, 1, 12, tzinfo=UTC
    )


async def test_a_renewed_certificate_is_used_for_the_next_token(
    tmp_path: Path, key: rsa.RSAPrivateKey
) -> None:
    file = tmp_path / "aim.pem"
    file.write_text(certified(tmp_path, key))
    asked = way(credential=ClientCertificate(file=file))
    async with asked.open() as graph:
        await graph.get("/users")
        file.write_text(certified(tmp_path, rsa.generate_private_key(65537, 2048)))
        await asked.clock.sleep(3600)
        await graph.get("/users")
    heads = [form["client_assertion"].partition(".")[0] for form in asked.authority.forms]
    assert len(set(heads)) == 2


async def test_a_certificate_that_can_not_be_used(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    pem, locked = certified(tmp_path, key), certified(tmp_path, key, "open sesame")
    other = certified(tmp_path, rsa.generate_private_key(65537, 2048))
    alone = pem.partition("-----BEGIN PRIVATE")[0]
    for credential, words in [
        (ClientCertificate(file=tmp_path / "none.pem"), "No such file"),
        (ClientCertificate(pem="nothing"), "no certificate in PEM"),
        (ClientCertificate(pem=alone), "no private key in PEM"),
        (ClientCertificate(pem=locked), "there is no passphrase"),
        (ClientCertificate(pem=locked, passphrase="wrong"), "can't be used"),
        (ClientCertificate(pem=alone, key=other), "belongs to another certificate"),
        (ClientCertificate(pem=certified(tmp_path, ec.generate_private_key(ec.SECP256R1()))), "of RSA"),
    ]:
        asked = way(credential=credential)
        error = await refused(asked)
        assert isinstance(error, SourceInvalid)
        assert words in error.message
        assert asked.authority.forms == []


async def test_a_workload_shows_the_token_that_is_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first.of.kubernetes\n")
    asked = way(credential=WorkloadIdentity(token_file=file))
    async with asked.open() as graph:
        await graph.get("/users")
        file.write_text("second.of.kubernetes\n")
        await asked.clock.sleep(3600)
        await graph.get("/users")
    shown = [form["client_assertion"] for form in asked.authority.forms]
    assert shown == ["first.of.kubernetes", "second.of.kubernetes"]


async def test_a_workload_without_its_file_is_told(tmp_path: Path) -> None:
    error = await refused(way(credential=WorkloadIdentity(token_file=tmp_path / "token")))
    assert "No such file" in error.message


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are on an App Service."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:41/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "of-the-machine")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("client_id", [None, "11111111-2222-3333-4444-555555555555"])
async def test_a_managed_identity_asks_the_machine(client_id: str | None) -> None:
    questions: list[httpx.Request] = []

    def machine_says(request: httpx.Request) -> httpx.Response:
        questions.append(request)
        # msal tells from the machine's own clock how long this is.
        return httpx.Response(200, json={"access_token": "of.the.machine", "expires_on": "4000000000"})

    asked = way(credential=ManagedIdentity(client_id=client_id))
    asked.authority = _Function(machine_says)
    await asked.get()
    assert asked.tokens == ["of.the.machine"]
    (question,) = questions
    assert question.headers["X-IDENTITY-HEADER"] == "of-the-machine"
    assert question.url.params["resource"] == GRAPH
    assert question.url.params.get("client_id") == client_id


@pytest.mark.usefixtures("machine")
async def test_a_machine_without_an_identity_is_told() -> None:
    asked = way(credential=ManagedIdentity())
    asked.authority = _Function(
        lambda request: httpx.Response(400, json={"statusCode": 400, "message": "No identity"})
    )
    error = await refused(asked)
    assert isinstance(error, TokenRefused)
    assert "No identity" in error.message


# -- the end ---------------------------------------------------------------------------------------------


async def test_nobody_waits_for_an_authority_that_does_not_answer_when_it_ends() -> None:
    asked, answering = threading.Event(), threading.Event()

    class Silent(Authority):
        def client(self, _: ssl.SSLContext, timeout: httpx.Timeout, __: bool) -> httpx.Client:
            asked.set()
            answering.wait(30)
            return super().client(_, timeout, __)

    async with way(Silent()).open() as graph:
        waiting = asyncio.create_task(graph.token())
        await asyncio.to_thread(asked.wait, 30)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "token")
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=5)
        assert waiting.cancelled()
        assert thread.is_alive()
        # Others are waited for when the program ends.
        assert thread.daemon
        answering.set()
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()
        assert await graph.token()


# -- whom we trust ---------------------------------------------------------------------------------------


async def test_a_ca_cert_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    for path in (file, tmp_path / "none.pem"):
        asked = Way(lambda request: reply([]), replace(SETTINGS, ca_cert=path))
        assert "source.ca_cert" in (await refused(asked)).message


async def test_a_proxy_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from aim.bridges.msgraph.transport import open_transport

    monkeypatch.setenv("HTTPS_PROXY", "gopher://user:hunter2@proxy.example.com")
    with pytest.raises(SourceInvalid, match="proxy") as error:
        async with open_transport(SETTINGS):
            pass
    assert "hunter2" not in f"{error.value.message} {error.value.remedy}"


def test_a_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    context, timeout = ssl.create_default_context(), httpx.Timeout(1)
    with new_client(context, timeout, False) as direct, new_client(context, timeout, True) as proxied:
        assert not direct._mounts
        assert proxied._mounts
