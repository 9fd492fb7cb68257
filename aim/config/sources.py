"""Models of the sources: one class for each kind of directory, told apart by `type`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from aim.config.document import Block
from aim.config.faults import Fault
from aim.config.fields import (
    Attributes,
    Duration,
    FilePath,
    GraphProperty,
    HttpsUrl,
    HttpUrl,
    LdapUri,
    ObjectId,
    Port,
    Seconds,
    Secret,
    Text,
    Token,
    UrlPrefix,
    as_list,
)
from aim.config.section import Section
from aim.config.server import MailerConfig


class LdifAttributes(Section):
    """Which attributes of an entry mean what. Of several names the first that has a value counts."""

    uid: Attributes = ("uid",)
    """The user name that becomes the localpart."""
    name: Attributes = ("displayName", "cn")
    id: Attributes = ("entryUUID", "objectGUID")
    """What never changes about an entry."""
    mail: Attributes = ("mail",)


class LdapAttributes(LdifAttributes):
    avatar: Attributes | None = None
    enabled: Attributes | None = None
    """Says whether an account is enabled, beside what the kind of server has for it."""


class LdifSource(Section):
    """An export of an LDAP directory in a file (RFC 2849)."""

    type: Literal["ldif"]
    path: FilePath
    name: Text | None = None
    """What the organisation is called; None: as its topmost entry says."""
    check_interval_seconds: Seconds = 60
    attributes: LdifAttributes = Field(default_factory=LdifAttributes)
    mirror_tree: bool = False
    """Whether the units and domains become nested spaces."""


class ClientCertConfig(Section):
    """Our certificate, with its private key. What is not a path is PEM text."""

    file: FilePath | None = None
    cert: Secret | None = None
    key: Secret | None = None
    """Private key; None: it is in the same PEM as the certificate."""
    passphrase: Secret | None = None

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        if "file" in block and "cert" in block:
            yield Fault.at(
                block.place_of("cert"), f"{block.place_of('file').path} is given too; keep one of them"
            )
        if "file" not in block and "cert" not in block:
            yield Fault.at(block.place, "must have file or cert")


class LdapSource(Section):
    """An LDAP server, Active Directory included."""

    type: Literal["ldap"]
    check_interval_seconds: Seconds = 60
    uri: Annotated[tuple[LdapUri, ...], BeforeValidator(as_list), Field(min_length=1)]
    """Servers in order of preference."""
    base: Text
    filter: Text | None = None
    bind_dn: Text | None = None
    """None: anonymous, or by certificate."""
    bind_password: Secret | None = None
    attributes: LdapAttributes = Field(default_factory=LdapAttributes)
    cert: ClientCertConfig | None = None
    start_tls: bool = False
    ca_cert: FilePath | None = None
    """None: the authorities that the system trusts."""
    mirror_tree: bool = False
    """Whether the containers below `base` become nested spaces."""
    full_read_interval: Duration = timedelta(hours=1)
    connect_timeout: Duration = timedelta(seconds=10)
    read_timeout: Duration = timedelta(seconds=120)

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        # RFC 4513, 5.1.2: a name without a password binds as nobody, and the server says it succeeded.
        if "bind_dn" in block and "bind_password" not in block:
            yield Fault.at(block.place_of("bind_password"), "is missing: bind_dn is given")
        if "bind_password" in block and "bind_dn" not in block:
            yield Fault.at(block.place_of("bind_dn"), "is missing: bind_password is given")
        uris = as_list(block.get("uri"))
        secure = isinstance(uris, list) and any(str(uri).startswith("ldaps:") for uri in uris)
        if secure and str(block.get("start_tls", "")).lower() in {"true", "yes", "on"}:
            yield Fault.at(
                block.place_of("start_tls"), "does not go with an ldaps:// uri, which is TLS already"
            )

    @property
    def unencrypted(self) -> tuple[str, ...]:
        """The uris whose connections no TLS protects."""
        if self.start_tls:
            return ()
        return tuple(uri for uri in self.uri if not uri.lower().startswith("ldaps:"))


class MsGraphAttributes(Section):
    """Which properties of a user mean what."""

    uid: GraphProperty = "userPrincipalName"
    """The user name that becomes the localpart: of an address what is before the @."""


_CREDENTIALS = ("client_secret", "client_certificate", "managed_identity", "workload_identity")


class MsGraphSource(Section):
    """Microsoft Entra ID, through Microsoft Graph."""

    type: Literal["ms-graph-ad"]
    check_interval_seconds: Seconds = 60
    tenant_id: Text
    client_id: Text
    client_secret: Secret | None = None
    client_certificate: ClientCertConfig | None = None
    managed_identity: Text | None = None
    """`system`, or the client id of an identity that was assigned to the machine."""
    workload_identity: FilePath | None = None
    """The file with the token of another issuer that is trusted for the app."""
    authority: HttpUrl = "https://login.microsoftonline.com"
    base_url: HttpUrl = "https://graph.microsoft.com"
    scopes: Annotated[tuple[Text, ...], BeforeValidator(as_list), Field(min_length=1)] = (
        "https://graph.microsoft.com/.default",
    )
    ca_cert: FilePath | None = None
    """None: the authorities that the system trusts."""
    filter: Text | None = None
    """An OData filter for users."""
    groups: Annotated[tuple[ObjectId, ...], BeforeValidator(as_list)] = ()
    """The groups to read, with their members; empty: all, and everybody."""
    transitive: bool = True
    include_guests: bool = False
    attributes: MsGraphAttributes = Field(default_factory=MsGraphAttributes)
    full_read_interval: Duration = timedelta(hours=24)
    webhook_url: HttpsUrl | None = None
    """Where Graph reaches us with notices of changes."""
    connect_timeout: Duration = timedelta(seconds=10)
    read_timeout: Duration = timedelta(seconds=60)

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        given = [key for key in _CREDENTIALS if key in block]
        if not given:
            yield Fault.at(block.place, f"must have one of {', '.join(_CREDENTIALS)}")
        for key in given[1:]:
            yield Fault.at(
                block.place_of(key), f"{block.place_of(given[0]).path} is given too; keep one of them"
            )

    @property
    def scopes_in_force(self) -> tuple[str, ...]:
        """What to ask a token for: another Graph wants another one."""
        return self.scopes if "scopes" in self.model_fields_set else (f"{self.base_url}/.default",)


Role = Literal[
    "*:*",
    "*:users",
    "*:groups",
    "read:*",
    "read:users",
    "read:groups",
    "write:*",
    "write:users",
    "write:groups",
]
"""`access:scope`."""


class ScimGrant(Section):
    """Who may do what: the holder of a token, or whoever shows an admin's access token of the homeserver."""

    token: Token | None = None
    synapse_user: Literal["admin"] | None = None
    roles: Annotated[tuple[Role, ...], BeforeValidator(as_list), Field(min_length=1)]

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        if ("token" in block) == ("synapse_user" in block):
            yield Fault.at(block.place, "must have either token or synapse_user")


