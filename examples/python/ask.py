"""Hands URLs to Warren and prints, for each, the answer that tells how it ended."""

import argparse
import os
import sys
import uuid

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
TASKS = os.environ.get("WARREN_NAMESPACE", "warren") + ".tasks"
TIMEOUT_S = float(os.environ.get("TIMEOUT_S", "60"))


def ask(urls: list[str]) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        replies = channel.queue_declare("", exclusive=True).method.queue
        waiting = {str(uuid.uuid4()): url for url in urls}
        for correlation_id, url in waiting.items():
            properties = pika.BasicProperties(
                content_type="text/plain", delivery_mode=2, reply_to=replies, correlation_id=correlation_id
            )
            try:
                channel.basic_publish("", TASKS, url, properties, mandatory=True)
            except UnroutableError:
                sys.exit(f"{url}: there is no queue {TASKS}; does Warren run on this broker, in this namespace?")
            except NackError:
                sys.exit(f"{url}: the queue {TASKS} did not take it; is it full?")

        for method, properties, body in channel.consume(replies, auto_ack=True, inactivity_timeout=TIMEOUT_S):
            if method is None:
                sys.exit(f"no answer within {TIMEOUT_S:g} s for {', '.join(waiting.values())}")
            # An answer may come twice; the second is for nothing that waits.
            if waiting.pop(properties.correlation_id, None) is not None:
                print(body.decode(), flush=True)
            if not waiting:
                return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="+")
    try:
        ask(parser.parse_args().url)
    except AMQPError as error:
        sys.exit(f"RabbitMQ: {error!r}")
