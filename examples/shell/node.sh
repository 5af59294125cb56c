#!/bin/sh
# Calls a node and prints its answer; one that is not there is told at once: node.sh ID CALL [ARGS]
set -eu
. "$(dirname "$0")/rabbitmq.sh"
[ $# -ge 2 ] || { echo "usage: node.sh ID CALL [ARGS], for example: node.sh worker-1 set-config '{\"concurrency\": 4}'" >&2; exit 2; }

args=${3:-'{}'}
make_queue
publish "$namespace.node.$1" command "{\"reply_to\":\"$queue\",\"expiration\":\"${timeout_s}000\"}" \
  "{\"type\":\"$2\",\"args\":$args}" || fail "node $1 is not there"
answer=$(take "$queue") || fail "node $1 did not answer within $timeout_s s"
result "$answer"
