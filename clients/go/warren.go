// Package warren is for spiders of the Warren crawler: programs that are given pages, and say what they find on them.
//
//	func main() {
//		warren.Run(func(page *warren.Page, out *warren.Output) error {
//			out.Item(map[string]any{"url": page.URL})
//			out.Follow("/next")
//			return nil
//		})
//	}
package warren

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime/debug"
	"sync"
)

// ParseFunc finds things on a page. What it returns, or panics with, fails the page.
type ParseFunc func(page *Page, out *Output) error

// Spider is a spider with more than one function. All but Parse may be left out.
type Spider struct {
	// Parse is called for each page whose request names no callback.
	Parse ParseFunc
	// Callbacks are called for the pages of requests that name them.
	Callbacks map[string]ParseFunc
	// File is called for each stored file, if the manifest has "fileTypes".
	File func(file *File, out *Output) error
	// Open is called once, before the first page.
	Open func(crawl *Crawl) error
	// Close is called once, when there are no more pages. A process that is ended does not get that far.
	Close func(crawl *Crawl)
	// Concurrency is how many pages are parsed at once; 1 if it is 0. No more than the manifest's "pagesAtOnce" come.
	Concurrency int
}

// Crawl is the crawl that this process works for.
type Crawl struct {
	ID      string         `json:"crawl"`
	Spider  string         `json:"spider"`
	Version string         `json:"version"`
	Node    string         `json:"node"`
	Params  map[string]any `json:"params"`
	Mode    string         `json:"mode"`

	channel *channel
}

// Page is one fetched page.
type Page struct {
	// URL is that after redirects.
	URL    string `json:"url"`
	Status int    `json:"status"`
	// Headers has names in lower case.
	Headers  map[string]string `json:"headers"`
	Depth    int               `json:"depth"`
	Meta     map[string]any    `json:"meta"`
	Callback string            `json:"callback"`
	// Title and Links (absolute, each once) come if the manifest says "links": true.
	Title string   `json:"title"`
	Links []string `json:"links"`
	// Text is empty for what is no text.
	Text  string `json:"text"`
	Crawl *Crawl `json:"-"`

	Encoded string `json:"body"`
}

// Body gives the bytes of what is no text; those of text are UTF-8, whatever its encoding was.
func (page *Page) Body() ([]byte, error) {
	if page.Encoded == "" {
		return []byte(page.Text), nil
	}
	return base64.StdEncoding.DecodeString(page.Encoded)
}

// Absolute gives a URL as it is meant on this page; one that is none as it is.
func (page *Page) Absolute(reference string) string {
	base, err := url.Parse(page.URL)
	if err != nil {
		return reference
	}
	absolute, err := base.Parse(reference)
	if err != nil {
		return reference
	}
	return absolute.String()
}

// File is a file that was stored.
type File struct {
	URL         string `json:"url"`
	ID          string `json:"id"`
	Name        string `json:"name"`
	Bytes       int64  `json:"bytes"`
	SHA256      string `json:"sha256"`
	ContentType string `json:"contentType"`
	// FoundOn is the page that it was found on.
	FoundOn string         `json:"foundOn"`
	Meta    map[string]any `json:"meta"`
	Crawl   *Crawl         `json:"-"`
}

