"""What must load: config.example.yaml and every example of the reference. Tables that must be complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from ruamel.yaml import YAML

from aim.config import NOT_BUILT, Config, GuardConfig, Loaded, MailerConfig, load_config
from aim.config.keys import shown
from aim.config.section import Section
from aim.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.yaml"
EXAMPLES = Path(__file__).parent / "spec_examples"
REFERENCE = ROOT.parent / "shared" / "spec" / "element-aim.md"
"""The reference of the keys, where it lies beside the checkout."""

PARTS = {
    "homeserver": "homeserver: {url: 'http://127.0.0.1:8008', server_name: example.com}\n",
    "appservice": "appservice: {as_token: one, hs_token: two}\n",
    "source": "source: {type: ldif, path: people.ldif}\n",
}


def completed(text: str) -> str:
    """`text` with the required parts that it lacks, after it so that its lines keep their numbers."""
    missing = [part for key, part in PARTS.items() if not re.search(rf"^{key}:", text, re.MULTILINE)]
    return "".join([text.rstrip("\n"), "\n", *missing])


def load(tmp_path: Path, text: str) -> Loaded:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, {})


# Every key, from the models


def models_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def is_list(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(map(is_list, get_args(annotation)))
    return get_origin(annotation) is tuple


def keys_of(model: type[Section], prefix: str = "", above: tuple[type, ...] = ()) -> Iterator[str]:
    """The paths of all keys as the documentation spells them; those of a source begin with `TYPE:`."""
    for name, field in model.model_fields.items():
        path = prefix + shown(field.alias or name)
        if path != "source":
            yield path
        for inner in models_in(field.annotation):
            if inner in (*above, model, GuardConfig) or (inner is MailerConfig and prefix):
                continue
            head = f"{path}[]." if is_list(field.annotation) else f"{path}."
            if path == "source":
                (kind,) = get_args(inner.model_fields["type"].annotation)
                head = f"{kind}:{path}."
            yield from keys_of(inner, head, (*above, model))


def test_the_list_of_keys_is_plausible() -> None:
    keys = list(keys_of(Config))
    assert len(keys) == len(set(keys)) > 100
    assert {
        "homeserver.mas.client_secret",
        "ldap:source.cert.passphrase",
        "mailer.transport.auth.pass",
    } <= set(keys)


# The documentation


def documented() -> dict[str, str]:
    """Key → the column `built`, from the tables of docs/configuration.md."""
    rows: dict[str, str] = {}
    kind = ""
    for line in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = re.search(r"source\.type: (\S+)", line)
            kind = f"{heading[1]}:" if heading else ""
        cells = [cell.strip() for cell in line.strip("|").split(" |")]
        if line.startswith("| `") and len(cells) == 5:
            rows[kind + cells[0].strip("`")] = cells[4]
    return rows


def is_built(key: str) -> bool:
    kind, _, path = key.rpartition(":")
    if kind and f"source.type: {kind}" in NOT_BUILT:
        return False
    return not any(path == entry or path.startswith((f"{entry}.", f"{entry}[")) for entry in NOT_BUILT)


def test_the_documentation_has_every_key_and_no_other() -> None:
    rows = documented()
    # `homeserver`, `appservice` and `spaces` have headings of their own; a row for them is free.
    assert set(keys_of(Config)) - set(rows) <= {"homeserver", "appservice"}
    assert set(rows) <= set(keys_of(Config))


def test_the_documentation_says_what_is_built() -> None:
    assert documented() == {key: "yes" if is_built(key) else "not yet" for key in documented()}


# config.example.yaml


def uncommented(line: str) -> str:
    """The setting that a line switches off: its `#` is followed by the key or by its indentation."""
    match = re.match(r"^(\s*)#((?:  )*(?! ).+)$", line)
    return f"{match[1]}{match[2]}" if match else line


def blocks(text: str) -> tuple[list[str], list[list[str]]]:
    """The lines that are in force or switched off within a block, and the blocks that are switched off."""
    lines: list[str] = []
    off: list[list[str]] = []
    source = text.splitlines()
    index = 0
    while index < len(source):
        if re.match(r"#\w+:", source[index]):
            block = list(takewhile(lambda line: re.match(r"#(?! \S)", line), source[index:]))
            off.append([uncommented(line) for line in block])
            index += len(block)
        else:
            lines.append(source[index])
            index += 1
    return lines, off


def replaced(lines: list[str], block: list[str]) -> str:
    """The file with `block` in the place of the block of the same name."""
    key = block[0].partition(":")[0]
    kept: list[str] = []
    inside = False
    for line in lines:
        if re.match(r"\w+:", line):
            inside = line.startswith(f"{key}:")
        if not inside:
            kept.append(line)
    return "\n".join([*kept, *block]) + "\n"


LINES, OFF = blocks(EXAMPLE.read_text(encoding="utf-8"))


def test_the_example_loads_as_it_is() -> None:
    loaded = load_config(EXAMPLE, {})
    assert loaded.warnings == ()
    assert loaded.config.source.type == "ldif"
    assert [space.id for space in loaded.config.spaces] == ["company"]


def test_the_settings_that_the_example_switches_off_load(tmp_path: Path) -> None:
    text = "\n".join(map(uncommented, LINES))
    config = load(tmp_path, text).config
    assert config.homeserver.admin_user == "root"
    assert config.provisioner.guards.locks == GuardConfig()
    assert config.spaces[0].federated_groups[0].agent == "@aim:example.org"


@pytest.mark.parametrize("block", OFF, ids=lambda block: " ".join(line.strip() for line in block[:2]))
def test_a_block_that_the_example_switches_off_loads(tmp_path: Path, block: list[str]) -> None:
    load(tmp_path, replaced(LINES, block))


def paths_in(value: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all keys of a YAML document."""
    if isinstance(value, dict):
        kind = f"{value['type']}:" if prefix == "source." else ""
        for key, inner in value.items():
            yield f"{kind}{prefix}{key}"
            yield from (f"{kind}{path}" for path in paths_in(inner, f"{prefix}{key}."))
    elif isinstance(value, list):
        for item in value:
            yield from paths_in(item, prefix[:-1] + "[].")


