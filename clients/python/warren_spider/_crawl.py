"""The crawl that a process works for."""

from __future__ import annotations

import json
import logging
import os
from typing import Any, Mapping, Optional

from ._channel import Channel, Message


class StateError(Exception):
    """A value could not be kept: its name, its size or its type is not as it must be."""


class State:
    """Values that all nodes share, kept as long as the crawl. A value is JSON of 16 KiB at most."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def get(self, name: str) -> Any:
        """None when there is none of that name."""
        return self._call({"type": "state.get", "name": name})

    def set(self, name: str, value: Any) -> None:
        self._call({"type": "state.set", "name": name, "value": value})

    def add(self, name: str, by: float = 1) -> float:
        """Adds to a number, from 0 on, in one step, and returns the sum."""
        total: float = self._call({"type": "state.add", "name": name, "by": by})
        return total

    def delete(self, name: str) -> None:
        self._call({"type": "state.delete", "name": name})

    def _call(self, message: Message) -> Any:
        answer = self._channel.call(message)
        if "error" in answer:
            raise StateError(answer["error"])
        return answer.get("value")


class Log:
    """The crawl's log, for a page or for the crawl."""

    def __init__(self, channel: Channel, page: Optional[int] = None) -> None:
        self._channel = channel
        self._page = {} if page is None else {"page": page}

    def debug(self, message: str, **fields: Any) -> None:
        self.write("debug", message, **fields)

    def info(self, message: str, **fields: Any) -> None:
        self.write("info", message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        self.write("warn", message, **fields)

    def error(self, message: str, **fields: Any) -> None:
        self.write("error", message, **fields)

    def write(self, level: str, message: str, **fields: Any) -> None:
        own = {"type": "log", "level": level, "message": message, **self._page}
        self._channel.send({**fields, **own})


class Crawl:
    """What a process knows of its crawl, and what it can tell beside what it finds on pages."""

    def __init__(self, channel: Channel, about: Mapping[str, Any]) -> None:
        self._channel = channel
        self.id: str = about["crawl"]
        self.spider: str = about.get("spider", "")
        self.version: str = about.get("version", "")
        self.node: str = about.get("node", "")
        #: As they were given when the crawl was made.
        self.params: Mapping[str, Any] = about.get("params", {})
        self.mode: str = about.get("mode", "pages")
        self.state = State(channel)
        self.log = Log(channel)

    def count(self, name: str, by: float = 1) -> None:
        """Adds to a number of the crawl, kept in its state as `stats.NAME`."""
        self._channel.send({"type": "stats", "name": name, "by": by})

    def item(self, data: Mapping[str, Any]) -> None:
        """An item that is of no page: for programs that fetch by themselves."""
        self._channel.send({"type": "item", "data": dict(data)})


def connect(channel: Optional[Channel] = None) -> Crawl:
    """The crawl of a program that fetches by itself (mode `run`), by its environment."""
    return Crawl(
        channel or Channel.of_process(),
        {
            "crawl": os.environ.get("WARREN_CRAWL_ID", ""),
            "spider": os.environ.get("WARREN_SPIDER", ""),
            "version": os.environ.get("WARREN_VERSION", ""),
            "node": os.environ.get("WARREN_NODE_ID", ""),
            "params": json.loads(os.environ.get("WARREN_PARAMS", "{}")),
            "mode": os.environ.get("WARREN_MODE", "run"),
        },
    )


class LogHandler(logging.Handler):
    """Brings what Python's `logging` says into the crawl's log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.write(record.levelname.lower(), self.format(record), logger=record.name)
        except Exception:
            self.handleError(record)
