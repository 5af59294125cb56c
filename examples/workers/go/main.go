// A Warren worker in Go: takes the tasks of an external spider, fetches, and hands in what it found. It is run by
// `go run . SPIDER` ("titles" unless named), once the spider is declared: PUT /api/v1/spiders/SPIDER {"external": true}.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"
)

const maxBytes, atOnce, timeout = 16 << 20, 4, 20 * time.Second

type object = map[string]any
type task struct {
	Task, URL, Method, Body string
	Headers                 map[string]string
	NotAfter                int64
}

var namespace, temporary = cmp.Or(os.Getenv("WARREN_NAMESPACE"), "warren"), regexp.MustCompile(`"code":"(unavailable|timeout|internal|cancelled)"`)

// Redirects are for the master to follow: scope and politeness hold there too.
var client = &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func failed(code string, message any) object {
	return object{"error": object{"code": code, "message": fmt.Sprint(message)}}
}

// fetch finds what is behind the URL of a task, as the members of submit-result.
func fetch(t task) object {
	if time.Now().UnixMilli() > t.NotAfter {
		return failed("expired", "waited too long to begin")
	}
	request, err := http.NewRequest(t.Method, t.URL, strings.NewReader(t.Body))
	if err != nil {
		return failed("spider-error", err)
	}
	for name, value := range t.Headers {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	var body []byte
	if err == nil {
		defer response.Body.Close()
		body, err = io.ReadAll(io.LimitReader(response.Body, maxBytes+1))
	}
	if err != nil {
		return failed(map[bool]string{true: "timeout", false: "network"}[os.IsTimeout(err)], err)
	} else if len(body) > maxBytes {
		return failed("too-large", fmt.Sprintf("more than %d bytes", maxBytes))
	}
	header, found := response.Header, object{"statusCode": response.StatusCode, "bytes": len(body)}
	for member, name := range map[string]string{"redirect": "Location", "retryAfter": "Retry-After", "contentType": "Content-Type"} {
		if value := header.Get(name); value != "" {
			found[member] = value
		}
	}
	if response.StatusCode/100 == 2 && strings.Contains(header.Get("Content-Type"), "html") {
		title, links, base := "", []string{}, request.URL
		encoding, _, _ := charset.DetermineEncoding(body, header.Get("Content-Type"))
		page, _ := html.Parse(encoding.NewDecoder().Reader(bytes.NewReader(body)))
		for node := range page.Descendants() {
			attribute := map[string]string{}
			for _, each := range node.Attr {
				attribute[each.Key] = strings.TrimSpace(each.Val)
			}
			reference := cmp.Or(attribute["href"], attribute["src"])
			target, err := base.Parse(reference)
			if node.Data == "title" && title == "" && node.FirstChild != nil {
				title = strings.Join(strings.Fields(node.FirstChild.Data), " ")
			} else if node.Data == "base" && err == nil {
				base = target
			} else if strings.Contains(" a area frame iframe ", " "+node.Data+" ") && reference != "" && err == nil && attribute["rel"] != "nofollow" {
				links = append(links, target.String())
			}
		}
		found["links"], found["items"] = links[:min(len(links), 20000)], []object{{"title": title, "status": response.StatusCode}}
	}
	return found
}

// work takes tasks one after the other until something is lost.
func work(connection *amqp.Connection, queue, node string) error {
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	replies, err := channel.QueueDeclare("", false, true, true, false, nil)
	answers, noAnswers := channel.Consume(replies.Name, "", true, true, false, false, nil)
	noQos := channel.Qos(1, 0, false)
	tasks, noTasks := channel.Consume(queue, "", false, false, false, false, nil)
	if err = errors.Join(err, noAnswers, noQos, noTasks); err != nil {
		return err
	}
	for delivery := range tasks {
		t := task{Method: "GET"}
		if err := json.Unmarshal(delivery.Body, &t); err != nil {
			return err
		}
		result := fetch(t)
		result["task"], result["node"] = t.Task, node
		body, _ := json.Marshal(object{"type": "submit-result", "args": result})
		call := amqp.Publishing{ReplyTo: replies.Name, CorrelationId: t.Task, ContentType: "application/json", Body: body}
		if err := channel.Publish("", namespace+".master", false, false, call); err != nil {
			return err
		}
		for answer, late := (amqp.Delivery{}), time.After(timeout); answer.CorrelationId != t.Task; {
			select {
			case answer = <-answers:
				if answer.Body == nil || temporary.Match(answer.Body) {
					return fmt.Errorf("a result was not taken: %s", answer.Body)
				}
			case <-late:
				return errors.New("no master has answered")
			}
		}
		delivery.Ack(false) // Not before: if we fail, the task comes again, and its result counts once.
	}
	return errors.New("the channel was closed")
}

func main() {
	spider := append(os.Args, "titles")[1]
	for ; ; time.Sleep(time.Second) {
		connection, err := amqp.Dial(cmp.Or(os.Getenv("AMQP_URL"), "amqp://guest:guest@127.0.0.1:5672"))
		if err == nil {
			ended := make(chan error, atOnce)
			for range atOnce {
				go func() { ended <- work(connection, namespace+".tasks."+spider, fmt.Sprint("go-", os.Getpid())) }()
			}
			err = <-ended
			connection.Close()
		}
		log.Printf("lost RabbitMQ: %v; coming back", err)
	}
}
