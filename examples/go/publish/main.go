// Publish hands URLs to Warren and says which the broker has taken.
package main

import (
	"cmp"
	"fmt"
	"os"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: publish URL...")
		os.Exit(2)
	}
	if err := publish(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func publish(urls []string) error {
	tasks := cmp.Or(os.Getenv("WARREN_NAMESPACE"), "warren") + ".tasks"
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
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))

	for _, url := range urls {
		const mandatory, immediate = true, false
		confirmation, err := channel.PublishWithDeferredConfirm("", tasks, mandatory, immediate, amqp.Publishing{
			ContentType:  "text/plain",
			DeliveryMode: amqp.Persistent,
			Body:         []byte(url),
		})
		if err != nil {
			return err
		}
		taken := confirmation.Wait()
		select {
		case <-returned: // comes before the confirmation, which a message that nobody takes gets as well
			return fmt.Errorf("%s: there is no queue %s; does Warren run on this broker, in this namespace?", url, tasks)
		case err := <-closed:
			return err
		default:
		}
		if !taken {
			return fmt.Errorf("%s: the queue %s did not take it; is it full?", url, tasks)
		}
		fmt.Println("taken", url)
	}
	return nil
}
