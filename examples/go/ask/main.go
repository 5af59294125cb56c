// Ask hands URLs to Warren and prints, for each, the answer that tells how it ended.
package main

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: ask URL...")
		os.Exit(2)
	}
	if err := ask(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(urls []string) error {
	tasks := cmp.Or(os.Getenv("WARREN_NAMESPACE"), "warren") + ".tasks"
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
	if err := channel.Confirm(false); err != nil {
		return err
	}
	returned := channel.NotifyReturn(make(chan amqp.Return, len(urls)))
	confirmed := channel.NotifyPublish(make(chan amqp.Confirmation, len(urls)))
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

	waiting := make(map[string]string, len(urls))
	for index, url := range urls {
		id := strconv.Itoa(index + 1) // the delivery tag of its confirmation, too
		const mandatory, immediate = true, false
		err := channel.Publish("", tasks, mandatory, immediate, amqp.Publishing{
			ContentType:   "text/plain",
			DeliveryMode:  amqp.Persistent,
			ReplyTo:       replies.Name,
			CorrelationId: id,
			Body:          []byte(url),
		})
		if err != nil {
			return err
		}
		waiting[id] = url
	}

	for len(waiting) > 0 {
		select {
		case answer, ok := <-answers:
			if !ok {
				return <-closed
			}
			// An answer may come twice; the second is for nothing that waits.
			if _, isAwaited := waiting[answer.CorrelationId]; isAwaited {
				fmt.Println(string(answer.Body))
				delete(waiting, answer.CorrelationId)
			}
		case message := <-returned:
			return fmt.Errorf("%s: there is no queue %s; does Warren run on this broker, in this namespace?", message.Body, tasks)
		case confirmation := <-confirmed:
			if !confirmation.Ack {
				return fmt.Errorf("%s: the queue %s did not take it; is it full?", urls[confirmation.DeliveryTag-1], tasks)
			}
		case <-time.After(timeout):
			var silent []string
			for _, url := range waiting {
				silent = append(silent, url)
			}
			return fmt.Errorf("no answer within %v for %s", timeout, strings.Join(silent, ", "))
		}
	}
	return nil
}
