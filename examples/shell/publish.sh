#!/bin/sh
# Hands URLs to Warren and says which the broker has taken: publish.sh URL...
set -eu
. "$(dirname "$0")/rabbitmq.sh"
[ $# -ge 1 ] || { echo "usage: publish.sh URL..." >&2; exit 2; }

for url; do
  publish amq.default "$namespace.tasks" '{"content_type":"text/plain","delivery_mode":2}' "$url" ||
    fail "$url: the queue $namespace.tasks is not there or did not take it"
  echo "taken $url"
done
