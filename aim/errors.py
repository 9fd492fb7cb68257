"""Every error that `aim` raises on purpose. Stands below everything; imports nothing of ours.

    AimError                      what a user reads: one line of cause, one line of remedy
    ├── ConfigError               the configuration file, before anything is tried
    ├── SourceError               the directory could not be read completely
    │   ├── SourceUnavailable     … this time (transient): the last good directory stays in force
    │   └── SourceInvalid         … and will not be until somebody mends it (malformed, empty, truncated)
    ├── HomeserverError           the homeserver refused or did not answer
    │   ├── HomeserverUnavailable … time-out, connection lost, 429, 5xx (transient)
    │   └── HomeserverRefused     … 4xx (permanent); carries the Matrix errcode
    ├── StoreError                the database
    │   └── StoreBusy             another aim process is the writer
    ├── PlanError                 a saved plan, a digest: malformed or no longer true
    └── Stopped                   asked to stop (SIGTERM) in the middle of work

Errors of libraries are translated at the edge where they occur, with `raise … from`.
"""


class AimError(Exception):
    """Base of all. `message` names the cause, `remedy` says what to do about it (may be empty)."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class ConfigError(AimError):
    """The configuration is wrong: names file, line and key path."""


class SourceError(AimError):
    """The source gave no complete directory; nothing may be done because of it."""


class SourceUnavailable(SourceError):
    """The source could not be reached or read this time; trying again later may succeed."""


class SourceInvalid(SourceError):
    """What the source gave is malformed, truncated, or empty where it was not empty before."""


class HomeserverError(AimError):
    """The homeserver did not do what was asked."""


class HomeserverUnavailable(HomeserverError):
    """No usable answer (time-out, connection lost, 429, 5xx), after all retries.

    `maybe_done` is true if the request may have been carried out although its answer was lost.
    """

    def __init__(self, message: str, remedy: str = "", *, maybe_done: bool = False) -> None:
        super().__init__(message, remedy)
        self.maybe_done = maybe_done


class HomeserverRefused(HomeserverError):
    """The homeserver said no: `status` is the HTTP status, `errcode` the Matrix error code if any."""

    def __init__(self, message: str, remedy: str = "", *, status: int, errcode: str | None = None) -> None:
        super().__init__(message, remedy)
        self.status = status
        self.errcode = errcode


class StoreError(AimError):
    """The database is unreachable, or its schema is not one this program knows."""


class StoreBusy(StoreError):
    """Another process holds the writer's lock."""


class PlanError(AimError):
    """A saved plan or a digest is malformed, or the world has moved on since."""


class Stopped(AimError):
    """Work was asked to stop; what was done is recorded, the rest is left for the next cycle."""
