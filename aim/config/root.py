"""The root model: a whole configuration file, and what must hold between its parts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

from aim.config.document import Block
from aim.config.faults import Fault
from aim.config.fields import Duration, FilePath, PowerLevel, as_list
from aim.config.ids import unique_ids
from aim.config.provisioner import (
    DEFAULT_SOFT_DELETE_PERIOD,
    ProvisionerConfig,
    UserProvisionerConfig,
)
from aim.config.section import Section
from aim.config.server import (
    DEFAULT_DATA_DIR,
    AppserviceConfig,
    DatabaseConfig,
    HomeserverConfig,
    ListenConfig,
    LoggingConfig,
    MailerConfig,
    TelemetryConfig,
)
from aim.config.sources import ScimSource, Source
from aim.config.spaces import SpaceConfig


def _one_source(value: object) -> object:
    if isinstance(value, (list, tuple)):
        raise ValueError("must be one source, not a list: aim follows one directory")  # noqa: TRY004 - for pydantic
    return value


class Config(Section):
    """Everything that can be configured. Frozen; equal files give equal configurations."""

    homeserver: HomeserverConfig
    appservice: AppserviceConfig
    listen: ListenConfig = Field(default_factory=ListenConfig)
    database: DatabaseConfig = Field(default_factory=DatabaseConfig)
    data_dir: FilePath = Field(default=DEFAULT_DATA_DIR, validate_default=True)
    source: Annotated[Source, BeforeValidator(_one_source)]
    provisioner: ProvisionerConfig = Field(default_factory=ProvisionerConfig)
    user_provisioner: UserProvisionerConfig | None = None
    user_soft_delete_period: Duration | None = None
    """Older name of user_provisioner.deprovisioning.soft_delete_period."""
    group_power_level: dict[str, PowerLevel] = Field(default_factory=dict)
    """Older way to give groups a power level in every space: external id → level."""
    spaces: Annotated[tuple[SpaceConfig, ...], BeforeValidator(as_list)] = ()
    """Empty if left out: one space for everyone."""
    telemetry: TelemetryConfig | None = None
    logging: LoggingConfig = Field(default_factory=LoggingConfig)
    mailer: MailerConfig | None = None

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        yield from unique_ids(block)
        if block.get("spaces") == []:
            yield Fault.at(
                block.place_of("spaces"), "must not be empty; without the key there is one space for everyone"
            )
        if _has_period(block.get("user_provisioner")) and "user_soft_delete_period" in block:
            text = "is the older name of soft_delete_period, which is given too; keep one of them"
            yield Fault.at(block.place_of("user_soft_delete_period"), text)
        source = block.get("source")
        if "mailer" in block and isinstance(source, dict) and "mailer" in source:
            yield Fault.at(block.place_of("mailer"), "is given in source too; keep one of them")

    @property
    def soft_delete_period(self) -> timedelta:
        """How long a locked account waits for its erasure, under whichever name it is configured."""
        if self.user_soft_delete_period is not None:
            return self.user_soft_delete_period
        if self.user_provisioner is not None:
            return self.user_provisioner.deprovisioning.soft_delete_period
        return DEFAULT_SOFT_DELETE_PERIOD

    @property
    def registers_users(self) -> bool:
        """Whether we make accounts for users who have none."""
        return isinstance(self.source, ScimSource) and self.source.register_users != "no"

    @property
    def mail(self) -> MailerConfig | None:
        """The mailer, wherever it is configured."""
        return (
            self.source.mailer if isinstance(self.source, ScimSource) and self.source.mailer else self.mailer
        )


def _has_period(value: object) -> bool:
    inner = value.get("deprovisioning") if isinstance(value, dict) else None
    return isinstance(inner, dict) and ("soft_delete_period" in inner or "softDeletePeriod" in inner)
