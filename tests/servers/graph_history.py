"""Random histories of a tenant, for the stand-in of Microsoft Graph: everything that an administrator may do.

history = History(tenant, seed=42)
for _ in range(30):
    history.step()
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.servers.graph_tenant import GROUPS, USERS, Tenant, Thing


class History:
    """The same seed does the same to an equal tenant."""

    def __init__(self, tenant: Tenant, seed: int) -> None:
        self._tenant = tenant
        self._chance = random.Random(seed)
        self._count = 0
        self._others: list[str] = []
        self._steps: Sequence[tuple[int, Callable[[], None]]] = (
            (6, self._add_user),
            (4, self._add_group),
            (1, self._add_other),
            (6, self._change_user),
            (3, self._change_group),
            (12, self._join),
            (6, self._leave),
            (4, self._delete),
            (2, self._purge),
            (3, self._restore),
        )

    def step(self, seed: int | None = None) -> None:
        """One change, or none where there is nothing to change. With a `seed` that decides what it is, and
        not the changes before."""
        if seed is not None:
            self._chance.seed(seed)
        weights = [weight for weight, _ in self._steps]
        self._chance.choices([do for _, do in self._steps], weights)[0]()

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _any(self, things: Sequence[Thing]) -> Thing | None:
        return self._chance.choice(things) if things else None

    def _add_user(self) -> None:
        number = self._number()
        if self._chance.random() < 0.2:
            self._tenant.add_guest(f"guest{number}@elsewhere.example")
        else:
            mail = self._chance.choice([None, f"person{number}@example.com"])
            self._tenant.add_user(f"person{number}", mail=mail)

    def _add_group(self) -> None:
        types = self._chance.choice([[], ["Unified"]])
        self._tenant.add_group(f"Group {self._number()}", groupTypes=types)

    def _add_other(self) -> None:
        kind = self._chance.choice(["device", "servicePrincipal", "orgContact"])
        self._others.append(self._tenant.add_other(kind, f"Thing {self._number()}"))

    def _change_user(self) -> None:
        user = self._any(self._tenant.all(USERS))
        if user is None:
            return
        number = self._number()
        changes: Sequence[dict[str, object]] = (
            {"displayName": f"Person {number}"},
            {"userPrincipalName": f"renamed{number}@example.com"},
            {"mail": None},
            {"mail": f"mail{number}@example.com", "mailNickname": f"nick{number}"},
            {"accountEnabled": not user.properties["accountEnabled"]},
            {"userType": self._chance.choice(["Member", "Guest"])},
            {"jobTitle": f"Title {number}"},
        )
        self._tenant.change(user.id, **self._chance.choice(changes))

    def _change_group(self) -> None:
        group = self._any(self._tenant.all(GROUPS))
        if group is not None:
            name = self._chance.choice(["displayName", "mailNickname", "description"])
            self._tenant.change(group.id, **{name: f"New {self._number()}"})

    def _join(self) -> None:
        group = self._any(self._tenant.all(GROUPS))
        here = [
            each.id for collection in (USERS, GROUPS) for each in self._tenant.all(collection)
        ] + self._others
        if group is not None:
            some = self._chance.sample(here, min(len(here), self._chance.randint(1, 6)))
            self._tenant.join(group.id, *(each for each in some if each != group.id))

    def _leave(self) -> None:
        group = self._any([each for each in self._tenant.all(GROUPS) if each.members])
        if group is not None:
            members = list(group.members)
            self._tenant.leave(group.id, *self._chance.sample(members, self._chance.randint(1, len(members))))

    def _delete(self) -> None:
        thing = self._any(self._tenant.all(self._chance.choice([USERS, GROUPS])))
        if thing is not None:
            self._tenant.delete(thing.id, forever=self._chance.choice([None, None, True]))

    def _purge(self) -> None:
        thing = self._any(self._gone())
        if thing is not None:
            self._tenant.purge(thing.id)

    def _restore(self) -> None:
        thing = self._any(self._gone())
        if thing is not None:
            self._tenant.restore(thing.id)

    def _gone(self) -> list[Thing]:
        return self._tenant.deleted(USERS) + self._tenant.deleted(GROUPS)
