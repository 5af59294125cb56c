import io
import json
import logging
import subprocess
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from warren_spider import Channel, Page, Request, Spider, StateError, Store, run
from warren_spider.scrapy import WarrenPipeline

ROOT = Path(__file__).resolve().parents[1]
OPEN = {"type": "open", "crawl": "c1", "spider": "books", "version": "2", "node": "n1", "params": {"a": 1}, "mode": "pages"}


def page(number, **about):
    given = {"url": "http://a/b/", "status": 200, "headers": {}, "depth": 0, "meta": {}, "text": "hello"}
    return {"type": "page", "id": number, **given, **about}


def conversation(spider, *messages):
    """What a spider answers to these messages."""
    lines = "".join(json.dumps(message) + "\n" for message in messages).encode()
    written = io.BytesIO()
    run(spider, Channel(io.BytesIO(lines), written))
    return [json.loads(line) for line in written.getvalue().splitlines()]


class Books(Spider):
    def parse(self, page: Page):
        yield {"url": page.url, "text": page.text, "a": page.crawl.params["a"]}
        yield page.follow("c?d", callback="book", priority=9)
        yield Request("/post", method="POST", headers={"x": "y"}, body="z", meta={"m": 1})
        yield page.store("e.pdf")
        yield Store("/f.pdf", {"n": 2})

    def book(self, page: Page):
        yield {"meta": dict(page.meta)}

    def fails(self, page: Page):
        yield {"before": True}
        raise ValueError("no price")

    def nothing(self, page: Page):
        return None

    def nonsense(self, page: Page):
        yield "text"

    def counts(self, page: Page):
        page.crawl.count("books")
        page.crawl.count("weight", 2.5)
        page.log.info("counted", how="well")
        logging.getLogger("library").warning("careful %d", 3)
        return []

    def states(self, page: Page):
        state = page.crawl.state
        yield {"before": state.get("seen"), "sum": state.add("n", 2)}
        state.set("seen", ["a"])
        state.delete("seen")
        try:
            state.set("", 1)
        except StateError as error:
            yield {"error": str(error)}

    def _hidden(self, page: Page):
        yield {"hidden": True}

    def file(self, file):
        yield {"file": file.name, "bytes": file.bytes, "type": file.content_type, "on": file.found_on}


class SpiderTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(lambda handlers=list(logging.getLogger().handlers): setattr(logging.getLogger(), "handlers", handlers))
        logging.getLogger().handlers = []

    def test_yields_items_requests_and_files(self):
        self.assertEqual(
            conversation(Books(), OPEN, page(7)),
            [
                {"type": "item", "data": {"url": "http://a/b/", "text": "hello", "a": 1}, "page": 7},
                {"type": "request", "url": "http://a/b/c?d", "callback": "book", "priority": 9, "page": 7},
                {"type": "request", "url": "/post", "method": "POST", "headers": {"x": "y"}, "body": "z", "meta": {"m": 1}, "page": 7},
                {"type": "store", "url": "http://a/b/e.pdf", "page": 7},
                {"type": "store", "url": "/f.pdf", "meta": {"n": 2}, "page": 7},
                {"type": "done", "page": 7},
            ],
        )

    def test_calls_the_callback_of_a_page(self):
        answers = conversation(Books(), OPEN, page(1, callback="book", meta={"m": 2}), page(2, callback="nothing"))
        self.assertEqual(answers[0]["data"], {"meta": {"m": 2}})
        self.assertEqual([answer["type"] for answer in answers], ["item", "done", "done"])

    def test_may_be_a_function(self):
        answers = conversation(lambda page: [{"title": page.title, "links": page.links}], OPEN, page(1, title="T", links=["http://a/"]))
        self.assertEqual(answers[0]["data"], {"title": "T", "links": ["http://a/"]})

    def test_fails_a_page_by_what_it_raises_and_goes_on(self):
        for name, expected in [
            ("fails", "ValueError: no price"),
            ("nonsense", "TypeError: a spider yields items (mappings), Request and Store, not str"),
            ("unheard", 'LookupError: the spider has no callback "unheard"'),
            ("_hidden", 'LookupError: the spider has no callback "_hidden"'),
            ("close", 'LookupError: the spider has no callback "close"'),
        ]:
            with self.subTest(name):
                answers = conversation(Books(), OPEN, page(1, callback=name), page(2, callback="nothing"))
                errors = [answer for answer in answers if answer["type"] == "error"]
                self.assertEqual(errors, [{"type": "error", "page": 1, "message": expected}])
                self.assertEqual(answers[-1], {"type": "done", "page": 2})
                self.assertIn("Traceback", next(answer for answer in answers if answer["type"] == "log")["message"])

    def test_counts_and_logs(self):
        answers = conversation(Books(), OPEN, page(1, callback="counts"))
        self.assertEqual(
            answers,
            [
                {"type": "stats", "name": "books", "by": 1},
                {"type": "stats", "name": "weight", "by": 2.5},
                {"type": "log", "level": "info", "message": "counted", "how": "well", "page": 1},
                {"type": "log", "level": "warning", "message": "careful 3", "logger": "library"},
                {"type": "done", "page": 1},
            ],
        )

    def test_asks_for_state_while_further_pages_come(self):
        answers = conversation(
            Books(),
            OPEN,
            page(1, callback="states"),
            page(2, callback="nothing"),
            {"type": "state", "id": 1, "value": None},
            {"type": "state", "id": 2, "value": 2},
            {"type": "state", "id": 3, "value": None},
            {"type": "state", "id": 4, "value": None},
            {"type": "state", "id": 5, "error": "not so"},
        )
        self.assertEqual([answer["data"] for answer in answers if answer["type"] == "item"], [{"before": None, "sum": 2}, {"error": "not so"}])
        self.assertEqual([answer["page"] for answer in answers if answer["type"] == "done"], [1, 2])

    def test_is_told_of_files(self):
        about = {"url": "http://a/x.pdf", "id": "1", "name": "x.pdf", "bytes": 5, "sha256": "0", "contentType": "application/pdf", "foundOn": "http://a/", "meta": {}}
        answers = conversation(Books(), OPEN, {"type": "file", "id": 3, "file": about})
        self.assertEqual(answers[0], {"type": "item", "data": {"file": "x.pdf", "bytes": 5, "type": "application/pdf", "on": "http://a/"}, "page": 3})

    def test_gives_bytes_of_what_is_no_text(self):
        seen = []
        binary = page(1, body="iQD/")
        del binary["text"]
        conversation(lambda page: seen.append((page.body, page.text)), OPEN, binary, page(2, text="ä"))
        self.assertEqual(seen, [(b"\x89\x00\xff", ""), ("ä".encode(), "ä")])

    def test_opens_and_closes_once(self):
        calls = []

        class Counting(Spider):
            def open(self, crawl):
                calls.append(("open", crawl.id, crawl.node))

            def parse(self, page):
                calls.append(("parse", page.url))

            def close(self, crawl):
                calls.append(("close", crawl.id))

        conversation(Counting(), OPEN, page(1), {"type": "close"}, page(2))
        self.assertEqual(calls, [("open", "c1", "n1"), ("parse", "http://a/b/"), ("close", "c1")])


class ProcessTest(unittest.TestCase):
    def test_keeps_what_is_printed_apart_from_messages(self):
        code = (
            "import os, warren_spider\n"
            "def parse(page):\n"
            "    print('half a line', end='')\n"
            "    os.write(1, b'from a library')\n"
            "    yield {'a': 'ä\\ud800'}\n"
            "warren_spider.run(parse)\n"
        )
        lines = "".join(json.dumps(message) + "\n" for message in [OPEN, page(1)])
        done = subprocess.run([sys.executable, "-c", code], input=lines.encode(), cwd=ROOT, capture_output=True, check=True)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(answers, [{"type": "item", "data": {"a": "ä?"}, "page": 1}, {"type": "done", "page": 1}])
        self.assertIn(b"from a library", done.stderr)
        self.assertIn(b"half a line", done.stderr)


class ScrapyTest(unittest.TestCase):
    def pipeline(self, environment):
        written = io.BytesIO()
        pipeline = WarrenPipeline(Channel(io.BytesIO(), written))
        stats = {"item_scraped_count": 1, "start_time": object(), "finish_reason": "finished"}
        spider = SimpleNamespace(crawler=SimpleNamespace(stats=SimpleNamespace(get_stats=lambda: stats)))
        with mock.patch.dict("os.environ", environment):
            pipeline.open_spider(spider)
        self.assertEqual(pipeline.process_item({"a": Path("b")}, spider), {"a": Path("b")})
        pipeline.close_spider(spider)
        return [json.loads(line) for line in written.getvalue().splitlines()]

    def test_hands_on_items_and_numbers(self):
        self.assertEqual(
            self.pipeline({"WARREN_CRAWL_ID": "c1"}),
            [{"type": "item", "data": {"a": "b"}}, {"type": "stats", "name": "scrapy/item_scraped_count", "by": 1}],
        )

    def test_does_nothing_without_warren(self):
        self.assertEqual(self.pipeline({}), [])


if __name__ == "__main__":
    unittest.main()
