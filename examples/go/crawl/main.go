// Crawl makes a crawl and prints what happens in it until it is over.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The flags of queues and consumers, by name: on a call they would all be true and false.
const (
	durable    = false
	autoDelete = false
	exclusive  = true
	noLocal    = false
	noWait     = false
	autoAck    = true
	mandatory  = true
	immediate  = false
)

type event struct {
	Type  string          `json:"type"`
	Crawl string          `json:"crawl"`
	Data  json.RawMessage `json:"data"`
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: crawl SPIDER URL...")
		os.Exit(2)
	}
	if err := follow(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func follow(spider string, seeds []string) error {
	namespace := cmp.Or(os.Getenv("WARREN_NAMESPACE"), "warren")
	timeout, err := time.ParseDuration(cmp.Or(os.Getenv("TIMEOUT_S"), "60") + "s")
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

	// Bound before there is a crawl, so that its first events wait here until its id is known.
	queue, err := channel.QueueDeclare("", durable, autoDelete, exclusive, noWait, amqp.Table{"x-max-length": 10_000})
	if err != nil {
		return err
	}
	for _, key := range []string{"crawl.*", "task.*"} {
		if err := channel.QueueBind(queue.Name, key, namespace+".events", noWait, nil); err != nil {
			return err
		}
	}

	id, err := createCrawl(channel, namespace+".master", timeout, spider, seeds)
	if err != nil {
		return err
	}
	fmt.Println("crawl", id)

	messages, err := channel.Consume(queue.Name, "", autoAck, exclusive, noLocal, noWait, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case message, ok := <-messages:
			if !ok {
				return errors.New("the connection was lost")
			}
			events, err := read(message.Body)
			if err != nil {
				return err
			}
			for _, event := range events {
				if event.Crawl != id {
					continue
				}
				fmt.Println(event.Type, string(event.Data))
				if event.Type == "crawl.finished" || event.Type == "crawl.closed" {
					return nil
				}
			}
		case <-time.After(timeout):
			return fmt.Errorf("nothing heard for %v", timeout)
		}
	}
}

// createCrawl has any master make the crawl, and gives its id.
func createCrawl(channel *amqp.Channel, masters string, timeout time.Duration, spider string, seeds []string) (string, error) {
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	replies, err := channel.QueueDeclare("", durable, autoDelete, exclusive, noWait, nil)
	if err != nil {
		return "", err
	}
	answers, err := channel.Consume(replies.Name, "", autoAck, exclusive, noLocal, noWait, nil)
	if err != nil {
		return "", err
	}
	call, err := json.Marshal(map[string]any{
		"type": "create-crawl",
		"args": map[string]any{"spider": spider, "seeds": seeds},
	})
	if err != nil {
		return "", err
	}
	// Unique by the broker's name for the queue. Should the call be carried out twice, it makes it one crawl all the same.
	id := replies.Name
	err = channel.Publish("", masters, mandatory, immediate, amqp.Publishing{
		ContentType:   "application/json",
		ReplyTo:       replies.Name,
		CorrelationId: id,
		MessageId:     id,
		Expiration:    strconv.FormatInt(timeout.Milliseconds(), 10),
		Body:          call,
	})
	if err != nil {
		return "", err
	}

	select {
	case message, ok := <-answers: // the only one: the queue is new, and one call was made
		if !ok {
			return "", errors.New("the connection was lost")
		}
		var answer struct {
			OK     bool
			Result struct{ ID string }
			Error  struct{ Code, Message string }
		}
		if err := json.Unmarshal(message.Body, &answer); err != nil {
			return "", err
		}
		if !answer.OK {
			return "", fmt.Errorf("%s: %s", answer.Error.Code, answer.Error.Message)
		}
		return answer.Result.ID, nil
	case <-returned:
		return "", fmt.Errorf("there is no queue %s; does Warren run on this broker, in this namespace?", masters)
	case <-time.After(timeout):
		return "", fmt.Errorf("no master answered within %v", timeout)
	}
}

// read gives the events of a message, which holds one or an array of them.
func read(body []byte) (events []event, err error) {
	if !bytes.HasPrefix(body, []byte("[")) {
		events = make([]event, 1)
		return events, json.Unmarshal(body, &events[0])
	}
	return events, json.Unmarshal(body, &events)
}
