"""The Microsoft identity platform, as far as an application without a user needs it: its token endpoint, its
metadata, and whether a token is good. Without HTTP; `graph` serves it.

A client shows a secret, an assertion that its certificate signed, or a token of an identity provider that it
is federated with. Numbers and first words of errors are the real ones ("Microsoft Entra authentication and
authorization error codes").

identity = Identity(tenant_id, clock, url)
app = identity.register("5c955b66-…", roles={"User.Read.All"})
app.secrets["s3cret"] = None
"""

from __future__ import annotations

import base64
import json
import random
import uuid
from binascii import Error as NoBase64
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.servers.graph_odata import Refusal
from tests.servers.graph_tenant import Clock

Json = dict[str, Any]

GRAPH = "https://graph.microsoft.com"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_GRAPH_APP = "00000003-0000-0000-c000-000000000000"


class Rejected(Exception):
    """An answer of the token endpoint that is an error."""

    def __init__(self, number: int, message: str, error: str = "invalid_client", status: int = 401) -> None:
        super().__init__(message)
        self.number = number
        self.message = message
        self.error = error
        self.status = status


@dataclass(slots=True)
class App:
    """A registered application, with the permissions that an administrator consented to."""

    client_id: str
    roles: set[str] = field(default_factory=set)
    secrets: dict[str, datetime | None] = field(default_factory=dict)
    """Until when each is good; None for long."""
    certificates: list[x509.Certificate] = field(default_factory=list)
    federated: set[str] = field(default_factory=set)
    """Tokens of other identity providers that it is let in by."""


@dataclass(slots=True)
class _Token:
    client_id: str
    roles: frozenset[str]
    expires: datetime
    audience: str
    issued: int
    """Its number."""


