"""Logs of the daemon, by structlog: `pretty` for people, `json` for machines, on standard error.

In: level and format as configured. The levels are those of the configuration (`error … silly`); `info` tells
of every write, `debug` of checks that changed nothing. What is logged is words and ids, never a secret.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.types import EventDict, WrappedLogger

from aim.errors import AimError

LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "http": logging.INFO,
    "verbose": logging.INFO,
    "debug": logging.DEBUG,
    "silly": logging.NOTSET,
}


class _Forward(logging.Handler):
    """Brings what the layers below say by the standard library's logging to the same place."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage())


def configure(level: str, format_: str, stream: TextIO = sys.stderr) -> None:
    """Sets up structlog for this process."""
    renderer: structlog.types.Processor
    if format_ == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            *([_message_key] if format_ == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    ours = logging.getLogger("aim")
    ours.handlers = [_Forward()]
    ours.setLevel(LEVELS[level] or logging.DEBUG)


def notice(text: str) -> None:
    """Logs something that a person should know while they wait."""
    structlog.get_logger().info(text)


def warning(text: str) -> None:
    """Logs something that works, but should not stay like this."""
    structlog.get_logger().warning(text)


def failure(text: str, error: AimError) -> None:
    """Logs what does not work now, with its cause and what to do about it."""
    structlog.get_logger().error(text, cause=error.message, remedy=error.remedy)


def _message_key(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The JSON format calls the text `message`."""
    event["message"] = event.pop("event")
    return event
