"""What a spider is given, and what it yields besides items."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional
from urllib.parse import urljoin

from ._crawl import Crawl, Log


@dataclass(frozen=True)
class Request:
    """A URL to fetch, and what its page is for. It may be relative to the page."""

    url: str
    #: The method of the spider that its page is for; `parse` if there is none.
    callback: Optional[str] = None
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Optional[str] = None
    #: Kept with the URL and handed back on its page.
    meta: Mapping[str, Any] = field(default_factory=dict)
    #: 0 (last) to 9 (first) within the crawl.
    priority: Optional[int] = None
    #: Whether a browser renders its page: True, or how.
    render: Any = None

    def message(self, kind: str = "request") -> Dict[str, Any]:
        message: Dict[str, Any] = {"type": kind, "url": self.url}
        for name in ("callback", "body", "priority", "render"):
            if getattr(self, name) is not None:
                message[name] = getattr(self, name)
        if self.method != "GET":
            message["method"] = self.method
        if self.headers:
            message["headers"] = dict(self.headers)
        if self.meta:
            message["meta"] = dict(self.meta)
        return message


@dataclass(frozen=True)
class Store:
    """A URL whose body is to be stored as a file."""

    url: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    def message(self) -> Dict[str, Any]:
        return Request(self.url, meta=self.meta).message("store")


class Page:
    """One fetched page."""

    def __init__(self, crawl: Crawl, log: Log, message: Mapping[str, Any]) -> None:
        self.crawl = crawl
        self.log = log
        #: After redirects.
        self.url: str = message["url"]
        self.status: int = message["status"]
        #: Names in lower case.
        self.headers: Mapping[str, str] = message["headers"]
        self.depth: int = message["depth"]
        #: What the request that led here carried.
        self.meta: Mapping[str, Any] = message.get("meta", {})
        self.callback: Optional[str] = message.get("callback")
        #: Only if the manifest says `"links": true`.
        self.title: str = message.get("title", "")
        #: Its links, absolute, each once; only if the manifest says `"links": true`.
        self.links: List[str] = message.get("links", [])
        self._text: Optional[str] = message.get("text")
        self._body: Optional[str] = message.get("body")

    @property
    def text(self) -> str:
        """Empty for what is no text."""
        return self._text or ""

    @property
    def body(self) -> bytes:
        """Of text, as UTF-8, whatever its encoding was."""
        if self._body is not None:
            return base64.b64decode(self._body)
        return self.text.encode("utf-8", "replace")

    def absolute(self, url: str) -> str:
        """A URL as it is meant on this page."""
        return urljoin(self.url, url)

    def follow(self, url: str, callback: Optional[str] = None, **more: Any) -> Request:
        """A request for a URL of this page."""
        return Request(self.absolute(url), callback, **more)

    def store(self, url: str, meta: Optional[Mapping[str, Any]] = None) -> Store:
        """A file at a URL of this page."""
        return Store(self.absolute(url), meta or {})


class File:
    """A file that was stored."""

    def __init__(self, crawl: Crawl, log: Log, message: Mapping[str, Any]) -> None:
        about = message["file"]
        self.crawl = crawl
        self.log = log
        self.url: str = about["url"]
        self.id: str = about["id"]
        self.name: str = about["name"]
        self.bytes: int = about["bytes"]
        self.sha256: str = about["sha256"]
        self.content_type: str = about["contentType"]
        #: The page that it was found on.
        self.found_on: str = about["foundOn"]
        self.meta: Mapping[str, Any] = about.get("meta", {})
