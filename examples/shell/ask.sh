#!/bin/sh
# Hands URLs to Warren and prints, for each, the answer that tells how it ended: ask.sh URL...
set -eu
. "$(dirname "$0")/rabbitmq.sh"
[ $# -ge 1 ] || { echo "usage: ask.sh URL..." >&2; exit 2; }

make_queue
for url; do
  publish amq.default "$namespace.tasks" \
    "{\"content_type\":\"text/plain\",\"delivery_mode\":2,\"reply_to\":\"$queue\"}" "$url" ||
    fail "$url: the queue $namespace.tasks is not there or did not take it"
done
for url; do
  take "$queue" || fail "no answer within $timeout_s s for one of $*"
done
