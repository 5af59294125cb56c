"""Hands URLs to Warren and says which the broker has taken."""

import argparse
import os
import sys

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
TASKS = os.environ.get("WARREN_NAMESPACE", "warren") + ".tasks"


def publish(urls: list[str]) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()  # from here on, basic_publish waits for the broker's word and raises if it is no
        persistent = pika.BasicProperties(content_type="text/plain", delivery_mode=2)
        for url in urls:
            try:
                channel.basic_publish("", TASKS, url, persistent, mandatory=True)
            except UnroutableError:
                sys.exit(f"{url}: there is no queue {TASKS}; does Warren run on this broker, in this namespace?")
            except NackError:
                sys.exit(f"{url}: the queue {TASKS} did not take it; is it full?")
            print("taken", url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="+")
    try:
        publish(parser.parse_args().url)
    except AMQPError as error:
        sys.exit(f"RabbitMQ: {error!r}")
