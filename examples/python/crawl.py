"""Makes a crawl and prints what happens in it until it is over."""

import argparse
import json
import os
import sys
import uuid

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
NAMESPACE = os.environ.get("WARREN_NAMESPACE", "warren")
TIMEOUT_S = float(os.environ.get("TIMEOUT_S", "60"))


def create_crawl(channel: BlockingChannel, crawl: dict) -> str:
    """Has any master make the crawl, and gives its id."""
    replies = channel.queue_declare("", exclusive=True).method.queue
    correlation_id = str(uuid.uuid4())
    # Should the call be carried out twice, the message id makes it one crawl all the same.
    properties = pika.BasicProperties(
        content_type="application/json",
        reply_to=replies,
        correlation_id=correlation_id,
        message_id=correlation_id,
        expiration=str(int(TIMEOUT_S * 1000)),
    )
    call = json.dumps({"type": "create-crawl", "args": crawl})
    try:
        channel.basic_publish("", f"{NAMESPACE}.master", call, properties, mandatory=True)
    except UnroutableError:
        sys.exit(f"there is no queue {NAMESPACE}.master; does Warren run on this broker, in this namespace?")

    for method, properties, body in channel.consume(replies, auto_ack=True, inactivity_timeout=TIMEOUT_S):
        if method is None:
            sys.exit(f"no master answered within {TIMEOUT_S:g} s")
        if properties.correlation_id == correlation_id:
            break
    channel.cancel()
    answer = json.loads(body)
    if not answer["ok"]:
        sys.exit(f"{answer['error']['code']}: {answer['error']['message']}")
    return answer["result"]["id"]


def follow(spider: str, seeds: list[str]) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        # Bound before there is a crawl, so that its first events wait here until its id is known.
        events = channel.queue_declare("", exclusive=True, arguments={"x-max-length": 10_000}).method.queue
        for key in ("crawl.*", "task.*"):
            channel.queue_bind(events, f"{NAMESPACE}.events", key)

        crawl = create_crawl(channel, {"spider": spider, "seeds": seeds})
        print("crawl", crawl, flush=True)
        for method, _, body in channel.consume(events, auto_ack=True, inactivity_timeout=TIMEOUT_S):
            if method is None:
                sys.exit(f"nothing heard for {TIMEOUT_S:g} s")
            told = json.loads(body)
            for event in told if isinstance(told, list) else [told]:
                if event.get("crawl") != crawl:
                    continue
                print(event["type"], json.dumps(event["data"]), flush=True)
                if event["type"] in ("crawl.finished", "crawl.closed"):
                    return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spider", help="for example links")
    parser.add_argument("url", nargs="+", help="where it begins")
    arguments = parser.parse_args()
    try:
        follow(arguments.spider, arguments.url)
    except AMQPError as error:
        sys.exit(f"RabbitMQ: {error!r}")
