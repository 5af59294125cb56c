# RabbitMQ's management API, as far as the programs here need it. To be sourced.

api="${RABBITMQ_MANAGEMENT_URL:-http://guest:guest@127.0.0.1:15672}/api"
vhost=%2F
namespace="${WARREN_NAMESPACE:-warren}"
timeout_s="${TIMEOUT_S:-60}"

fail() {
  echo "$1" >&2
  exit 1
}

# request METHOD PATH [JSON]: prints the body of the response. Fails with 22 when its status is 400 or above.
request() {
  curl --silent --show-error --fail --globoff -X "$1" "$api/$2" -H 'content-type: application/json' ${3:+--data-binary "$3"}
}

# publish EXCHANGE ROUTING_KEY PROPERTIES PAYLOAD: fails unless a queue has taken it. Base64 carries any payload
# through JSON as it is. RabbitMQ's default exchange is called amq.default here.
publish() {
  payload=$(printf %s "$4" | base64 | tr -d '\n')
  request POST "exchanges/$vhost/$1/publish" \
    "{\"routing_key\":\"$2\",\"properties\":$3,\"payload\":\"$payload\",\"payload_encoding\":\"base64\"}" |
    grep -q '"routed":true'
}

# make_queue: makes a queue and sets $queue. Over HTTP there is no exclusive one, so it goes with this program, or
# after five minutes in which nobody looked into it.
make_queue() {
  queue="$namespace.shell.$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')"
  request PUT "queues/$vhost/$queue" '{"durable":true,"arguments":{"x-expires":300000,"x-max-length":10000}}' ||
    fail "could not make the queue $queue"
  queues="${queues:-} $queue"
  trap 'for made in $queues; do request DELETE "queues/$vhost/$made"; done' EXIT
  trap 'exit 1' HUP INT TERM
}

# take QUEUE: takes one message and prints it. Fails when none comes in time.
take() {
  waited_s=0
  while :; do
    payload=$(request POST "queues/$vhost/$1/get" '{"count":1,"ackmode":"ack_requeue_false","encoding":"base64"}' |
      sed -n 's/.*"payload":"\([^"]*\)".*/\1/p')
    [ -z "$payload" ] || break
    [ "$waited_s" -lt "$timeout_s" ] || return 1
    sleep 1
    waited_s=$((waited_s + 1))
  done
  printf %s "$payload" | base64 -d
  echo
}

# result ANSWER: prints the result of a call, or fails with its error.
result() {
  case $1 in
    '{"ok":true,"result":'*) printf '%s\n' "$1" | sed 's/^{"ok":true,"result"://; s/}$//' ;;
    *) fail "$(printf '%s\n' "$1" | sed 's/.*"code":"\([^"]*\)","message":"\(.*\)"}}$/\1: \2/; s/\\"/"/g')" ;;
  esac
}
