// Node calls a node and prints its answer. One that is not there is told at once.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: node ID CALL [ARGS], for example: node worker-1 set-config '{\"concurrency\": 4}'")
		os.Exit(2)
	}
	args := "{}"
	if len(os.Args) > 3 {
		args = os.Args[3]
	}
	if err := call(os.Args[1], os.Args[2], json.RawMessage(args)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func call(node, name string, args json.RawMessage) error {
	exchange := cmp.Or(os.Getenv("WARREN_NAMESPACE"), "warren") + ".node." + node
	timeout, err := time.ParseDuration(cmp.Or(os.Getenv("TIMEOUT_S"), "60") + "s")
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"type": name, "args": args})
	if err != nil {
		return err
	}
	connection, err := amqp.Dial(cmp.Or(os.Getenv("AMQP_URL"), "amqp://guest:guest@127.0.0.1:5672"))
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))

	const durable, autoDelete, exclusive, noWait = false, false, true, false
	replies, err := channel.QueueDeclare("", durable, autoDelete, exclusive, noWait, nil)
	if err != nil {
		return err
	}
	const autoAck, noLocal = true, false
	answers, err := channel.Consume(replies.Name, "", autoAck, exclusive, noLocal, noWait, nil)
	if err != nil {
		return err
	}
	const mandatory, immediate = true, false
	err = channel.Publish(exchange, "command", mandatory, immediate, amqp.Publishing{
		ContentType:   "application/json",
		ReplyTo:       replies.Name,
		CorrelationId: "1",
		Expiration:    strconv.FormatInt(timeout.Milliseconds(), 10),
		Body:          body,
	})
	if err != nil {
		return err
	}

	for {
		select {
		case message, ok := <-answers: // the only one: the queue is new, and one call was made
			if !ok {
				answers = nil // closed says why
				continue
			}
			var answer struct {
				OK     bool
				Result json.RawMessage
				Error  struct{ Code, Message string }
			}
			if err := json.Unmarshal(message.Body, &answer); err != nil {
				return err
			}
			if !answer.OK {
				return fmt.Errorf("%s: %s", answer.Error.Code, answer.Error.Message)
			}
			fmt.Println(string(answer.Result))
			return nil
		case <-returned:
			return fmt.Errorf("node %s is not there", node)
		case err := <-closed:
			// A node that has been has an exchange; publishing to one that is missing costs the channel.
			if err.Code == amqp.NotFound {
				return fmt.Errorf("there has never been a node %s", node)
			}
			return err
		case <-time.After(timeout):
			return fmt.Errorf("node %s did not answer within %v", node, timeout)
		}
	}
}