// Request is a URL to fetch, and what its page is for. It may be relative to the page.
type Request struct {
	URL      string            `json:"url"`
	Callback string            `json:"callback,omitempty"`
	Method   string            `json:"method,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Body     string            `json:"body,omitempty"`
	// Meta is kept with the URL and handed back on its page.
	Meta map[string]any `json:"meta,omitempty"`
	// Priority is 0 (last) to 9 (first) within the crawl; 5 if it is nil.
	Priority *int `json:"priority,omitempty"`
	// Render says whether a browser renders the page: true, or how.
	Render any `json:"render,omitempty"`
}

// Output takes what is found on one page. It may be used by several goroutines until the function returns.
type Output struct {
	page    int
	channel *channel
}

// Item takes an item: a map, or a struct that is an object as JSON.
func (out *Output) Item(data any) {
	out.channel.send(map[string]any{"type": "item", "page": out.page, "data": data})
}

// Follow takes a URL to fetch.
func (out *Output) Follow(reference string) { out.Request(Request{URL: reference}) }

// Request takes a URL to fetch, and how.
func (out *Output) Request(request Request) {
	out.channel.send(struct {
		Type string `json:"type"`
		Page int    `json:"page"`
		Request
	}{"request", out.page, request})
}

// Store takes a URL whose body is to be stored as a file.
func (out *Output) Store(reference string) {
	out.channel.send(map[string]any{"type": "store", "page": out.page, "url": reference})
}

// Log writes to the crawl's log. Levels are debug, info, warn and error.
func (out *Output) Log(level, message string, fields map[string]any) {
	out.channel.log(level, message, fields, map[string]any{"page": out.page})
}

// Log writes to the crawl's log. Levels are debug, info, warn and error.
func (crawl *Crawl) Log(level, message string, fields map[string]any) {
	crawl.channel.log(level, message, fields, nil)
}

// Count adds to a number of the crawl, kept in its state as "stats.NAME".
func (crawl *Crawl) Count(name string, by float64) {
	crawl.channel.send(map[string]any{"type": "stats", "name": name, "by": by})
}

// Get reads a value that all nodes share into what value points to, and says whether there is one.
func (crawl *Crawl) Get(name string, value any) (bool, error) {
	answer, err := crawl.channel.call(map[string]any{"type": "state.get", "name": name})
	if err != nil || string(answer) == "null" || len(answer) == 0 {
		return false, err
	}
	return true, json.Unmarshal(answer, value)
}

// Set keeps a value that all nodes share as long as there is the crawl: JSON of 16 KiB at most.
func (crawl *Crawl) Set(name string, value any) error {
	_, err := crawl.channel.call(map[string]any{"type": "state.set", "name": name, "value": value})
	return err
}

// Add adds to a number that all nodes share, from 0 on, in one step, and gives the sum.
func (crawl *Crawl) Add(name string, by float64) (float64, error) {
	var sum float64
	answer, err := crawl.channel.call(map[string]any{"type": "state.add", "name": name, "by": by})
	if err != nil {
		return 0, err
	}
	return sum, json.Unmarshal(answer, &sum)
}

// Delete forgets a value.
func (crawl *Crawl) Delete(name string) error {
	_, err := crawl.channel.call(map[string]any{"type": "state.delete", "name": name})
	return err
}

// Run works for the worker with one function, until that says that it is enough.
func Run(parse ParseFunc) { Spider{Parse: parse}.Run() }

// Run works for the worker until that says that it is enough. It exits with code 1 if that cannot go on.
func (spider Spider) Run() {
	writer := os.Stdout
	// What is printed from now on goes to standard error and so to the log: it could break messages in two otherwise.
	os.Stdout = os.Stderr
	if err := spider.run(os.Stdin, writer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (spider Spider) run(reader io.Reader, writer io.Writer) error {
	lines := &channel{writer: writer, answers: map[int]chan answer{}}
	messages := make(chan message, maxWaiting)
	go lines.read(reader, messages)
	slots := make(chan struct{}, max(1, spider.Concurrency))
	var working sync.WaitGroup
	var crawl *Crawl
	for said := range messages {
		if said.Type == "close" {
			break
		}
		if said.Type == "open" {
			crawl = &Crawl{channel: lines}
			if err := json.Unmarshal(said.line, crawl); err != nil {
				return fmt.Errorf("cannot read what the crawl is: %w", err)
			}
			if spider.Open != nil {
				if err := spider.Open(crawl); err != nil {
					return fmt.Errorf("cannot open: %w", err)
				}
			}
			continue
		}
		if crawl == nil {
			continue
		}
		slots <- struct{}{}
		working.Add(1)
		go func(given message) {
			defer working.Done()
			spider.work(crawl, given)
			<-slots
		}(said)
	}
	working.Wait()
	if crawl != nil && spider.Close != nil {
		spider.Close(crawl)
	}
	return lines.failure()
}

// work deals with one page or file, and says what came of it.
func (spider Spider) work(crawl *Crawl, given message) {
	out := &Output{page: given.ID, channel: crawl.channel}
	if err := spider.attempt(crawl, given, out); err != nil {
		crawl.channel.send(map[string]any{"type": "error", "page": given.ID, "message": err.Error()})
		return
	}
	crawl.channel.send(map[string]any{"type": "done", "page": given.ID})
}

func (spider Spider) attempt(crawl *Crawl, given message, out *Output) (err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			out.Log("error", fmt.Sprintf("panic: %v\n%s", thrown, debug.Stack()), nil)
			err = fmt.Errorf("panic: %v", thrown)
		}
	}()
	if given.Type == "file" {
		if spider.File == nil {
			return nil
		}
		told := struct {
			File *File `json:"file"`
		}{&File{Crawl: crawl}}
		if err := json.Unmarshal(given.line, &told); err != nil {
			return err
		}
		return spider.File(told.File, out)
	}
	page := &Page{Crawl: crawl}
	if err := json.Unmarshal(given.line, page); err != nil {
		return err
	}
	parse := spider.Parse
	if page.Callback != "" {
		parse = spider.Callbacks[page.Callback]
	}
	if parse == nil {
		return fmt.Errorf("the spider has no callback %q", page.Callback)
	}
	return parse(page, out)
}
