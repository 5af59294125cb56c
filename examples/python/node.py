"""Calls a node and prints its answer. One that is not there is told at once."""

import argparse
import json
import os
import sys
import uuid

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
NAMESPACE = os.environ.get("WARREN_NAMESPACE", "warren")
TIMEOUT_S = float(os.environ.get("TIMEOUT_S", "60"))
NOT_FOUND = 404


def call(node: str, name: str, args: dict) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        replies = channel.queue_declare("", exclusive=True).method.queue
        correlation_id = str(uuid.uuid4())
        properties = pika.BasicProperties(
            content_type="application/json",
            reply_to=replies,
            correlation_id=correlation_id,
            expiration=str(int(TIMEOUT_S * 1000)),
        )
        body = json.dumps({"type": name, "args": args})
        try:
            channel.basic_publish(f"{NAMESPACE}.node.{node}", "command", body, properties, mandatory=True)
        except UnroutableError:
            sys.exit(f"node {node} is not there")
        except ChannelClosedByBroker as closed:
            # A node that has been has an exchange; publishing to one that is missing costs the channel.
            sys.exit(f"there has never been a node {node}" if closed.reply_code == NOT_FOUND else repr(closed))

        for method, properties, body in channel.consume(replies, auto_ack=True, inactivity_timeout=TIMEOUT_S):
            if method is None:
                sys.exit(f"node {node} did not answer within {TIMEOUT_S:g} s")
            if properties.correlation_id == correlation_id:
                break
        answer = json.loads(body)
        if not answer["ok"]:
            sys.exit(f"{answer['error']['code']}: {answer['error']['message']}")
        print(json.dumps(answer["result"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("node", help="its id")
    parser.add_argument("call", help="for example ping or system-info")
    parser.add_argument("args", nargs="?", type=json.loads, default={}, help="a JSON object")
    arguments = parser.parse_args()
    try:
        call(arguments.node, arguments.call, arguments.args)
    except AMQPError as error:
        sys.exit(f"RabbitMQ: {error!r}")
