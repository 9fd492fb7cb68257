"""Loading a configuration file: every way in which it can be wrong, the environment, and secrets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from aim.config import AppserviceConfig, Config, LdapSource, LdifSource, Loaded, ScimSource, load_config
from aim.errors import ConfigError

HOMESERVER = "homeserver: {url: 'http://127.0.0.1:8008', server_name: example.com}\n"
APPSERVICE = "appservice: {as_token: one, hs_token: two}\n"
SOURCE = "source: {type: ldif, path: people.ldif}\n"
BASE = HOMESERVER + APPSERVICE + SOURCE
"""Three lines; what a test adds begins in line 4."""


def load(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, environ or {})


def refuse(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The lines of the error, without the directory."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ)
    assert caught.value.remedy
    assert caught.value.__cause__ is None
    return caught.value.message.replace(f"{tmp_path}/", "").split("\n")


def test_a_minimal_file_loads_with_its_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, BASE)
    assert loaded.warnings == ()
    assert loaded.config.spaces == ()
    assert loaded.config.provisioner.parallelism == 16
    assert loaded.config.appservice.sender_localpart == "aim"


def test_relative_paths_start_from_the_directory_of_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, BASE).config
    assert isinstance(config.source, LdifSource)
    assert config.source.path == tmp_path / "people.ldif"
    assert config.data_dir == tmp_path / "data"
    assert load(tmp_path, BASE + "data_dir: /var/lib/aim\n").config.data_dir == Path("/var/lib/aim")


def nested(depth: int) -> str:
    """Spaces within spaces."""
    opening = ", subspaces: ".join(f"{{id: '{number}', name: A" for number in range(depth))
    return f"spaces: {opening}{'}' * depth}\n"


def test_spaces_may_be_nested_deeper_than_anybody_needs(tmp_path: Path) -> None:
    assert load(tmp_path, BASE + nested(100)).config.spaces[0].subspaces


WHOLE_FILE = [
    ("", "config.yaml:1: the file is empty"),
    ("# nothing but a comment\n", "config.yaml:1: the file is empty"),
    ("- a\n- b\n", "config.yaml:1: the file must be a mapping of keys to values at its top level"),
    ("just text\n", "config.yaml:1: the file must be a mapping of keys to values at its top level"),
    (
        BASE + "logging:\n  level: info\n format: json\n",
        "config.yaml:6: not valid YAML: while parsing a block mapping expected <block end>",
    ),
    (BASE + "data_dir: [a\n", "config.yaml:5: not valid YAML: while parsing a flow sequence"),
    (BASE + "---\n" + BASE, "config.yaml:4: not valid YAML: expected a single document"),
    (BASE + "data_dir: a\x07b\n", "config.yaml:4: not valid YAML: a character that YAML does not allow"),
    ("[" * 5000, "config.yaml:1: nested too deeply"),
    (BASE + nested(400), "config.yaml:1: nested too deeply"),
    (BASE + nested(300), "config.yaml:4: spaces.subspaces."),
]


@pytest.mark.parametrize(("text", "start"), WHOLE_FILE)
def test_a_file_that_is_no_mapping_in_yaml_is_one_error(tmp_path: Path, text: str, start: str) -> None:
    (line,) = refuse(tmp_path, text)
    assert line.startswith(start)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file") as caught:
        load_config(tmp_path / "absent.yaml", {})
    assert str(tmp_path / "absent.yaml") in caught.value.message
    assert "--config" in caught.value.remedy


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read: Permission denied"):
        load_config(tmp_path / "config.yaml", {})


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(BASE.encode() + b"data_dir: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:4: the file is not UTF-8 text"):
        load_config(path, {})


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + BASE).config.homeserver.server_name == "example.com"


LDAP = HOMESERVER + APPSERVICE + "source:\n  type: ldap\n  uri: ldap://example.com\n  base: dc=example\n"
SCIM = HOMESERVER + APPSERVICE + "source:\n  type: scim\n  client:\n    id: idp\n"
SPACE = "spaces:\n  id: a\n  name: A\n"

FAULTS = {
    # Keys
    "unknown key": (BASE + "loging: {}\n", '4: loging: unknown key; did you mean "logging"?'),
    "unknown key, nothing near": (BASE + "zzz: 1\n", "4: zzz: unknown key"),
    "unknown key in a list": (
        BASE + "provisioner:\n  default_rooms:\n    - id: a\n      properties:\n        nmae: x\n",
        '8: provisioner.default_rooms[0].properties.nmae: unknown key; did you mean "name"?',
    ),
    "near miss of a camelCase key": (
        BASE + SPACE + "  groups:\n    - externalID: ''\n",
        '8: spaces.groups[0].externalID: unknown key; did you mean "externalId"?',
    ),
    "near miss of the key of a secret file": (
        HOMESERVER + SOURCE + "appservice: {as_tokn_file: a, hs_token: b}\n",
        '3: appservice.as_tokn_file: unknown key; did you mean "as_token_file"?',
    ),
    "several sources": (BASE + "sources: []\n", '4: sources: unknown key; did you mean "source"?'),
    "duplicate key": (BASE + SOURCE, "4: source: is given twice, first in line 3"),
    "duplicate key inside": (
        BASE + "logging:\n  level: info\n  format: json\n  level: warn\n",
        "7: logging.level: is given twice, first in line 5",
    ),
    "one key in both spellings": (
        BASE + "provisioner:\n  default_rooms: []\n  defaultRooms: []\n",
        "6: provisioner.defaultRooms: is the same key as provisioner.default_rooms in line 5; "
        "keep one of them",
    ),
    "a key that is no text": (
        BASE + "? [a, b]\n: 1\n",
        "4: a key must be plain text (is a value missing its quotes?)",
    ),
    "missing key": (APPSERVICE + SOURCE, "1: homeserver: is missing"),
    "missing key inside": (
        BASE + "spaces:\n  - id: a\n    name: A\n  - id: b\n",
        "7: spaces[1].name: is missing",
    ),
    "missing key of a section": (
        HOMESERVER + SOURCE + "appservice:\n  as_token: x\n",
        "3: appservice.hs_token: is missing",
    ),
    "an empty key is missing": (
        BASE + SPACE + "  groups:\n    - externalId:\n",
        "8: spaces.groups[0].externalId: is missing",
    ),
    # Types
    "text for a mapping": (
        BASE + "provisioner: yes\n",
        "4: provisioner: must be a mapping of keys to values",
    ),
    "text for a space": (BASE + "spaces: everyone\n", "4: spaces: must be a mapping of keys to values"),
    "text for a source": (
        HOMESERVER + APPSERVICE + "source: ldap\n",
        "3: source: must be a mapping of keys to values",
    ),
    "mapping for text": (BASE + "spaces: {id: {a: b}, name: A}\n", "4: spaces.id: must be text"),
    "mapping for a path": (BASE + "data_dir: {a: b}\n", "4: data_dir: must be a path"),
    "list for text": (BASE + "spaces:\n  - id: a\n    name: [A, B]\n", "6: spaces[0].name: must be text"),
    "no number": (
        BASE + "provisioner:\n  parallelism: many\n",
        "5: provisioner.parallelism: must be a whole number",
    ),
    "no truth value": (
        BASE + "provisioner:\n  enforce_names: 2\n",
        "5: provisioner.enforce_names: must be true or false",
    ),
    "nothing in a list": (
        BASE + "provisioner:\n  default_rooms:\n    -\n",
        "6: provisioner.default_rooms[0]: must be a mapping of keys to values",
    ),
    "a list of sources": (
        HOMESERVER + APPSERVICE + "source:\n  - type: ldif\n    path: a\n",
        "3: source: must be one source, not a list: aim follows one directory",
    ),
    "a choice": (
        BASE + "logging:\n  level: loud\n",
        "5: logging.level: must be 'error', 'warn', 'info', 'http', 'verbose', 'debug' or 'silly'",
    ),
    "a choice is case-sensitive": (
        BASE + "logging: {format: JSON}\n",
        "4: logging.format: must be 'pretty' or 'json'",
    ),
    "a source of no type": (
        HOMESERVER + APPSERVICE + "source:\n  path: a\n",
        "3: source.type: is missing: it says which kind of source this is",
    ),
    "a source of unknown type": (
        HOMESERVER + APPSERVICE + "source:\n  path: a\n  type: ladp\n",
        "5: source.type: must be one of 'ldif', 'ldap', 'ms-graph-ad', 'scim'",
    ),
    "a YAML tag": (BASE + "data_dir: !vault x\n", "4: data_dir: has a YAML tag; tags are not supported"),
    "an alias to itself": (
        BASE + "spaces: &a\n  id: a\n  name: A\n  subspaces: [*a]\n",
        "7: spaces.subspaces[0]: contains itself",
    ),
    "a merge of no mapping": (
        BASE + "logging:\n  <<: text\n",
        "5: logging.<<: must name a mapping, or a list of mappings",
    ),
    # Values
    "a regular expression": (
        BASE + "provisioner:\n  allowed_users:\n    - '@good:.*'\n    - '@bad:[a'\n",
        "7: provisioner.allowed_users[1]: is not a valid regular expression: "
        "unterminated character set at position 5",
    ),
    "a duration without unit": (
        BASE + "user_soft_delete_period: 30\n",
        "4: user_soft_delete_period: must be an amount and a unit, s, m, h or d: 90s, 15m, 24h, 30d",
    ),
    "a duration of weeks": (
        BASE + "userProvisioner:\n  deprovisioning:\n    softDeletePeriod: 4w\n",
        "6: userProvisioner.deprovisioning.softDeletePeriod: must be an amount and a unit, "
        "s, m, h or d: 90s, 15m, 24h, 30d",
    ),
    "a duration beyond time": (
        BASE + f"user_soft_delete_period: {'9' * 20}d\n",
        "4: user_soft_delete_period: is too long a time",
    ),
    "a power level too high": (
        BASE + SPACE + "  groups: [{externalId: '', powerLevel: 101}]\n",
        "7: spaces.groups[0].powerLevel: must be at most 100",
    ),
    "a power level of words": (
        BASE + SPACE + "  groups: [{externalId: '', powerLevel: true}]\n",
        "7: spaces.groups[0].powerLevel: must be a whole number",
    ),
    "no parallelism": (
        BASE + "provisioner: {parallelism: 0}\n",
        "4: provisioner.parallelism: must be at least 1",
    ),
    "a port": (BASE + "listen: {port: 65536}\n", "4: listen.port: must be at most 65535"),
    "an empty space id": (BASE + "spaces: {id: '', name: A}\n", "4: spaces.id: must not be empty"),
    "a space id with a space before it": (
        BASE + "spaces: {id: ' a', name: A}\n",
        "4: spaces.id: must not begin or end with a space",
    ),
    "a space id with a control character": (
        BASE + 'spaces: {id: "a\\tb", name: A}\n',
        "4: spaces.id: must not contain control characters",
    ),
    "an empty name": (BASE + "spaces: {id: a, name: ''}\n", "4: spaces.name: must not be empty"),
    "no spaces": (
        BASE + "spaces: []\n",
        "4: spaces: must not be empty; without the key there is one space for everyone",
    ),
    "an avatar that is no media": (
        BASE + "provisioner: {default_rooms: [{id: a, properties: {avatar: 'https://example.com/a.png'}}]}\n",
        "4: provisioner.default_rooms[0].properties.avatar: must be an mxc:// URI of uploaded media",
    ),
    "two attributes in one name": (
        HOMESERVER + APPSERVICE + "source: {type: ldif, path: a, attributes: {name: 'displayName,cn'}}\n",
        "3: source.attributes.name: must be the name of an attribute; several make a list",
    ),
    "no attribute": (
        HOMESERVER + APPSERVICE + "source: {type: ldif, path: a, attributes: {name: []}}\n",
        "3: source.attributes.name: must not be empty",
    ),
    "an empty path": (
        HOMESERVER + APPSERVICE + "source: {type: ldif, path: ''}\n",
        "3: source.path: must not be empty",
    ),
    "a federated server": (
        BASE + "provisioner:\n  federates_with: ['example.org']\n",
        "5: provisioner.federates_with[0]: must be a Matrix user id such as @aim:example.com",
    ),
    # Between keys
    "a space id twice": (
        BASE
        + SPACE
        + "  subspaces:\n    - id: b\n      name: B\n      subspaces:\n        - {id: a, name: C}\n",
        '11: spaces.subspaces[0].subspaces[0].id: is the id of a space already, in line 5: "a"',
    ),
    "a default room id twice": (
        BASE + "provisioner:\n  defaultRooms:\n    - id: a\n    - id: b\n    - id: a\n",
        '8: provisioner.defaultRooms[2].id: is the id of a default room already, in line 6: "a"',
    ),
    "a space that is called like a room": (
        BASE
        + "provisioner: {default_rooms: [{id: hall}]}\n"
        + "spaces:\n  - {id: a, name: A}\n  - {id: a/hall, name: B}\n",
        '7: spaces[1].id: collides with the default room "hall" of the space "a": both would be "a/hall"',
    ),
    "two rooms that are called alike": (
        BASE
        + "provisioner: {default_rooms: [{id: c}, {id: b/c}]}\n"
        + "spaces:\n  - {id: a, name: A}\n  - {id: a/b, name: B}\n",
        '7: spaces[1].id: its default room "c" collides with the default room "b/c" of the space "a": '
        'both would be "a/b/c"',
    ),
    "mas without its settings": (
        APPSERVICE
        + SOURCE
        + "homeserver:\n  url: https://example.com\n  server_name: example.com\n  auth: mas\n",
        "3: homeserver.mas: is missing: auth is mas",
    ),
    "equal tokens": (
        HOMESERVER + SOURCE + "appservice:\n  as_token: one\n  hs_token: one\n",
        "5: appservice.hs_token: must differ from as_token",
    ),
    "a bind without password": (
        LDAP + "  bind_dn: cn=reader\n",
        "3: source.bind_password: is missing: bind_dn is given",
    ),
    "a password without bind": (
        LDAP + "  bind_password: x\n",
        "3: source.bind_dn: is missing: bind_password is given",
    ),
    "TLS twice": (
        (LDAP + "  start_tls: true\n").replace("ldap://", "ldaps://"),
        "7: source.start_tls: does not go with an ldaps:// uri, which is TLS already",
    ),
    "a base in the LDAP URI": (
        LDAP.replace("ldap://example.com", "ldap://example.com/dc=example"),
        "5: source.uri: must name only the server; the base belongs in `base`",
    ),
    "two certificates": (
        LDAP + "  cert:\n    file: a\n    cert: b\n",
        "9: source.cert.cert: source.cert.file is given too; keep one of them",
    ),
    "no certificate": (LDAP + "  cert:\n    passphrase: a\n", "7: source.cert: must have file or cert"),
    "nobody may use SCIM": (SCIM, "5: source.client: must have token or rbac, or nobody could use it"),
    "a grant to two": (
        SCIM + "    rbac:\n      - {token: a, synapse_user: admin, roles: '*:*'}\n",
        "8: source.client.rbac[0]: must have either token or synapse_user",
    ),
    "a role": (
        SCIM + "    rbac:\n      - {token: a, roles: ['*:*', 'delete:users']}\n",
        "8: source.client.rbac[0].roles[1]: must be '*:*', '*:users', '*:groups', 'read:*', 'read:users', "
        "'read:groups', 'write:*', 'write:users' or 'write:groups'",
    ),
    "a SCIM setting in both places": (
        SCIM + "    token: a\n    register_users: no\n  register_users: yes\n",
        "8: source.client.register_users: source.register_users is given too; keep one of them",
    ),
    "federates_with in both places": (
        BASE + "provisioner:\n  federates_with: []\n  federation: {federatesWith: []}\n",
        "5: provisioner.federates_with: provisioner.federation.federatesWith is given too; keep one of them",
    ),
    "two mailers": (
        SCIM
        + "    token: a\n  mailer: {from: a@example.com, transport: {host: example.com}}\n"
        + "mailer: {from: a@example.com, transport: {host: example.com}}\n",
        "9: mailer: is given in source too; keep one of them",
    ),
    "two periods": (
        BASE + "user_soft_delete_period: 1d\nuserProvisioner: {deprovisioning: {soft_delete_period: 1d}}\n",
        "4: user_soft_delete_period: is the older name of soft_delete_period, which is given too; "
        "keep one of them",
    ),
    "a federated group without agent": (
        BASE + SPACE + "  federatedGroups:\n    - externalId: x\n",
        "8: spaces.federatedGroups[0].agent: is missing",
    ),
    "a wrong agent for several groups is told once": (
        BASE
        + SPACE
        + "  federatedGroups:\n    agent: nobody\n    groups: [{externalId: x}, {externalId: y}]\n",
        "8: spaces.federatedGroups.agent: must be a Matrix user id such as @aim:example.com",
    ),
    "a stranger among agent and groups": (
        BASE + SPACE + "  federatedGroups:\n    agent: '@aim:example.org'\n    groups: []\n    extra: 1\n",
        "7: spaces.federatedGroups: a mapping takes the keys agent and groups only",
    ),
    # Environment
    "an environment variable": (
        BASE + "spaces:\n  id: a\n  name: ${AIM_NAME}\n",
        "6: spaces.name: the environment variable AIM_NAME is not set",
    ),
    "a number from the environment": (
        BASE + "provisioner:\n  parallelism: ${AIM_PARALLELISM}\n",
        "5: provisioner.parallelism: the environment variable AIM_PARALLELISM is not set",
    ),
    "a reference without end": (
        BASE + "data_dir: a${b\n",
        "4: data_dir: has a ${ without a name and }; write $${ for a literal ${",
    ),
}


@pytest.mark.parametrize(("text", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_names_line_path_and_cause(tmp_path: Path, text: str, expected: str) -> None:
    assert refuse(tmp_path, text) == [f"config.yaml:{expected}"]


URL = "3: homeserver.url: must be a URL such as https://matrix.example.com"
URLS = [
    ("example.com", URL),
    ("ftp://example.com", URL),
    ("http://", URL),
    ("http://exa mple.com", URL),
    ("http://example.com:99999", URL),
    ("http://[::1", URL),
    ("http://aim:pw@example.com", "3: homeserver.url: must not carry a user name or password"),
    ("http://example.com?x=1", "3: homeserver.url: must not have a query or fragment"),
    ("http://example.com#x", "3: homeserver.url: must not have a query or fragment"),
]


@pytest.mark.parametrize(("url", "expected"), URLS)
def test_a_bad_url_is_refused(tmp_path: Path, url: str, expected: str) -> None:
    text = APPSERVICE + SOURCE + f"homeserver: {{url: '{url}', server_name: example.com}}\n"
    assert refuse(tmp_path, text) == [f"config.yaml:{expected}"]


@pytest.mark.parametrize(
    "name", ["https://example.com", "exa_mple.com", "example.com:", "a b", "@aim:example.com", "[::1", ""]
)
def test_a_bad_server_name_is_refused(tmp_path: Path, name: str) -> None:
    text = APPSERVICE + SOURCE + f"homeserver: {{url: 'http://a', server_name: '{name}'}}\n"
    said = "config.yaml:3: homeserver.server_name: must be a server name such as example.com, no URL"
    assert refuse(tmp_path, text) == [said]


@pytest.mark.parametrize(
    "name", ["example.com", "example.com:8448", "localhost", "192.0.2.1", "[2001:db8::1]:8448"]
)
def test_a_good_server_name_is_taken(tmp_path: Path, name: str) -> None:
    text = APPSERVICE + SOURCE + f"homeserver: {{url: 'http://a/', server_name: '{name}'}}\n"
    homeserver = load(tmp_path, text).config.homeserver
    assert homeserver.server_name == name
    assert homeserver.url == "http://a"


@pytest.mark.parametrize("name", ["@aim:example.com", "@aim", "Aim", "a im", "ä", ""])
@pytest.mark.parametrize("key", ["sender_localpart", "admin_user"])
def test_a_bad_localpart_is_refused(tmp_path: Path, key: str, name: str) -> None:
    section = "appservice" if key == "sender_localpart" else "homeserver"
    text = BASE.replace(f"{section}: {{", f"{section}: {{{key}: '{name}', ")
    (line,) = refuse(tmp_path, text)
    assert f"{section}.{key}: must be a localpart" in line


def test_all_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "homserver: {}\n"  # 1
        "appservice:\n"
        "  as_token: ${UNSET_TOKEN}\n"  # 3
        "  hs_token: two\n"
        "  hs_token: three\n"  # 5
        "source:\n"
        "  type: ldif\n"
        "  pth: a.ldif\n"  # 8
        "provisioner:\n"
        "  allowed_users: ['(', '@fine:.*', '[']\n"  # 10, twice
        "spaces:\n"
        "  - id: a\n"
        "    nam: A\n"  # 13
        "  - id: a\n"  # 14
        "    name: ''\n"  # 15
    )
    assert refuse(tmp_path, text) == [
        'config.yaml:1: homserver: unknown key; did you mean "homeserver"?',
        "config.yaml:3: appservice.as_token: the environment variable UNSET_TOKEN is not set",
        "config.yaml:5: appservice.hs_token: is given twice, first in line 4",
        'config.yaml:8: source.pth: unknown key; did you mean "path"?',
        "config.yaml:10: provisioner.allowed_users[0]: is not a valid regular expression: "
        "missing ), unterminated subpattern at position 0",
        "config.yaml:10: provisioner.allowed_users[2]: is not a valid regular expression: "
        "unterminated character set at position 0",
        'config.yaml:13: spaces[0].nam: unknown key; did you mean "name"?',
        'config.yaml:14: spaces[1].id: is the id of a space already, in line 12: "a"',
        "config.yaml:15: spaces[1].name: must not be empty",
    ]


# Environment


def test_variables_are_filled_in_whole_and_in_part(tmp_path: Path) -> None:
    text = BASE + (
        "provisioner:\n  parallelism: ${N}\n  enforce_names: ${NO}\n"
        "  allowed_users: ['${WHO}:.*', '@a$${b}:.*']\n"
    )
    provisioner = load(tmp_path, text, {"N": "4", "WHO": "@robot", "NO": "false"}).config.provisioner
    assert provisioner.parallelism == 4
    assert [pattern.pattern for pattern in provisioner.allowed_users] == ["@robot:.*", "@a${b}:.*"]
    assert provisioner.enforce_names is False


def test_what_a_variable_holds_is_not_looked_into(tmp_path: Path) -> None:
    config = load(tmp_path, BASE + "data_dir: /${A}\n", {"A": "${B} *x: [#"}).config
    assert config.data_dir == Path("/${B} *x: [#")


# Secrets

HIDDEN = "pw-7f3a9"
"""Must never be seen."""


def test_a_secret_may_be_read_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from file\r\n\n".replace(" ", "-"))
    text = HOMESERVER + SOURCE + "appservice: {as_token_file: token, hsTokenFile: '${DIR}/token2'}\n"
    (tmp_path / "token2").write_text("other")
    appservice = load(tmp_path, text, {"DIR": str(tmp_path)}).config.appservice
    assert appservice.as_token.get_secret_value() == "from-file"
    assert appservice.hs_token.get_secret_value() == "other"


def test_every_secret_has_its_file(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(HIDDEN)
    (tmp_path / "url").write_text("postgresql://aim:pw@localhost/aim\n")
    ldap = load(
        tmp_path,
        LDAP
        + "  bind_dn: cn=reader\n  bind_password_file: s\n"
        + "  cert: {cert_file: s, key_file: s, passphrase_file: s}\n"
        + "database: {url_file: url}\n"
        + "mailer: {from: a@example.com, transport: {host: a, auth: {user: a, pass_file: s}}}\n",
    ).config
    assert isinstance(ldap.source, LdapSource)
    assert ldap.source.cert is not None
    assert ldap.mailer is not None
    assert ldap.mailer.transport.auth is not None
    assert ldap.database.url is not None
    cert = ldap.source.cert
    secrets = [
        ldap.source.bind_password,
        cert.cert,
        cert.key,
        cert.passphrase,
        ldap.mailer.transport.auth.password,
    ]
    assert [secret.get_secret_value() for secret in secrets if secret] == [HIDDEN] * 5
    assert ldap.database.url.get_secret_value() == "postgresql://aim:pw@localhost/aim"
    scim = load(tmp_path, SCIM + "    token_file: s\n    rbac: [{token_file: s, roles: '*:*'}]\n").config
    assert isinstance(scim.source, ScimSource)
    assert [grant.token and grant.token.get_secret_value() for grant in scim.source.client.grants] == [
        HIDDEN
    ] * 2


SECRET_FILES = {
    "both": (
        "as_token: a, as_token_file: token",
        "3: appservice.as_token_file: appservice.as_token is given too; keep one of them",
    ),
    "absent": (
        "as_token_file: absent",
        "3: appservice.as_token_file: the file does not exist (relative paths start from DIR)",
    ),
    "a directory": ("as_token_file: .", "3: appservice.as_token_file: the file cannot be read as text"),
    "no text": ("as_token_file: binary", "3: appservice.as_token_file: the file cannot be read as text"),
    "empty": ("as_token_file: empty", "3: appservice.as_token_file: must not be empty"),
    "two lines": (
        "as_token_file: lines",
        "3: appservice.as_token_file: must be printable ASCII without spaces",
    ),
    "no path": ("as_token_file: [a]", "3: appservice.as_token_file: must be the path of a file"),
    "unset": (
        "as_token_file: '${UNSET}'",
        "3: appservice.as_token_file: the environment variable UNSET is not set",
    ),
}


@pytest.mark.parametrize(("keys", "expected"), SECRET_FILES.values(), ids=SECRET_FILES.keys())
def test_a_bad_secret_file_is_told_with_its_key(tmp_path: Path, keys: str, expected: str) -> None:
    for name, content in {"token": b"x", "binary": b"\xff\xfe", "empty": b"\n", "lines": b"a\nb\n"}.items():
        (tmp_path / name).write_bytes(content)
    text = HOMESERVER + SOURCE + f"appservice: {{{keys}, hs_token: two}}\n"
    assert refuse(tmp_path, text) == [f"config.yaml:{expected}".replace("DIR", str(tmp_path))]


LEAKS = {
    "mapping": "hs_token: {a: pw-7f3a9}",
    "list": "hs_token: [pw-7f3a9]",
    "spaces in it": "hs_token: 'pw-7f3a9 x'",
    "an alias": "hs_token: *pw-7f3a9",
    "an alias with a quote": "hs_token: *pw-7f3a9'x",
    "an alias like a token": "hs_token: *<pw-7f3a9>",
    "a tag": "hs_token: !pw-7f3a9 x",
    "a foreign tag": "hs_token: !a!pw-7f3a9 x",
    "an anchor": "hs_token: &pw-7f3a9",
    "a directive": "hs_token: %pw-7f3a9",
    "no quote at its end": "hs_token: 'pw-7f3a9",
    "an escape": 'hs_token: "\\pw-7f3a9"',
    "braces": "hs_token: {{ pw-7f3a9 }}",
    "a colon": "hs_token: pw-7f3a9: x: y",
    "half a reference": "hs_token: pw-7f3a9${",
    "another key is wrong": "hs_token: pw-7f3a9\n  as_tokn: x",
    "given twice": "hs_token: pw-7f3a9\n  hs_token: pw-7f3a9",
    "equal tokens": "hs_token: pw-7f3a9\n  actor_token: pw-7f3a9",
    "as a file name": "hs_token_file: pw-7f3a9",
    "from the environment": "hs_token: '${LEAK} ${LEAK}'",
}


@pytest.mark.parametrize("lines", LEAKS.values(), ids=LEAKS.keys())
def test_no_error_shows_a_secret(tmp_path: Path, lines: str, caplog: pytest.LogCaptureFixture) -> None:
    text = HOMESERVER + SOURCE + f"appservice:\n  as_token: one\n  {lines}\n"
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {"LEAK": HIDDEN})
    logging.getLogger("aim").error("failed", exc_info=caught.value)
    assert "Traceback" in caplog.text
    assert "pw-7f3a9" not in str(caught.value) + repr(caught.value) + caught.value.remedy
    assert "pw-7f3a9" not in caplog.text


DATABASES = ["mysql://aim:pw-7f3a9@localhost/aim", "postgresql://aim:pw-7f3a9@local host/aim", "pw-7f3a9"]


@pytest.mark.parametrize("url", DATABASES)
def test_a_bad_database_url_is_not_shown(tmp_path: Path, url: str) -> None:
    said = "config.yaml:4: database.url: must be a URL such as postgresql://aim:password@localhost/aim"
    assert refuse(tmp_path, BASE + f"database: {{url: '{url}'}}\n") == [said]


def test_no_representation_shows_a_secret(tmp_path: Path) -> None:
    text = BASE.replace("one", HIDDEN) + f"database: {{url: 'postgres://aim:{HIDDEN}@localhost/aim'}}\n"
    loaded = load(tmp_path, text)
    assert loaded.config.appservice.as_token.get_secret_value() == HIDDEN
    assert HIDDEN not in repr(loaded) + str(loaded.config) + loaded.config.model_dump_json()


def test_models_made_in_code_hide_their_input_too() -> None:
    with pytest.raises(ValidationError) as caught:
        AppserviceConfig(as_token=SecretStr(HIDDEN + " x"), hs_token=SecretStr("two"))
    assert HIDDEN not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"appservice": {"as_token": HIDDEN, "hs_token": [HIDDEN]}})
    assert HIDDEN not in str(caught.value)
    assert "appservice.hs_token" in str(caught.value)