class ScimAttributeMapping(Section):
    username: Text = "userName"
    """The SCIM attribute that becomes the localpart."""


class ScimClient(Section):
    id: Text
    token: Token | None = None
    rbac: Annotated[tuple[ScimGrant, ...], BeforeValidator(as_list)] = ()
    attribute_mapping: ScimAttributeMapping = Field(default_factory=ScimAttributeMapping)

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        if "token" not in block and not block.get("rbac"):
            yield Fault.at(block.place, "must have token or rbac, or nobody could use it")

    @property
    def grants(self) -> tuple[ScimGrant, ...]:
        """All grants; the one `token` may do everything."""
        token: SecretStr | None = self.token
        return self.rbac if token is None else (ScimGrant(token=token, roles=("*:*",)), *self.rbac)


def _register(value: object) -> object:
    """YAML 1.1 habits: a bare yes or no may arrive as a truth value."""
    spelled = {True: "yes", False: "no", "true": "yes", "false": "no"}
    return spelled.get(value, value) if isinstance(value, (bool, str)) else value


class ScimSource(Section):
    """A SCIM 2.0 service that somebody else's identity system fills."""

    MOVES = (
        ("client.register_users", "register_users"),
        ("client.synchronous_provisioning", "synchronous_provisioning"),
        ("client.mailer", "mailer"),
    )

    type: Literal["scim"]
    port: Port | None = None
    """None: on the port of `listen`."""
    base_url: UrlPrefix = ""
    public_url: HttpUrl | None = None
    """Where clients reach it, `base_url` included; None: as the headers of each request say."""
    client: ScimClient
    register_users: Annotated[Literal["yes", "no", "if-missing"], BeforeValidator(_register)] = "no"
    synchronous_provisioning: bool = False
    mailer: MailerConfig | None = None


Source = Annotated[LdifSource | LdapSource | MsGraphSource | ScimSource, Field(discriminator="type")]
