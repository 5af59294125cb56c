"""Spiders for the Warren crawler: a process that is given pages, and says what it finds on them.

    from warren_spider import Page, Spider, run

    class Books(Spider):
        def parse(self, page: Page):
            yield {"title": page.title}
            yield page.follow("/next", callback="book")

    run(Books())
"""

from ._channel import Channel
from ._crawl import Crawl, Log, State, StateError, connect
from ._page import File, Page, Request, Store
from ._run import Output, Spider, run

__all__ = [
    "Channel",
    "Crawl",
    "File",
    "Log",
    "Output",
    "Page",
    "Request",
    "Spider",
    "State",
    "StateError",
    "Store",
    "connect",
    "run",
]
