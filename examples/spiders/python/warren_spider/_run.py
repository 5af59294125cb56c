"""The loop of a spider's process."""

from __future__ import annotations

import logging
import traceback
from typing import Any, Callable, Iterable, Mapping, Optional, Union

from ._channel import Channel, Message
from ._crawl import Crawl, Log, LogHandler
from ._page import File, Page, Request, Store

#: What a spider yields: an item, a URL to fetch, or a URL to store.
Output = Union[Mapping[str, Any], Request, Store]
Outputs = Optional[Iterable[Output]]


class Spider:
    """A spider. Each of its methods can be a request's `callback`, unless its name begins with an underscore."""

    def open(self, crawl: Crawl) -> None:
        """Called once, before the first page."""

    def parse(self, page: Page) -> Outputs:
        """Called for each page whose request names no `callback`."""
        raise NotImplementedError("a spider needs a method `parse`")

    def file(self, file: File) -> Outputs:
        """Called for each stored file, if the manifest has `fileTypes`."""
        return None

    def close(self, crawl: Crawl) -> None:
        """Called once, when there are no more pages. A process that is ended does not get that far."""


class _Function(Spider):
    def __init__(self, parse: Callable[[Page], Outputs]) -> None:
        self._parse = parse

    def parse(self, page: Page) -> Outputs:
        return self._parse(page)


#: What a request cannot call.
_NO_CALLBACKS = {"open", "file", "close"}


def run(spider: Union[Spider, Callable[[Page], Outputs]], channel: Optional[Channel] = None) -> None:
    """Works for the worker until that says that it is enough. What a page raises fails that page."""
    own = spider if isinstance(spider, Spider) else _Function(spider)
    lines = channel or Channel.of_process()
    crawl: Optional[Crawl] = None
    while True:
        message = lines.receive()
        kind = None if message is None else message.get("type")
        if message is None or kind == "close":
            break
        if kind == "open":
            crawl = Crawl(lines, message)
            _log_to(crawl.log)
            own.open(crawl)
        elif kind in ("page", "file") and crawl is not None:
            _work(own, crawl, lines, message)
    if crawl is not None:
        own.close(crawl)


def _work(spider: Spider, crawl: Crawl, lines: Channel, message: Message) -> None:
    number = message["id"]
    log = Log(lines, number)
    try:
        for output in _begin(spider, crawl, log, message) or ():
            lines.send({**_message_of(output), "page": number})
    except Exception as error:
        log.error("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        lines.send({"type": "error", "page": number, "message": f"{type(error).__name__}: {error}"})
    else:
        lines.send({"type": "done", "page": number})


def _begin(spider: Spider, crawl: Crawl, log: Log, message: Message) -> Outputs:
    if message["type"] == "file":
        return spider.file(File(crawl, log, message))
    page = Page(crawl, log, message)
    name = page.callback or "parse"
    callback = None if name.startswith("_") or name in _NO_CALLBACKS else getattr(spider, name, None)
    if not callable(callback):
        raise LookupError(f'the spider has no callback "{name}"')
    outputs: Outputs = callback(page)
    return outputs


def _message_of(output: Output) -> Message:
    if isinstance(output, (Request, Store)):
        return output.message()
    if isinstance(output, Mapping):
        return {"type": "item", "data": dict(output)}
    raise TypeError(f"a spider yields items (mappings), Request and Store, not {type(output).__name__}")


def _log_to(log: Log) -> None:
    root = logging.getLogger()
    # Whoever has set logging up wants it so.
    if not root.handlers:
        root.addHandler(LogHandler(log))
        root.setLevel(logging.INFO)