class Identity:
    """Tokens of one tenant. `url` is where it is reached, without the tenant."""

    def __init__(
        self, tenant_id: str, clock: Clock, url: str = "https://login.microsoftonline.com", seed: int = 0
    ) -> None:
        self.tenant_id = tenant_id
        self.names = {tenant_id}
        """By which the tenant is known: its domains, too, if added."""
        self.url = url
        self.token_life = timedelta(seconds=3599)
        self.audiences = {GRAPH}
        """Resources that tokens are given for."""
        self.managed: str | None = None
        """The client id of the managed identity, if this machine has one."""
        self._clock = clock
        self._random = random.Random(seed)
        self._apps: dict[str, App] = {}
        self._tokens: dict[str, _Token] = {}
        self._challenge: tuple[int, str] | None = None

    # For tests

    def register(self, client_id: str, roles: Collection[str] = ()) -> App:
        app = self._apps[client_id] = App(client_id, set(roles))
        return app

    def expire_tokens(self) -> None:
        """No token that was given is good any more."""
        for token in self._tokens.values():
            token.expires = self._clock.now() - timedelta(seconds=1)

    def challenge(self) -> None:
        """Tokens given so far are refused, and so are later ones that weren't asked for with the claims which
        the refusal names (continuous access evaluation)."""
        since = str(int(self._clock.now().timestamp()))
        claims = {"access_token": {"nbf": {"essential": True, "value": since}}}
        self._challenge = (len(self._tokens), json.dumps(claims))

    # The endpoints

    def metadata(self, tenant: str) -> Json:
        """`…/v2.0/.well-known/openid-configuration`. Raises Rejected."""
        self._check_tenant(tenant)
        base = f"{self.url}/{tenant}"
        return {
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": [
                "client_secret_post",
                "private_key_jwt",
                "client_secret_basic",
            ],
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": f"{self.url}/{self.tenant_id}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "tenant_region_scope": "EU",
            "msgraph_host": "graph.microsoft.com",
        }

    def grant(self, tenant: str, form: Mapping[str, str]) -> Json:
        """`…/oauth2/v2.0/token` with client credentials. Raises Rejected."""
        self._check_tenant(tenant)
        if form.get("grant_type") != "client_credentials":
            raise Rejected(
                70003, "The app requested an unsupported grant type.", "unsupported_grant_type", 400
            )
        for name in ("client_id", "scope"):
            if not form.get(name):
                message = f"The request body must contain the following parameter: '{name}'."
                raise Rejected(900144, message, "invalid_request", 400)
        app = self._apps.get(form["client_id"])
        if app is None:
            message = (
                f"Application with identifier '{form['client_id']}' was not found in the directory. "
                "You may have sent your authentication request to the wrong tenant."
            )
            raise Rejected(700016, message, "unauthorized_client", 400)
        self._check_credential(app, tenant, form)
        audience = self._audience(form["scope"])
        content = self._issue(app.client_id, app.roles, audience, form.get("claims"))
        return {
            "token_type": "Bearer",
            "expires_in": self._seconds(),
            "ext_expires_in": self._seconds(),
            **content,
        }

    def grant_managed(self, query: Mapping[str, str], metadata: str | None) -> tuple[int, Json]:
        """The metadata service of a machine in Azure: status and content."""
        app = self._apps.get(self.managed or "")
        if metadata != "true" or "api-version" not in query:
            return 400, {
                "error": "invalid_request",
                "error_description": "Required metadata header not specified",
            }
        if app is None or query.get("client_id", app.client_id) != app.client_id:
            return 400, {"error": "invalid_request", "error_description": "Identity not found"}
        resource = query.get("resource", "").rstrip("/")
        if resource not in self.audiences:
            return 400, {"error": "invalid_resource", "error_description": f"AADSTS500011: {resource}"}
        content = self._issue(app.client_id, app.roles, resource, None)
        ends = str(int((self._clock.now() + self.token_life).timestamp()))
        return 200, {
            **content,
            "client_id": app.client_id,
            "expires_in": str(self._seconds()),
            "expires_on": ends,
            "resource": resource,
            "token_type": "Bearer",
        }

    def roles_of(self, authorization: str | None) -> frozenset[str]:
        """Of whoever shows this header. Raises Refusal."""
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise self._refused("Access token is empty.")
        token = self._tokens.get(text)
        if token is None:
            raise self._refused("Access token validation failure. Signature validation failed.")
        if token.expires <= self._clock.now():
            raise self._refused("Lifetime validation failed, the token is expired.")
        if self._challenge and token.issued <= self._challenge[0]:
            claims = base64.b64encode(self._challenge[1].encode()).decode()
            raise self._refused(
                "Continuous access evaluation resulted in challenge with result: InteractionRequired and "
                "code: TokenIssuedBeforeRevocationTimestamp",
                f', error="insufficient_claims", claims="{claims}"',
            )
        return token.roles

    def error(self, rejected: Rejected) -> Json:
        """In the token endpoint's shape."""
        now = self._clock.now().strftime("%Y-%m-%d %H:%M:%SZ")
        trace, correlation = str(uuid.UUID(int=0, version=4)), str(uuid.UUID(int=1, version=4))
        description = (
            f"AADSTS{rejected.number}: {rejected.message} Trace ID: {trace} Correlation ID: {correlation} "
            f"Timestamp: {now}"
        )
        return {
            "error": rejected.error,
            "error_description": description,
            "error_codes": [rejected.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"{self.url}/error?code={rejected.number}",
        }

    # How

    def _seconds(self) -> int:
        return int(self.token_life.total_seconds())

    def _check_tenant(self, tenant: str) -> None:
        if tenant not in self.names:
            message = (
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are "
                "signing into the correct cloud."
            )
            raise Rejected(90002, message, "invalid_tenant", 400)

    def _check_credential(self, app: App, tenant: str, form: Mapping[str, str]) -> None:
        if "client_assertion" in form:
            if form.get("client_assertion_type") != ASSERTION:
                raise Rejected(50027, "JWT token is invalid or malformed.", "invalid_request", 400)
            if form["client_assertion"] not in app.federated:
                self._check_assertion(app, tenant, form["client_assertion"])
            return
        secret = form.get("client_secret")
        if secret is None:
            names = "'client_assertion' or 'client_secret'"
            raise Rejected(7000218, f"The request body must contain the following parameter: {names}.")
        if secret not in app.secrets:
            raise Rejected(
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client "
                f"secret value, not the client secret ID, for a secret added to app '{app.client_id}'.",
            )
        ends = app.secrets[secret]
        if ends is not None and ends <= self._clock.now():
            raise Rejected(
                7000222,
                f"The provided client secret keys for app '{app.client_id}' are expired. Visit the Azure "
                "portal to create new keys for your app.",
            )

    def _check_assertion(self, app: App, tenant: str, text: str) -> None:
        head, _, rest = text.partition(".")
        body, _, signature = rest.partition(".")
        try:
            header, claims = json.loads(_decoded(head)), json.loads(_decoded(body))
            signed = _decoded(signature)
        except (ValueError, NoBase64):
            raise Rejected(50027, "JWT token is invalid or malformed.", "invalid_request", 400) from None
        certificate = next((each for each in app.certificates if _is_named(each, header)), None)
        if certificate is None or not _is_signed(certificate, header, f"{head}.{body}".encode(), signed):
            message = (
                "The certificate with identifier used to sign the client assertion is not registered on "
                f"application '{app.client_id}'."
            )
            raise Rejected(700027, message)
        if claims.get("iss") != app.client_id or claims.get("sub") != app.client_id:
            raise Rejected(
                700021, "Client assertion application identifier doesn't match 'client_id' parameter."
            )
        if claims.get("aud") not in {f"{self.url}/{tenant}/oauth2/v2.0/token", f"{self.url}/{tenant}/v2.0"}:
            raise Rejected(700023, "Client assertion audience claim does not match the expected audience.")
        # Both ends with five minutes of grace, as clocks differ.
        now = datetime.now(UTC).timestamp()
        if not claims.get("nbf", 0) - 300 <= now <= claims.get("exp", 0) + 300:
            raise Rejected(700024, "Client assertion is not within its valid time range.")
        if not claims.get("jti"):
            raise Rejected(50027, "JWT token is invalid or malformed.", "invalid_request", 400)

    def _audience(self, scope: str) -> str:
        scopes = [each for each in scope.split() if each not in {"openid", "profile", "offline_access"}]
        if len(scopes) != 1 or not scopes[0].endswith("/.default"):
            message = (
                f"The provided value for scope {scope} is not valid. Client credential flows must have a "
                "scope value with /.default suffixed to the resource identifier (application ID URI)."
            )
            raise Rejected(1002012, message, "invalid_scope", 400)
        audience = scopes[0].removesuffix("/.default").rstrip("/")
        if audience not in self.audiences:
            message = f"The resource principal named {audience} was not found in the tenant named Example."
            raise Rejected(500011, message, "invalid_resource", 400)
        return audience

    def _issue(self, client_id: str, roles: Collection[str], audience: str, claims: str | None) -> Json:
        now = int(self._clock.now().timestamp())
        expires = self._clock.now() + self.token_life
        content: Json = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "iat": now,
            "nbf": now,
            "exp": int(expires.timestamp()),
            "app_displayname": "aim",
            "appid": client_id,
            "idtyp": "app",
            "tid": self.tenant_id,
            "uti": str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            "ver": "1.0",
        }
        if roles:
            content["roles"] = sorted(roles)
        # Nobody but Graph itself is to verify it: what stands for the signature means nothing.
        parts = ({"typ": "JWT", "alg": "RS256", "kid": "stand-in"}, content)
        text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        text += "." + _encoded(self._random.randbytes(32))
        number = len(self._tokens) + 1
        # One that doesn't answer the challenge is as old as those that were there before it.
        answers = self._challenge is None or _includes(claims, self._challenge[1])
        self._tokens[text] = _Token(client_id, frozenset(roles), expires, audience, number if answers else 0)
        return {"access_token": text}

    def _refused(self, message: str, more: str = "") -> Refusal:
        where = f'authorization_uri="{self.url}/common/oauth2/authorize", client_id="{_GRAPH_APP}"'
        challenge = f'Bearer realm="", {where}{more}'
        return Refusal(401, "InvalidAuthenticationToken", message, {"WWW-Authenticate": challenge})


