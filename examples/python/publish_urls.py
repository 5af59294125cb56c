"""Hands URLs to Warren and prints how each ended: python publish_urls.py AMQP_URL URL..."""
import os, sys, uuid, pika  # pip install pika

connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
tasks = os.environ.get("WARREN_NAMESPACE", "warren") + ".tasks"
replies = channel.queue_declare("", exclusive=True).method.queue
for url in sys.argv[2:]:
    properties = pika.BasicProperties(reply_to=replies, correlation_id=str(uuid.uuid4()))
    channel.basic_publish("", tasks, url, properties)
for _, (_, _, reply) in zip(sys.argv[2:], channel.consume(replies, auto_ack=True)):
    print(reply.decode())
connection.close()
