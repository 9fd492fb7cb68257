"""Subscriptions to changes, in the stand-in of Microsoft Graph: who is told of what, and in which words.

Pure: `graph` calls the addresses. Sources: "subscription resource type", "Create subscription", "Receive
change notifications through webhooks", "Reduce missing subscriptions and change notifications".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from tests.servers.graph_odata import Refusal, bad_request
from tests.servers.graph_tenant import GROUPS, USERS, Clock, Event, Tenant, What

Json = dict[str, Any]

_LONGEST = timedelta(minutes=41760)
_SHORTEST = timedelta(minutes=45)
_TYPES = {USERS: "User", GROUPS: "Group"}
_SETTABLE = frozenset(
    """changeType notificationUrl lifecycleNotificationUrl resource expirationDateTime clientState
    latestSupportedTlsVersion""".split()
)
# Created ones are told as `updated`, and so are those that can be restored.
_CHANGE_TYPES = frozenset({"updated", "deleted"})


@dataclass(slots=True)
class Subscription:
    id: str
    content: Json
    expires: datetime

    @property
    def collection(self) -> str:
        return str(self.content["resource"]).strip("/").partition("/")[0]


@dataclass(frozen=True, slots=True)
class Notification:
    """What is to be posted where."""

    url: str
    content: Json


class Subscriptions:
    def __init__(self, tenant: Tenant, clock: Clock) -> None:
        self._tenant = tenant
        self._clock = clock
        self._all: dict[str, Subscription] = {}
        self.pending: list[Notification] = []
        """What was not taken over yet, oldest first."""
        tenant.listeners.append(self._changed)

    def all(self) -> list[Subscription]:
        """Those that have not ended."""
        now = self._clock.now()
        return [each for each in self._all.values() if each.expires > now]

    def checked(self, body: object) -> Json:
        """A request for a new one. Raises Refusal."""
        content = _object(body)
        unknown = set(content) - _SETTABLE
        if unknown:
            raise bad_request(
                f"The property '{min(unknown)}' does not exist on type 'microsoft.graph.subscription'."
            )
        for name in ("changeType", "notificationUrl", "resource", "expirationDateTime"):
            if not isinstance(content.get(name), str):
                raise _invalid(f"{name} is required.")
        if not set(content["changeType"].split(",")) <= _CHANGE_TYPES:
            raise _invalid("Invalid changeType: users and groups support updated and deleted.")
        collection, _, rest = content["resource"].strip("/").partition("/")
        if collection not in _TYPES or "/" in rest or "?" in rest:
            raise _invalid(f"Resource '{content['resource']}' is not supported.")
        for name in ("notificationUrl", "lifecycleNotificationUrl"):
            if name in content and urlsplit(str(content[name])).scheme != "https":
                raise _invalid(f"{name} must be a https address.")
        if len(str(content.get("clientState", ""))) > 128:
            raise _invalid("clientState is longer than 128 characters.")
        self._end(content["expirationDateTime"])
        return content

    def create(self, content: Json, application_id: str) -> Json:
        """`content` was checked, and its addresses validated."""
        new = Subscription(self._tenant.guid(), dict(content), self._end(content["expirationDateTime"]))
        new.content.update(applicationId=application_id, creatorId=application_id)
        self._all[new.id] = new
        return _shown(new)

    def get(self, subscription_id: str) -> Json:
        return _shown(self._known(subscription_id))

    def renew(self, subscription_id: str, body: object) -> Json:
        subscription = self._known(subscription_id)
        content = _object(body)
        if not content or not set(content) <= {"expirationDateTime", "notificationUrl"}:
            raise bad_request("Only expirationDateTime and notificationUrl can be updated.")
        if "expirationDateTime" in content:
            subscription.expires = self._end(content["expirationDateTime"])
        subscription.content.update(content)
        return _shown(subscription)

    def delete(self, subscription_id: str) -> None:
        self._known(subscription_id)
        del self._all[subscription_id]

    def tell(self, subscription_id: str, lifecycle_event: str) -> None:
        """reauthorizationRequired, subscriptionRemoved (which also removes it), or missed."""
        subscription = self._known(subscription_id)
        url = subscription.content.get("lifecycleNotificationUrl")
        if url:
            self.pending.append(
                Notification(url, self._content(subscription, {"lifecycleEvent": lifecycle_event}))
            )
        if lifecycle_event == "subscriptionRemoved":
            del self._all[subscription_id]

    def _known(self, subscription_id: str) -> Subscription:
        for each in self.all():
            if each.id == subscription_id:
                return each
        raise Refusal(404, "ResourceNotFound", "The object was not found.")

    def _end(self, text: object) -> datetime:
        try:
            end = datetime.fromisoformat(str(text))
        except ValueError:
            raise _invalid("expirationDateTime is not a date.") from None
        if end.tzinfo is None:
            end = end.replace(tzinfo=UTC)
        left = end - self._clock.now()
        if left <= timedelta():
            raise _invalid("Subscription expiration is in the past.")
        # Graph counts generously at the upper end: clocks differ.
        if left > _LONGEST + timedelta(minutes=1):
            raise _invalid("Subscription expiration can only be 41760 minutes in the future.")
        return max(end, self._clock.now() + _SHORTEST)

    def _changed(self, collection: str, event: Event) -> None:
        if event.hidden:
            return
        kind = "deleted" if event.what is What.GONE and event.reason == "deleted" else "updated"
        for each in self.all():
            resource = str(each.content["resource"]).strip("/")
            if resource in {collection, f"{collection}/{event.id}"} and kind in each.content[
                "changeType"
            ].split(","):
                told = {
                    "changeType": kind,
                    "resource": f"{_TYPES[collection]}s/{event.id}",
                    "resourceData": {
                        "@odata.type": f"#Microsoft.Graph.{_TYPES[collection]}",
                        "@odata.id": f"{_TYPES[collection]}s/{event.id}",
                        "id": event.id,
                        "organizationId": self._tenant.id,
                    },
                }
                self.pending.append(Notification(each.content["notificationUrl"], self._content(each, told)))

    def _content(self, subscription: Subscription, told: Mapping[str, object]) -> Json:
        return {
            "value": [
                {
                    "subscriptionId": subscription.id,
                    "subscriptionExpirationDateTime": _text(subscription.expires),
                    "tenantId": self._tenant.id,
                    "clientState": subscription.content.get("clientState"),
                    **told,
                }
            ]
        }


def _shown(subscription: Subscription) -> Json:
    # The secret that was given is not told again.
    return {
        **subscription.content,
        "id": subscription.id,
        "clientState": None,
        "expirationDateTime": _text(subscription.expires),
    }


def _text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _object(body: object) -> Json:
    if not isinstance(body, dict):
        raise bad_request("Unable to read JSON request payload.")
    return body


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidRequest", message)
