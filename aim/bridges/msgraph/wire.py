"""What requests for tokens and requests to Graph have in common: where they go, what comes back, and why
nothing did.

Below `tokens`, `exchange` and `transport`.
"""

from __future__ import annotations

import httpx

from aim.bridges.msgraph import faults
from aim.bridges.msgraph.throttle import AttemptError
from aim.errors import SourceUnavailable

HEADERS = {"User-Agent": "matrix-aim"}
"""Of each request."""


def decoded(response: httpx.Response) -> object:
    """The JSON of an answer; None if it is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def failed(where: str, error: httpx.HTTPError) -> AttemptError | SourceUnavailable:
    """What to raise for no usable answer from `where`: an AttemptError, if trying again at once may help."""
    why = faults.told(str(error)) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return SourceUnavailable(
            f"{where}: its certificate can't be trusted: {why}",
            "Give the certificate of the authority that signed it as source.ca_cert (PEM); a proxy that looks"
            " into TLS has one of its own.",
        )
    if isinstance(error, httpx.UnsupportedProtocol):
        return SourceUnavailable(f"{where}: {why}", "Write it with https://.")
    return AttemptError(_unreachable(where, why, error))


def _unreachable(where: str, why: str, error: httpx.HTTPError) -> SourceUnavailable:
    if isinstance(error, httpx.ProxyError):
        return SourceUnavailable(f"{where}: the proxy refuses: {why}", "Check HTTPS_PROXY and NO_PROXY.")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return SourceUnavailable(f"{where}: no connection: {why}", "Check the network, DNS and HTTPS_PROXY.")
    if isinstance(error, httpx.TimeoutException):
        return SourceUnavailable(
            f"{where}: no answer in time", f"{faults.LATER} If it is that slow, raise source.read_timeout."
        )
    return SourceUnavailable(f"{where}: the answer was cut off: {why}", faults.LATER)


def origin(url: str) -> str:
    """Scheme, host and port (443 is not written); the URL as it is where it has none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return url
    port = f":{parsed.port}" if parsed.port is not None else ""
    return f"{parsed.scheme}://{parsed.host}{port}"
