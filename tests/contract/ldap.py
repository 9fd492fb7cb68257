"""What the tests of the LDAP bridge share: settings for the test servers, and reading through the bridge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aim.bridges.ldap.bridge import LdapSource
from aim.bridges.ldap.settings import LdapSettings
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import SourceError
from tests.servers import samba as ad
from tests.servers.samba import Samba
from tests.servers.slapd import PASSWORD, READER, SUFFIX, Slapd


def of_slapd(slapd: Slapd, **changed: Any) -> LdapSettings:
    """For its ordinary reader; time-outs are short, as everything is on this machine."""
    settings = LdapSettings(
        uris=(slapd.uri,),
        base=SUFFIX,
        bind_dn=READER,
        bind_password=PASSWORD,
        connect_timeout=5,
        read_timeout=20,
    )
    return replace(settings, **changed)


def of_samba(samba: Samba, **changed: Any) -> LdapSettings:
    """For its ordinary reader."""
    settings = LdapSettings(
        uris=(samba.uri,), base=ad.EMPLOYEES, bind_dn=ad.READER, bind_password=ad.PASSWORD, read_timeout=20
    )
    return replace(settings, **changed)


async def read(settings: LdapSettings) -> Directory:
    """What the bridge makes of it."""
    return await LdapSource(settings).read(Roster())


async def refused(settings: LdapSettings) -> SourceError:
    """The error that a read ends with: one line of cause, one of remedy."""
    with pytest.raises(SourceError) as caught:
        await read(settings)
    error = caught.value
    assert error.remedy
    assert "\n" not in error.message + error.remedy
    return error


def members(directory: Directory, external_id: str) -> list[str]:
    """The localparts in the one group of that name."""
    (group,) = directory.find(external_id)
    return directory.roster.localparts(group.members)
