package warren

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Messages that may wait to be worked on: more than are ever sent at once.
const maxWaiting = 1024

// What the worker says; line is all of it.
type message struct {
	Type  string          `json:"type"`
	ID    int             `json:"id"`
	Value json.RawMessage `json:"value"`
	Error string          `json:"error"`

	line []byte
}

type answer struct {
	value json.RawMessage
	err   error
}

// The lines between a spider's process and the worker: UTF-8, one JSON object a line.
type channel struct {
	writer  io.Writer
	writing sync.Mutex
	// What went wrong when it was written; guarded by writing.
	broken error

	asking   sync.Mutex
	calls    int
	answers  map[int]chan answer
	isClosed bool
}

var errClosed = errors.New("the worker has closed")

// read hands on what comes until there is no more, and answers to those who wait for them.
func (lines *channel) read(reader io.Reader, messages chan<- message) {
	defer close(messages)
	defer lines.close()
	input := bufio.NewReaderSize(reader, 1<<16)
	for {
		line, err := input.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			said := message{line: line}
			if wrong := json.Unmarshal(line, &said); wrong != nil {
				lines.fail(fmt.Errorf("cannot read what the worker says: %w", wrong))
				return
			}
			switch said.Type {
			case "state":
				lines.answer(said)
			case "open", "page", "file", "close":
				messages <- said
			}
		}
		if err != nil {
			return
		}
	}
}

// send writes a message. What is no JSON fails the page whose output it is: it panics.
func (lines *channel) send(said any) {
	line, err := json.Marshal(said)
	if err != nil {
		panic(fmt.Sprintf("an output must be JSON: %v", err))
	}
	lines.writing.Lock()
	defer lines.writing.Unlock()
	if lines.broken == nil {
		_, lines.broken = lines.writer.Write(append(line, '\n'))
	}
}

func (lines *channel) log(level, text string, fields map[string]any, more map[string]any) {
	said := map[string]any{}
	for _, members := range []map[string]any{fields, more} {
		for name, value := range members {
			said[name] = value
		}
	}
	said["type"], said["level"], said["message"] = "log", level, text
	lines.send(said)
}

// call asks, and waits for the answer.
func (lines *channel) call(said map[string]any) (json.RawMessage, error) {
	waiting := make(chan answer, 1)
	lines.asking.Lock()
	if lines.isClosed {
		lines.asking.Unlock()
		return nil, errClosed
	}
	lines.calls++
	number := lines.calls
	lines.answers[number] = waiting
	lines.asking.Unlock()
	said["id"] = number
	lines.send(said)
	got := <-waiting
	return got.value, got.err
}

func (lines *channel) answer(said message) {
	lines.asking.Lock()
	waiting := lines.answers[said.ID]
	delete(lines.answers, said.ID)
	lines.asking.Unlock()
	if waiting == nil {
		return
	}
	if said.Error != "" {
		waiting <- answer{err: errors.New(said.Error)}
		return
	}
	waiting <- answer{value: said.Value}
}

func (lines *channel) close() {
	lines.asking.Lock()
	defer lines.asking.Unlock()
	lines.isClosed = true
	for number, waiting := range lines.answers {
		delete(lines.answers, number)
		waiting <- answer{err: errClosed}
	}
}

func (lines *channel) fail(err error) {
	lines.writing.Lock()
	defer lines.writing.Unlock()
	lines.broken = err
}

func (lines *channel) failure() error {
	lines.writing.Lock()
	defer lines.writing.Unlock()
	return lines.broken
}
