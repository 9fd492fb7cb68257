"""Forgets somebody who was erased: all that `aim` remembers of them, in the caller's one transaction.

Between the recorder and `pseudonyms`. In comes a person; out go rows that are gone, and rows of the audit in
which a pseudonym stands for them. Whatever column holds a name is listed at the top of the migrations: one
that is added there has its place here.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import asyncpg

from aim.store.graph import forget_graph
from aim.store.pseudonyms import Erased, audit_key, keyed_hash, pseudonym
from aim.store.queries import QUERIES
from aim.store.scim_forgetting import forget_scim


async def forget(
    connection: asyncpg.Connection, user_id: str, mxid: str, emails: Collection[str] = ()
) -> Erased:
    """Forgets the person with that id and that account, within the caller's transaction. `emails` are theirs,
    besides those that are recorded."""
    key = await audit_key(connection)
    localpart = mxid[1:].partition(":")[0]
    known = {row["address"] for row in await connection.fetch(QUERIES["forget_addresses"], localpart)}
    person = Erased(mxid, user_id, pseudonym(key, mxid), tuple(sorted(known.union(emails))))
    await connection.execute(QUERIES["record_erased"], keyed_hash(key, localpart))
    await _rewrite_letters(connection, person)
    await _remove(connection, person)
    await _rewrite_mirror(connection, person)
    await _rewrite_guards(connection, person)
    await _rewrite_outcomes(connection, person)
    await _rewrite_plans(connection, person)
    await forget_scim(connection, user_id)
    await forget_graph(connection, key, user_id)
    return person


async def _remove(connection: asyncpg.Connection, person: Erased) -> None:
    await connection.execute(QUERIES["forget_seen_person"], person.user_id, person.localpart)
    await connection.execute(QUERIES["forget_queued"], person.user_id, person.localpart)
    await connection.execute(QUERIES["forget_entitled"], person.localpart)
    await connection.execute(QUERIES["forget_their_leaves"], person.localpart)
    await connection.execute(QUERIES["forget_stored_account"], person.localpart)
    await connection.execute(QUERIES["forget_member"], person.mxid)
    await connection.execute(QUERIES["forget_account"], person.localpart)
    await connection.execute(QUERIES["forget_doubts"], person.mxid)
    await connection.execute(QUERIES["forget_state"], person.mxid)
    # As for state whose sender the homeserver did not tell.
    await connection.execute(QUERIES["forget_sender"], person.mxid)


async def _rewrite_mirror(connection: asyncpg.Connection, person: Erased) -> None:
    # Contents are ASCII: see 0002_mirror.sql.
    needle = json.dumps(person.mxid)[1:-1]
    for room_id, kind, state_key, content in await connection.fetch(QUERIES["find_state"], needle):
        changed = person.in_state(content)
        if changed != content:
            await connection.execute(QUERIES["rewrite_state"], room_id, kind, state_key, changed)


async def _rewrite_guards(connection: asyncpg.Connection, person: Erased) -> None:
    for id_, identity, who in await connection.fetch(QUERIES["find_done"], person.localpart, person.encoded):
        counted = person.pseudonym if who == person.localpart else who
        await connection.execute(QUERIES["rewrite_done"], id_, person.in_identity(identity), counted)
    for row in await connection.fetch(QUERIES["find_held"], person.encoded):
        # Nothing about them is left to be held, and it is no audit: the next cycle writes the set anew.
        if person.in_identity(row["identity"]) != row["identity"]:
            await connection.execute(QUERIES["drop_held"], row["identity"])
    for id_, identity in await connection.fetch(QUERIES["find_approvals"], person.encoded):
        await connection.execute(QUERIES["rewrite_approval"], id_, person.in_identity(identity))


async def _rewrite_outcomes(connection: asyncpg.Connection, person: Erased) -> None:
    for cycle, position, *texts in await connection.fetch(QUERIES["find_outcomes"], person.names):
        changed = [None if text is None else person.in_text(text) for text in texts]
        if changed != texts:
            await connection.execute(QUERIES["rewrite_outcome"], cycle, position, *changed)


async def _rewrite_plans(connection: asyncpg.Connection, person: Erased) -> None:
    # As the names stand in JSON text.
    needles = [json.dumps(name, ensure_ascii=False)[1:-1] for name in person.names]
    for row in await connection.fetch(QUERIES["find_plans"], needles):
        # One at a time: each may be of megabytes.
        plan: str = await connection.fetchval(QUERIES["plan_of"], row["id"])
        changed = person.in_plan(plan)
        if changed != plan:
            await connection.execute(QUERIES["rewrite_plan"], row["id"], changed)


async def _rewrite_letters(connection: asyncpg.Connection, person: Erased) -> None:
    """One about them is blank from now on; one that others get too goes to those, without their name."""
    addresses = {address.lower() for address in person.emails}
    rows = await connection.fetch(QUERIES["find_letters"], person.localpart, person.names)
    for id_, key, localpart, recipients, *texts in rows:
        left = [address for address in recipients if address.lower() not in addresses]
        if localpart == person.localpart or not left:
            error = person.in_text(texts[-1])
            await connection.execute(QUERIES["blank_letter"], id_, error)
            continue
        subject, text, html, error = (person.in_text(text) for text in texts)
        kept = None if key is None or person.in_text(key) != key else key
        await connection.execute(QUERIES["rewrite_letter"], id_, kept, left, subject, text, html, error)
