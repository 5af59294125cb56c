"""The chapters of the demo site, each with its section, and the papers of its library."""

from html.parser import HTMLParser
from typing import Dict, Iterator, List, Tuple

from warren_spider import File, Output, Page, Spider, run


class Document(HTMLParser):
    """The texts of headings and paragraphs, and the links of lists. For more, take a library such as lxml."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: Dict[str, List[str]] = {"h1": [], "p": []}
        self.links: List[Tuple[str, str]] = []
        self._tag = ""
        self._href = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._tag = tag
        self._href = dict(attributes).get("href", "") if tag == "a" else ""

    def handle_endtag(self, tag):
        self._tag = ""

    def handle_data(self, data):
        if self._tag in self.texts:
            self.texts[self._tag].append(data)
        elif self._href:
            self.links.append((self._href, data))


class DemoSite(Spider):
    def parse(self, page: Page) -> Iterator[Output]:
        for href, _ in Document(page.text).links:
            if href.endswith("/") and href != "/":
                yield page.follow(href, callback="section")

    def section(self, page: Page) -> Iterator[Output]:
        document = Document(page.text)
        [title] = document.texts["h1"]
        page.crawl.count("sections")
        for href, text in document.links:
            if text.endswith("(to print)"):
                yield page.store(href)
            elif not href.endswith("/") and href != "/about":
                yield page.follow(href, callback="chapter", meta={"section": title})

    def chapter(self, page: Page) -> Iterator[Output]:
        document = Document(page.text)
        [title] = document.texts["h1"]
        page.log.info("read a chapter", title=title)
        yield {"section": page.meta["section"], "title": title, "text": document.texts["p"]}

    def file(self, file: File) -> Iterator[Output]:
        yield {"paper": file.name, "bytes": file.bytes, "found_on": file.found_on}


run(DemoSite())
