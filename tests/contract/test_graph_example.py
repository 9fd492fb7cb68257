"""The examples of the configuration work as they are: only Graph and its authority are elsewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest

from aim import app
from aim.config import load_config
from aim.config.sources import MsGraphSource
from aim.directory.model import Directory
from aim.directory.roster import Roster
from tests.servers.graph import LEAST_ROLES, Graph, NewGraph
from tests.servers.graph_identity import Identity

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
REFERENCE = (ROOT / "tests" / "unit" / "spec_examples" / "source-ms-graph.yaml").read_text(encoding="utf-8")
"""With every key that the reference has for Graph."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def switched_off(text: str, kind: str) -> str:
    """The first source of that type, which is switched off, switched on."""
    block = re.findall(rf"(?m)^#source:\n#  type: {kind}\n(?:#.*\n)+", text)[0]
    return re.sub(r"(?m)^#", "", block)


def active(text: str) -> str:
    """The source that is switched on."""
    (block,) = re.findall(r"(?m)^source:\n(?:[ #].*\n)+", text)
    return str(block)


def moved(text: str, graph: Graph) -> str:
    """The same for that Graph: nothing else is changed. Without an `authority` it gets one."""
    if not re.search(r"(?m)^ +authority:", text):
        text = re.sub(r"(?m)^( +)(base_url:)", r"\1authority: somewhere\n\1\2", text)
    for key, value in (("authority", graph.authority), ("base_url", graph.base_url)):
        text, count = re.subn(rf"(?m)^( +{key}:) .*$", rf"\1 {value}", text)
        assert count == 1, key
    return text


def belongs_to(graph: Graph, source: MsGraphSource) -> None:
    """The stand-in knows the tenant and the app of the example."""
    assert source.client_secret is not None
    graph.identity = Identity(source.tenant_id, graph.clock, graph.url)
    graph.identity.audiences.update(scope.removesuffix("/.default") for scope in source.scopes)
    registered = graph.identity.register(source.client_id, LEAST_ROLES)
    registered.secrets[source.client_secret.get_secret_value()] = None


def group(graph: Graph, group_id: str, members: Collection[str], patch: pytest.MonkeyPatch) -> None:
    """A group with that very id."""
    with patch.context() as patched:
        patched.setattr(graph.tenant, "guid", lambda: group_id)
        graph.tenant.add_group("Staff", members)


async def read(text: str, graph: Graph, folder: Path) -> tuple[MsGraphSource, Directory]:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    config = load_config(path, {}).config
    assert isinstance(config.source, MsGraphSource)
    belongs_to(graph, config.source)
    async with app.opened_source(config) as source:
        return config.source, await source.read(Roster())


async def test_the_example_of_the_whole_configuration(
    new_graph: NewGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = await new_graph()
    shutil.copy(graph.ca, tmp_path / "ca.pem")
    example = switched_off(EXAMPLE, "ms-graph-ad")
    ann = graph.tenant.add_user("ann", companyName="Example")
    bob = graph.tenant.add_user("bob", companyName="Elsewhere")
    graph.tenant.add_user("cleo", companyName="Example")
    (group_id,) = re.findall(r"groups: \[([0-9a-f-]+)\]", example)
    group(graph, group_id, [ann, bob], monkeypatch)
    text = EXAMPLE.replace(active(EXAMPLE), moved(example, graph))
    source, directory = await read(text, graph, tmp_path)
    assert source.webhook_url is not None, "all keys are in use"
    assert [user.localpart for user in directory.users] == ["ann"]
    assert [one.name for one in directory.find(group_id)] == ["Staff"]
    assert graph.strays == []


async def test_the_keys_of_the_reference(
    new_graph: NewGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = await new_graph()
    # It has no ca_cert: those count that the system trusts.
    monkeypatch.setenv("SSL_CERT_FILE", str(graph.ca))
    graph.tenant.add_group("Staff", [graph.tenant.add_user("ann"), graph.tenant.add_guest("eve@example.org")])
    text = EXAMPLE.replace(active(EXAMPLE), moved(REFERENCE, graph))
    _, directory = await read(text, graph, tmp_path)
    assert [user.localpart for user in directory.users] == ["ann"]
    assert [directory.roster.localparts(one.members) for one in directory.find("Staff")] == [["ann"]]
    assert graph.strays == []
