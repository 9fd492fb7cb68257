"""What a loaded configuration holds: every spelling of a key, the defaults, and the warning."""

from __future__ import annotations

import ast
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aim.config
from aim.config import (
    NOT_BUILT,
    Config,
    DefaultRoomConfig,
    FederatedGroupConfig,
    GroupConfig,
    GuardConfig,
    LdapSource,
    LdifSource,
    Loaded,
    MsGraphSource,
    ProvisionerConfig,
    ScimSource,
    SpaceConfig,
    UserProvisionerConfig,
    load_config,
)
from aim.config.document import parse
from aim.errors import ConfigError

HEAD = "homeserver: {url: 'http://a', server_name: example.com}\nappservice: {as_token: one, hs_token: two}\n"
LDIF = "source: {type: ldif, path: /a.ldif}\n"
LDAP = "source:\n  type: ldap\n  uri: 'ldap://a'\n  base: dc=a\n"
SPACE = "spaces:\n  id: a\n  name: A\n"
SCIM = "source:\n  type: scim\n  client:\n    id: idp\n    token: t\n"


def load(tmp_path: Path, text: str) -> Loaded:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, {})


def config(tmp_path: Path, text: str) -> Config:
    return load(tmp_path, text).config


GROUPS = "[{externalId: x, agent: '@b:o.org'}, {externalId: y, powerLevel: 5, agent: '@b:o.org'}]"
SAME = {
    "one space or a list": (LDIF + SPACE, LDIF + "spaces:\n  - id: a\n    name: A\n"),
    "one subspace or a list": (
        LDIF + SPACE + "  subspaces: {id: b, name: B}\n",
        LDIF + SPACE + "  subspaces: [{id: b, name: B}]\n",
    ),
    "camelCase groups": (
        LDIF + SPACE + "  groups: [{externalId: x, powerLevel: 5}]\n",
        LDIF + SPACE + "  groups: {external_id: x, power_level: 5}\n",
    ),
    "federated groups in snake_case": (
        LDIF + SPACE + f"  federatedGroups: {GROUPS}\n",
        LDIF + SPACE + "  federated_groups: " + GROUPS.replace("externalId", "external_id") + "\n",
    ),
    "an agent before its groups": (
        LDIF + SPACE + f"  federatedGroups: {GROUPS}\n",
        LDIF
        + SPACE
        + "  federatedGroups: [agent: '@b:o.org', {externalId: x}, {externalId: y, powerLevel: 5}]\n",
    ),
    "an agent beside its groups": (
        LDIF + SPACE + f"  federatedGroups: {GROUPS}\n",
        LDIF
        + SPACE
        + "  federatedGroups:\n    agent: '@b:o.org'\n"
        + "    groups: [{externalId: x}, {externalId: y, powerLevel: 5}]\n",
    ),
    "a group's own agent wins": (
        LDIF + SPACE + f"  federatedGroups: {GROUPS}\n",
        LDIF + SPACE + "  federatedGroups:\n    agent: '@c:o.org'\n    groups: " + GROUPS + "\n",
    ),
    "one federated group": (
        LDIF + SPACE + "  federatedGroups: {externalId: x, agent: '@b:o.org'}\n",
        LDIF + SPACE + "  federatedGroups: [{externalId: x, agent: '@b:o.org'}]\n",
    ),
    "federates_with": (
        LDIF + "provisioner: {federates_with: ['@b:o.org']}\n",
        LDIF + "provisioner: {federation: {federates_with: ['@b:o.org']}}\n",
    ),
    "federatesWith": (
        LDIF + "provisioner: {federatesWith: '@b:o.org'}\n",
        LDIF + "provisioner: {federation: {federatesWith: ['@b:o.org']}}\n",
    ),
    "the provisioner in camelCase": (
        LDIF
        + "provisioner: {defaultRooms: [{id: r, properties: {joinRule: knock, roomVersion: 11}}], "
        + "allowedUsers: ['@x:.*'], inviteToPublicRooms: no, "
        + "guards: {abandonedSpaces: {perSpace: {atLeast: 1}}}}\n",
        LDIF
        + "provisioner: {default_rooms: [{id: r, properties: {join_rule: knock, room_version: '11'}}], "
        + "allowed_users: ['@x:.*'], invite_to_public_rooms: false, "
        + "guards: {abandoned_spaces: {per_space: {at_least: 1}}}}\n",
    ),
    "userProvisioner": (
        LDIF + "userProvisioner: {syncedAttributes: emails, deprovisioning: {softDeletePeriod: 1d}}\n",
        LDIF
        + "user_provisioner: {synced_user_attributes: [emails], deprovisioning: {soft_delete_period: 24h}}\n",
    ),
    "syncedUserAttributes": (
        LDIF + "userProvisioner: {syncedUserAttributes: [displayName]}\n",
        LDIF + "userProvisioner: {synced_attributes: [displayName]}\n",
    ),
    "an empty section": (LDIF + "provisioner:\nlogging:\n  level:\nspaces:\n", LDIF),
    "one URI or a list": (
        "source: {type: ldap, uri: 'ldap://a', base: dc=a, checkIntervalSeconds: 5}\n",
        "source: {type: ldap, uri: ['ldap://a/'], base: dc=a, check_interval_seconds: '5'}\n",
    ),
    "one attribute or a list": (
        "source: {type: ldif, path: /a, attributes: {name: cn}}\n",
        "source: {type: ldif, path: /a, attributes: {name: [cn]}}\n",
    ),
    "the mapping of SCIM attributes": (
        SCIM + "    attributeMapping: {username: externalId}\n",
        SCIM + "    attribute_mapping: {username: externalId}\n",
    ),
    "SCIM settings within the client": (
        SCIM + "    registerUsers: if-missing\n    synchronous_provisioning: true\n",
        SCIM + "  register_users: if-missing\n  synchronousProvisioning: yes\n",
    ),
    "a mailer within the client": (
        SCIM + "    mailer: {from: a@b.c, transport: {host: h}}\n",
        SCIM + "  mailer: {from: a@b.c, transport: {host: h}}\n",
    ),
    "a bare yes": (SCIM + "  register_users: yes\n", SCIM + "  register_users: true\n"),
    "a bare no": (SCIM + "  register_users: no\n", SCIM + "  register_users: 'false'\n"),
    "anchors and merge keys": (
        LDIF + "logging: &l {level: warn}\nspaces:\n  - &s {id: a, name: A, groups: &g [{externalId: ''}]}\n"
        "  - <<: *s\n    id: b\n  - {id: c, name: C, groups: *g}\n",
        LDIF + "logging: {level: warn}\nspaces:\n  - {id: a, name: A, groups: [{externalId: ''}]}\n"
        "  - {id: b, name: A, groups: [{externalId: ''}]}\n"
        "  - {id: c, name: C, groups: [{externalId: ''}]}\n",
    ),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_two_spellings_of_one_thing(tmp_path: Path, one: str, other: str) -> None:
    first, second = config(tmp_path, HEAD + one), config(tmp_path, HEAD + other)
    assert first == second
    assert repr(first) == repr(second)


def test_spaces_nest_and_groups_have_power_levels(tmp_path: Path) -> None:
    text = """\
spaces:
  id: all
  name: Everyone
  groups: [{externalId: ''}, {externalId: cn=mods, powerLevel: -1}]
  subspaces:
    - id: a
      name: A
      subspaces: {id: a1, name: A 1}
"""
    (space,) = config(tmp_path, HEAD + LDIF + text).spaces
    assert space == SpaceConfig(
        id="all",
        name="Everyone",
        groups=(GroupConfig(external_id=""), GroupConfig(external_id="cn=mods", power_level=-1)),
        subspaces=(SpaceConfig(id="a", name="A", subspaces=(SpaceConfig(id="a1", name="A 1"),)),),
    )


def test_an_agent_in_a_list_holds_for_the_groups_after_it(tmp_path: Path) -> None:
    text = """\
  federatedGroups:
    - {externalId: w, agent: '@one:o.org'}
    - agent: '@two:o.org'
    - externalId: x
    - agent: '@three:o.org'
    - externalId: y
"""
    (space,) = config(tmp_path, HEAD + LDIF + SPACE + text).spaces
    assert space.federated_groups == (
        FederatedGroupConfig(external_id="w", agent="@one:o.org"),
        FederatedGroupConfig(external_id="x", agent="@two:o.org"),
        FederatedGroupConfig(external_id="y", agent="@three:o.org"),
    )


def test_what_looks_like_a_number_is_text_where_text_is_meant(tmp_path: Path) -> None:
    text = (
        HEAD.replace("one", "0123")
        + LDIF
        + "spaces: {id: 007, name: 2024-01-01, groups: [{externalId: no}]}\n"
    )
    loaded = config(tmp_path, text)
    assert loaded.appservice.as_token.get_secret_value() == "0123"
    (space,) = loaded.spaces
    assert (space.id, space.name, space.groups[0].external_id) == ("007", "2024-01-01", "no")


def test_allowed_users_match_as_a_whole(tmp_path: Path) -> None:
    text = "provisioner: {allowed_users: ['@bot:example\\.com', '@audit-.*']}\n"
    provisioner = config(tmp_path, HEAD + LDIF + text).provisioner
    assert provisioner.allows("@bot:example.com")
    assert provisioner.allows("@audit-1:example.org")
    assert not provisioner.allows("@bot:example.com.evil.org")
    assert not provisioner.allows("@robot:example.com")
    assert not provisioner.allows("@bot:example.com\n")
    assert not ProvisionerConfig().allows("@bot:example.com")


def test_default_rooms_are_restricted_and_called_by_their_id_unless_configured(tmp_path: Path) -> None:
    text = "provisioner: {default_rooms: [{id: hall}, {id: b, properties: {name: News, encrypted: true}}]}\n"
    hall, news = config(tmp_path, HEAD + LDIF + text).provisioner.default_rooms
    assert (hall.name, hall.properties.join_rule, hall.properties.encrypted) == ("hall", "restricted", False)
    assert (news.name, news.properties.encrypted) == ("News", True)
    assert hall == DefaultRoomConfig(id="hall")


def test_guards_are_on_by_default_and_may_be_changed_one_by_one(tmp_path: Path) -> None:
    text = "provisioner: {guards: {kicks: {per_space: {percent: 50}}}}\n"
    guards = config(tmp_path, HEAD + LDIF + text).provisioner.guards
    assert (guards.kicks.per_space.at_least, guards.kicks.per_space.percent) == (3, 50)
    assert (guards.kicks.organisation.at_least, guards.kicks.organisation.percent) == (3, 10)
    others = (guards.demotions, guards.locks, guards.erasures, guards.releases, guards.abandoned_spaces)
    assert set(others) == {GuardConfig()}


PERIODS = [
    ("", timedelta(days=30)),
    ("userProvisioner:\n  deprovisioning: {enabled: true}\n", timedelta(days=30)),
    ("userProvisioner:\n  deprovisioning: {soft_delete_period: 90s}\n", timedelta(seconds=90)),
    ("userProvisioner:\n  deprovisioning: {soft_delete_period: 15m}\n", timedelta(minutes=15)),
    ("userProvisioner:\n  deprovisioning: {soft_delete_period: 1.5h}\n", timedelta(minutes=90)),
    ("user_soft_delete_period: 0s\n", timedelta(0)),
    (
        "user_soft_delete_period: '31d'\nuserProvisioner: {deprovisioning: {enabled: true}}\n",
        timedelta(days=31),
    ),
]


@pytest.mark.parametrize(("text", "period"), PERIODS)
def test_the_soft_delete_period_has_two_names_and_four_units(
    tmp_path: Path, text: str, period: timedelta
) -> None:
    assert config(tmp_path, HEAD + LDIF + text).soft_delete_period == period


def test_user_provisioner_is_off_unless_it_is_there(tmp_path: Path) -> None:
    assert config(tmp_path, HEAD + LDIF).user_provisioner is None
    there = config(tmp_path, HEAD + LDIF + "userProvisioner: {}\n").user_provisioner
    assert there == UserProvisionerConfig()
    assert there is not None
    assert there.synced_attributes == ("displayName", "emails")
    assert not there.deprovisioning.enabled


def test_each_source_has_its_class_and_defaults(tmp_path: Path) -> None:
    ldif = config(tmp_path, HEAD + LDIF).source
    assert isinstance(ldif, LdifSource)
    assert (ldif.check_interval_seconds, ldif.attributes.uid, ldif.attributes.mail) == (
        60,
        ("uid",),
        ("mail",),
    )
    assert (ldif.attributes.name, ldif.name) == (("displayName", "cn"), None)

    ldap = config(
        tmp_path, HEAD + "source: {type: ldap, uri: 'ldap://a', base: dc=a, full_read_interval: 2h}\n"
    ).source
    assert isinstance(ldap, LdapSource)
    assert (ldap.bind_dn, ldap.start_tls, ldap.full_read_interval) == (None, False, timedelta(hours=2))

    graph = "source: {type: ms-graph-ad, tenant_id: a, client_id: b, client_secret: c}\n"
    msgraph = config(tmp_path, HEAD + graph).source
    assert isinstance(msgraph, MsGraphSource)
    assert msgraph.base_url == "https://graph.microsoft.com"
    assert msgraph.scopes == ("https://graph.microsoft.com/.default",)

    scim = config(tmp_path, HEAD + SCIM + "  base_url: /scim/v2/\n").source
    assert isinstance(scim, ScimSource)
    assert (scim.base_url, scim.port, scim.register_users) == ("/scim/v2", None, "no")


def test_the_one_scim_token_may_do_everything(tmp_path: Path) -> None:
    text = SCIM + "    rbac: {synapse_user: admin, roles: 'read:*'}\n"
    source = config(tmp_path, HEAD + text).source
    assert isinstance(source, ScimSource)
    whole, reading = source.client.grants
    assert (whole.token and whole.token.get_secret_value(), whole.roles) == ("t", ("*:*",))
    assert (reading.token, reading.synapse_user, reading.roles) == (None, "admin", ("read:*",))


def test_the_mailer_may_stand_at_the_top_or_in_the_source(tmp_path: Path) -> None:
    mailer = "mailer: {from: a@b.c, transport: {host: h}}\n"
    assert config(tmp_path, HEAD + LDIF).mail is None
    for text in (LDIF + mailer, SCIM + mailer, SCIM + "  " + mailer, SCIM + "    " + mailer):
        mail = config(tmp_path, HEAD + text).mail
        assert mail is not None
        assert (mail.sender, mail.transport.port, mail.transport.secure) == ("a@b.c", 465, True)


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    loaded = config(tmp_path, HEAD + LDIF)
    with pytest.raises(ValueError, match="frozen"):
        loaded.spaces = ()  # type: ignore[misc]  # the type checker refuses it as well: that is the point


# The warning


def test_what_is_built_gives_no_warning(tmp_path: Path) -> None:
    text = (
        HEAD
        + LDIF
        + SPACE
        + "  groups: {externalId: '', powerLevel: 50}\n"
        + "  federatedGroups: {externalId: '', agent: '@b:o.org'}\n"
        + (
            "provisioner:\n  default_rooms: [{id: r}]\n  allowed_users: [a]\n  invite_to_public_rooms: true\n"
            "  invite_before_first_login: true\n  enforce_names: true\n  parallelism: 2\n"
            "  guards: {kicks: {}, demotions: {}, locks: {}, erasures: {}, releases: {},"
            " abandoned_spaces: {}}\n"
            "  gc: {enabled: true}\n"
            "  federation: {federates_with: '@b:o.org', max_power_level: 40, grace: 2h, kick_foreign: true}\n"
            "user_provisioner:\n"
            "  deprovisioning: {enabled: true, soft_delete_period: 1d, include_admins: true}\n"
            "mailer: {from: a@b.c, transport: {host: h}}\n"
            "logging: {level: info, format: json}\ndatabase: {url: 'postgres://a'}\ndata_dir: /d\n"
        )
    )
    assert load(tmp_path, text).warnings == ()


IDLE = {
    "source.attributes.avatar": f"{LDAP}  attributes: {{avatar: jpegPhoto}}\n",
    "group_power_level": "group_power_level: {cn=mods: 50}\n",
    "telemetry": "telemetry: {instance_id: a}\n",
}


def test_every_entry_of_the_table_is_tried() -> None:
    assert tuple(IDLE) == NOT_BUILT


@pytest.mark.parametrize("entry", IDLE)
def test_a_key_without_effect_is_named_in_the_warning(tmp_path: Path, entry: str) -> None:
    source = "" if entry.startswith("source") else LDIF
    (warning,) = load(tmp_path, HEAD + source + IDLE[entry]).warnings
    assert warning == f"{tmp_path}/config.yaml: accepted, but not built yet and without effect: {entry}"


def test_one_warning_names_them_all(tmp_path: Path) -> None:
    text = HEAD + LDIF + IDLE["telemetry"] + IDLE["group_power_level"]
    (warning,) = load(tmp_path, text).warnings
    assert warning.endswith("without effect: group_power_level, telemetry")


# The package


def test_what_is_exported_is_what_is_promised() -> None:
    assert set(aim.config.__all__) >= {
        "Config",
        "Loaded",
        "load_config",
        "SpaceConfig",
        "GroupConfig",
        "DefaultRoomConfig",
        "RoomProperties",
        "ProvisionerConfig",
        "GuardLimits",
        "GuardConfig",
        "LdifSource",
    }
    assert all(hasattr(aim.config, name) for name in aim.config.__all__)


def test_the_package_imports_only_what_it_needs() -> None:
    code = "import sys, aim.config; print(sorted(m for m in sys.modules if m.startswith('aim.')))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    ours = ast.literal_eval(output)
    assert {name for name in ours if not name.startswith("aim.config")} == {"aim.errors"}


@settings(deadline=None)
@given(st.text(st.sampled_from("ab:-[]{}#&*!|>'\"%@`,? \n\t$<~="), max_size=40))
def test_any_text_is_either_read_or_refused_cleanly(text: str) -> None:
    def read() -> str:
        """Empty, or the beginning of what is said against it."""
        try:
            parse(text, "config.yaml", {})
        except ConfigError as error:
            return error.message.partition(":")[0]
        return ""

    assert read() in {"", "config.yaml"}