def signing_certificate(name: str = "aim") -> tuple[x509.Certificate, str]:
    """A certificate that an application may sign its assertions with (RSA, as Entra ID wants it), and its
    private key in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate, pem.decode()


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _is_named(certificate: x509.Certificate, header: Mapping[str, str]) -> bool:
    """Whether the assertion's header names this certificate, by one of its thumbprints."""
    sha1 = _encoded(certificate.fingerprint(hashes.SHA1()))
    sha256 = _encoded(certificate.fingerprint(hashes.SHA256()))
    # Some clients pad it, though RFC 7515 has it without.
    return header.get("x5t", "").rstrip("=") == sha1 or header.get("x5t#S256", "").rstrip("=") == sha256


def _is_signed(
    certificate: x509.Certificate, header: Mapping[str, str], content: bytes, signature: bytes
) -> bool:
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    kinds: dict[str, padding.AsymmetricPadding] = {
        "RS256": padding.PKCS1v15(),
        "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size),
    }
    kind = kinds.get(header.get("alg", ""))
    if kind is None:
        return False
    try:
        key.verify(signature, content, kind, hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _includes(text: str | None, wanted: str) -> bool:
    """Whether the claims that a client asks for include those that it was told to."""
    try:
        given = json.loads(text or "{}").get("access_token", {})
    except ValueError:
        return False
    return all(given.get(name) == value for name, value in json.loads(wanted)["access_token"].items())
