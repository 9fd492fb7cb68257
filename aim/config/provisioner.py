"""Models of how spaces, rooms and accounts are kept: the rules that are the same for every space."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from aim.config.fields import Duration, MxcUri, Mxid, Pattern, Text, as_list
from aim.config.section import Section


class RoomProperties(Section):
    """What a default room is like."""

    name: Text | None = None
    topic: str | None = None
    avatar: MxcUri | None = None
    encrypted: bool = False
    history_visibility: Literal["invited", "joined", "shared", "world_readable"] | None = None
    """None: as the homeserver does it."""
    join_rule: Literal["restricted", "public", "invite", "knock", "knock_restricted"] = "restricted"
    suggested: bool = False
    """Whether the space recommends the room to its members."""
    room_version: Text | None = None
    """None: the homeserver's default."""


class DefaultRoomConfig(Section):
    """A room that every space gets once."""

    id: Text
    """Never shown to anyone; a new id is a new room."""
    properties: RoomProperties = Field(default_factory=RoomProperties)

    @property
    def name(self) -> str:
        """What the room is called: its configured name, else its id."""
        return self.properties.name or self.id


class GuardLimits(Section):
    """The larger of the two is the limit: a number of people, and a share of all."""

    at_least: int = Field(default=3, ge=0)
    percent: int = Field(default=10, ge=0, le=100)


class GuardConfig(Section):
    """The limits of one destructive kind."""

    per_space: GuardLimits = Field(default_factory=GuardLimits)
    organisation: GuardLimits = Field(default_factory=GuardLimits)


class GuardsConfig(Section):
    """A guard for each destructive kind; the names are those of the kinds."""

    kicks: GuardConfig = Field(default_factory=GuardConfig)
    demotions: GuardConfig = Field(default_factory=GuardConfig)
    locks: GuardConfig = Field(default_factory=GuardConfig)
    erasures: GuardConfig = Field(default_factory=GuardConfig)
    releases: GuardConfig = Field(default_factory=GuardConfig)
    abandoned_spaces: GuardConfig = Field(default_factory=GuardConfig)


class FederationConfig(Section):
    """Other servers with an `aim` of their own: each looks after its own people in the spaces shared."""

    federates_with: Annotated[tuple[Mxid, ...], BeforeValidator(as_list)] = ()
    """MXIDs of the bots of other servers that we share spaces with."""
    max_power_level: int = Field(default=50, ge=0, le=98)
    """The highest level that their spaces can ask for our people; in our spaces their bots get one more."""
    grace: Duration = timedelta(hours=24)
    """How long the bot of a server that left a space of ours has to remove its people itself; 0: for ever."""
    kick_foreign: bool = False
    """Whether people of servers that no configured agent stands for are removed from spaces of ours that are
    federated."""

    @property
    def agent_level(self) -> int:
        """The level of other servers' bots in spaces that we made: above everybody whom they look after."""
        return self.max_power_level + 1


class GcConfig(Section):
    enabled: bool = False
    """Whether spaces that are no longer configured are abandoned, and their rooms released."""


class ProvisionerConfig(Section):
    MOVES = (("federates_with", "federation.federates_with"),)

    default_rooms: Annotated[tuple[DefaultRoomConfig, ...], BeforeValidator(as_list)] = ()
    allowed_users: Annotated[tuple[Pattern, ...], BeforeValidator(as_list)] = ()
    """MXIDs that match one of these as a whole are never kicked or demoted."""
    invite_to_public_rooms: bool = True
    """Whether people are invited to the rooms of their spaces, not only to the spaces."""
    invite_before_first_login: bool = False
    """Whether people without an account are invited all the same."""
    membership: Literal["invite", "join"] = "invite"
    """Whether people with an account are asked in, or are simply in."""
    enforce_names: bool = True
    """Whether a space that was renamed by hand gets its configured name back."""
    parallelism: int = Field(default=16, ge=1, le=256)
    """Requests to the homeserver at a time."""
    verify_interval: Duration = timedelta(hours=24)
    """Each managed room is compared with the homeserver once in this time, spread out."""
    guards: GuardsConfig = Field(default_factory=GuardsConfig)
    federation: FederationConfig = Field(default_factory=FederationConfig)
    gc: GcConfig = Field(default_factory=GcConfig)
    replace_unmanageable_rooms: bool = False
    """Whether a room whose creator stands above us is replaced by one of our own."""

    def allows(self, mxid: str) -> bool:
        """Whether `mxid` may be in any room whatever the directory says."""
        return any(pattern.fullmatch(mxid) for pattern in self.allowed_users)


DEFAULT_SOFT_DELETE_PERIOD = timedelta(days=30)


class DeprovisioningConfig(Section):
    enabled: bool = False
    soft_delete_period: Duration = DEFAULT_SOFT_DELETE_PERIOD
    """How long an account that left the directory is only locked, before it is erased."""
    include_admins: bool = False
    """Whether administrators of the homeserver are locked and erased like anybody."""


class UserProvisionerConfig(Section):
    """Present: accounts follow the directory."""

    SYNONYMS: ClassVar[Mapping[str, str]] = {"synced_user_attributes": "synced_attributes"}

    synced_attributes: Annotated[tuple[Literal["displayName", "emails"], ...], BeforeValidator(as_list)] = (
        "displayName",
        "emails",
    )
    targets: Annotated[tuple[Literal["synapse"], ...], BeforeValidator(as_list)] = ("synapse",)
    """Where accounts are kept up to date: the homeserver, whatever keeps its accounts (`homeserver.auth`)."""
    deprovisioning: DeprovisioningConfig = Field(default_factory=DeprovisioningConfig)