def test_the_example_has_every_key() -> None:
    texts = ["\n".join(map(uncommented, LINES)), *("\n".join(block) for block in OFF)]
    shown_keys = {path for text in texts for path in paths_in(YAML(typ="safe", pure=True).load(text))}
    # Of two that exclude each other the example can show only one.
    hidden = {
        "ldap:source.cert.cert",
        "ms-graph-ad:source.client_certificate.cert",
        "ms-graph-ad:source.managed_identity",
        "ms-graph-ad:source.workload_identity",
        "scim:source.mailer",
    }
    assert set(keys_of(Config)) - shown_keys == hidden


# The examples of the reference, in words of our own


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_kind_of_example_loads(tmp_path: Path, path: Path) -> None:
    load(tmp_path, completed(path.read_text(encoding="utf-8")))


INVALID = {
    # A plain scalar may not begin with a backtick (YAML 1.2, 5.3).
    "backtick-quotes": "config.yaml:5: not valid YAML: while scanning for the next token found character '`'",
    # A mapping cannot go on as a list.
    "agent-before-list": "config.yaml:6: not valid YAML: while parsing a block mapping expected <block end>",
}


def test_every_invalid_example_is_expected() -> None:
    assert {path.stem for path in (EXAMPLES / "invalid").glob("*.yaml")} == set(INVALID)


@pytest.mark.parametrize(("name", "said"), INVALID.items(), ids=INVALID.keys())
def test_an_example_that_is_no_yaml_is_refused_with_its_line(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, completed((EXAMPLES / "invalid" / f"{name}.yaml").read_text(encoding="utf-8")))
    (line,) = caught.value.message.replace(f"{tmp_path}/", "").split("\n")
    assert line.startswith(said)


# The reference itself, if it is there

CONFIG_BLOCK = re.compile(
    r"^(?:- id|provisioner|userProvisioner|spaces|source|telemetry|logging):", re.MULTILINE
)


def fenced_blocks() -> dict[str, str]:
    """The blocks of the reference that are configuration, by the number of their first line."""
    found: dict[str, str] = {}
    if not REFERENCE.exists():
        return found
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        text = "\n".join(lines[start + 1 : end]) + "\n"
        if lines[start] in {"```", "```yml", "```yaml"} and CONFIG_BLOCK.search(text):
            # A bare list is a list of spaces.
            found[f"line {start + 2}"] = f"spaces:\n{text}" if text.startswith("- id:") else text
    return found


REFUSED = {
    "externalId: `": "backticks are no quotes in YAML",
    "agent: '@groupsync": "a mapping that goes on as a list",
}
"""What the blocks that are no valid YAML contain, and why they are none."""

if BLOCKS := fenced_blocks():

    @pytest.mark.parametrize("text", BLOCKS.values(), ids=BLOCKS.keys())
    def test_every_block_of_the_reference_loads_or_is_no_yaml(tmp_path: Path, text: str) -> None:
        if not any(marker in text for marker in REFUSED):
            load(tmp_path, completed(text))
            return
        with pytest.raises(ConfigError, match=r"config\.yaml:\d+: not valid YAML"):
            load(tmp_path, completed(text))

    def test_the_reference_is_read_whole() -> None:
        assert len(BLOCKS) == 15
        assert all(any(marker in text for text in BLOCKS.values()) for marker in REFUSED)
