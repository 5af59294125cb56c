#!/bin/sh
# Makes a crawl and prints its own events (not those of its tasks) until it is over: crawl.sh SPIDER URL...
set -eu
. "$(dirname "$0")/rabbitmq.sh"
[ $# -ge 2 ] || { echo "usage: crawl.sh SPIDER URL..." >&2; exit 2; }

spider=$1
shift
seeds=$(printf ',"%s"' "$@" | cut -c 2-)

# Bound before there is a crawl, so that its first events wait here until its id is known.
make_queue
events=$queue
request POST "bindings/$vhost/e/$namespace.events/q/$events" '{"routing_key":"crawl.*"}' ||
  fail "there is no exchange $namespace.events; does Warren run on this broker, in this namespace?"

make_queue
publish amq.default "$namespace.master" \
  "{\"reply_to\":\"$queue\",\"correlation_id\":\"$queue\",\"message_id\":\"$queue\",\"expiration\":\"${timeout_s}000\"}" \
  "{\"type\":\"create-crawl\",\"args\":{\"spider\":\"$spider\",\"seeds\":[$seeds]}}" ||
  fail "there is no queue $namespace.master; does Warren run on this broker, in this namespace?"
answer=$(take "$queue") || fail "no master answered within $timeout_s s"
crawl=$(result "$answer") || exit 1
id=$(printf '%s\n' "$crawl" | sed 's/.*"id":"\([^"]*\)".*/\1/')
echo "crawl $id"

while event=$(take "$events"); do
  case $event in *"\"crawl\":\"$id\""*) ;; *) continue ;; esac
  printf '%s\n' "$event" | sed 's/^{"type":"\([^"]*\)".*"data":\(.*\)}$/\1 \2/'
  case $event in *'"type":"crawl.finished"'* | *'"type":"crawl.closed"'*) exit 0 ;; esac
done
fail "nothing heard for $timeout_s s"
