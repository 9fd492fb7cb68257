"""The configuration: one YAML file in, one frozen `Config` out.

    load ── document   YAML → blocks that know their lines, `${ENV}` filled in
         ├─ root       the models: server, sources, spaces, provisioner; made of `fields`, based on `section`
         └─ built      the warning about what has no effect yet

Stands above `errors` only; everything that is wired gets its own part of `Config` handed in.
"""

from aim.config.built import NOT_BUILT
from aim.config.load import Loaded, load_config
from aim.config.provisioner import (
    DefaultRoomConfig,
    DeprovisioningConfig,
    FederationConfig,
    GcConfig,
    GuardConfig,
    GuardLimits,
    GuardsConfig,
    ProvisionerConfig,
    RoomProperties,
    UserProvisionerConfig,
)
from aim.config.root import Config
from aim.config.server import (
    AppserviceConfig,
    DatabaseConfig,
    HomeserverConfig,
    ListenConfig,
    LoggingConfig,
    MailAuthConfig,
    MailerConfig,
    MailTransportConfig,
    MasConfig,
    TelemetryConfig,
)
from aim.config.sources import (
    ClientCertConfig,
    LdapAttributes,
    LdapSource,
    LdifAttributes,
    LdifSource,
    MsGraphAttributes,
    MsGraphSource,
    ScimAttributeMapping,
    ScimClient,
    ScimGrant,
    ScimSource,
    Source,
)
from aim.config.spaces import FederatedGroupConfig, GroupConfig, SpaceConfig

__all__ = [
    "NOT_BUILT",
    "AppserviceConfig",
    "ClientCertConfig",
    "Config",
    "DatabaseConfig",
    "DefaultRoomConfig",
    "DeprovisioningConfig",
    "FederatedGroupConfig",
    "FederationConfig",
    "GcConfig",
    "GroupConfig",
    "GuardConfig",
    "GuardLimits",
    "GuardsConfig",
    "HomeserverConfig",
    "LdapAttributes",
    "LdapSource",
    "LdifAttributes",
    "LdifSource",
    "ListenConfig",
    "Loaded",
    "LoggingConfig",
    "MailAuthConfig",
    "MailTransportConfig",
    "MailerConfig",
    "MasConfig",
    "MsGraphAttributes",
    "MsGraphSource",
    "ProvisionerConfig",
    "RoomProperties",
    "ScimAttributeMapping",
    "ScimClient",
    "ScimGrant",
    "ScimSource",
    "Source",
    "SpaceConfig",
    "TelemetryConfig",
    "UserProvisionerConfig",
    "load_config",
]
