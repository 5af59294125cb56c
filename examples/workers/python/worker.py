"""A Warren worker in Python: takes the tasks of an external spider, fetches, and hands in what it found.

    pip install pika
    python worker.py [SPIDER]        # "titles" unless named; AMQP_URL and WARREN_NAMESPACE as for Warren

The spider is declared once: PUT /api/v1/spiders/titles {"external": true}.
"""
import collections
import html.parser
import http.client
import json
import os
import re
import sys
import time
import uuid
from urllib import error as urllib_error, parse, request

import pika

SPIDER = sys.argv[1] if len(sys.argv) > 1 else "titles"
AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
NAMESPACE = os.environ.get("WARREN_NAMESPACE", "warren")
NODE = f"python-{os.uname().nodename}-{os.getpid()}"
MAX_BYTES, TIMEOUT_S = 16 * 1024 * 1024, 20
LINKS = {"a", "area", "frame", "iframe"}


class NoRedirects(request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None  # Where it leads is for the master to decide: scope and politeness hold there too.


OPENER = request.build_opener(NoRedirects, request.ProxyHandler({}))


class Page(html.parser.HTMLParser):
    def __init__(self, url):
        super().__init__()
        self.base, self.links, self.title, self.in_title = url, [], "", False

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        rel = attributes.get("rel", "").lower().split()
        target = attributes.get("src" if tag in ("frame", "iframe") else "href", "").strip()
        self.in_title = tag == "title"
        if tag == "base" and target:
            self.base = parse.urljoin(self.base, target)
        elif tag in LINKS and target and "nofollow" not in rel:
            self.links.append(parse.urljoin(self.base, target))

    def handle_endtag(self, _tag):
        self.in_title = False

    def handle_data(self, data):
        if self.in_title:
            self.title += data


def fetch(task):
    """What is behind the URL of a task, as the members of `submit-result`."""
    if time.time() * 1000 > task["notAfter"]:
        return {"error": {"code": "expired", "message": "waited too long to begin"}}
    data = task["body"].encode() if "body" in task else None
    headers = {"user-agent": "warren-python-worker", **task.get("headers", {})}
    try:
        wanted = request.Request(task["url"], data, headers, method=task.get("method", "GET"))
        try:
            response = OPENER.open(wanted, timeout=TIMEOUT_S)
        except urllib_error.HTTPError as error:
            response = error  # A response like any other, only that its status is not 2xx.
        with response:
            return read(task["url"], response)
    except (OSError, http.client.HTTPException) as error:
        timed_out = TimeoutError in (type(error), type(getattr(error, "reason", None)))
        return {"error": {"code": "timeout" if timed_out else "network", "message": str(error)}}
    except Exception as error:  # A page that this program cannot read is a result too.
        return {"error": f"{type(error).__name__}: {error}"}


def read(url, response):
    content_type = response.headers.get("content-type", "")
    found = {"statusCode": response.status, "contentType": content_type.split(";")[0].strip()[:200]}
    for member, header in (("redirect", "location"), ("retryAfter", "retry-after")):
        if header in response.headers:
            found[member] = response.headers[header]
    if not 200 <= response.status < 300:
        return found
    deadline, body = time.monotonic() + TIMEOUT_S, bytearray()
    while chunk := response.read1(65536):
        body += chunk
        if len(body) > MAX_BYTES or time.monotonic() > deadline:
            code = "too-large" if len(body) > MAX_BYTES else "timeout"
            return {**found, "error": {"code": code, "message": f"{len(body)} bytes, and no end of them"}}
    found["bytes"] = len(body)
    if "html" not in content_type:
        return found
    in_page = re.search(rb"<meta[^>]+charset=[\"']?([\w-]+)", body[:1024])
    charset = response.headers.get_content_charset() or (in_page[1].decode() if in_page else "utf-8")
    page = Page(url)
    try:
        page.feed(body.decode(charset, "replace"))
    except LookupError:  # A charset that nobody knows.
        page.feed(body.decode("utf-8", "replace"))
    item = {"title": " ".join(page.title.split()), "status": response.status}
    return {**found, "links": list(dict.fromkeys(page.links))[:20000], "items": [item]}


def work(connection):
    channel = connection.channel()
    tasks, answers = collections.deque(), {}
    replies = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_consume(replies, lambda _c, _m, about, body: answers.update({about.correlation_id: body}), True)
    channel.basic_qos(prefetch_count=2)  # One to work on, one in hand.
    channel.basic_consume(f"{NAMESPACE}.tasks.{SPIDER}", lambda _c, method, _p, body: tasks.append((method, body)))
    print(f"{NODE} takes the tasks of {SPIDER}", flush=True)
    while True:
        connection.process_data_events(time_limit=0 if tasks else 1)
        if tasks:
            method, body = tasks.popleft()
            task = json.loads(body)
            result = {"task": task["task"], "node": NODE, **fetch(task)}
            answer = submit(connection, channel, replies, answers, result)
            if answer["ok"] or answer["error"]["code"] in ("conflict", "not-found", "invalid"):  # Refused for good.
                channel.basic_ack(method.delivery_tag)  # Not before: if we die, the task goes to someone else.
            else:
                time.sleep(1)
                channel.basic_nack(method.delivery_tag, requeue=True)


def submit(connection, channel, replies, answers, result):
    """Calls the masters until one has answered: the same result may come twice, and counts once."""
    call, sent_at = str(uuid.uuid4()), None
    about = pika.BasicProperties(reply_to=replies, correlation_id=call, content_type="application/json")
    while call not in answers:
        if sent_at is None or time.monotonic() - sent_at > TIMEOUT_S:
            sent_at = time.monotonic()
            body = json.dumps({"type": "submit-result", "args": result})
            channel.basic_publish("", f"{NAMESPACE}.master", body, about)
        connection.process_data_events(time_limit=1)
    return json.loads(answers.pop(call))


while __name__ == "__main__":
    try:
        work(pika.BlockingConnection(pika.URLParameters(AMQP_URL)))
    except pika.exceptions.AMQPError as error:
        print(f"{NODE} lost RabbitMQ: {error!r}; coming back", flush=True)
        time.sleep(1)
