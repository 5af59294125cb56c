package warren

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
)

type object = map[string]any

var opening = object{
	"type": "open", "crawl": "c1", "spider": "books", "version": "2", "node": "n1",
	"params": object{"a": 1}, "mode": "pages",
}

func page(id int, about object) object {
	given := object{
		"type": "page", "id": id, "url": "http://a/b/", "status": 200, "headers": object{}, "depth": 1,
		"meta": object{}, "text": "hello",
	}
	for name, value := range about {
		given[name] = value
	}
	return given
}

func lineOf(said object) []byte {
	line, err := json.Marshal(said)
	if err != nil {
		panic(err)
	}
	return append(line, '\n')
}

// What a spider answers to these messages.
func conversation(t *testing.T, spider Spider, said ...object) []object {
	t.Helper()
	var input, output bytes.Buffer
	for _, message := range said {
		input.Write(lineOf(message))
	}
	if err := spider.run(&input, &output); err != nil {
		t.Fatal(err)
	}
	return objects(t, output.String())
}

func objects(t *testing.T, text string) []object {
	t.Helper()
	var answers []object
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var answer object
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		answers = append(answers, answer)
	}
	return answers
}

func expect(t *testing.T, got, wanted any) {
	t.Helper()
	// By way of JSON, so that numbers are of one type.
	one, two := asJSON(t, got), asJSON(t, wanted)
	if !reflect.DeepEqual(one, two) {
		t.Errorf("got  %v\nnot %v", one, two)
	}
}

func asJSON(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var read any
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

func TestYieldsItemsRequestsAndFiles(t *testing.T) {
	first := 9
	spider := Spider{Parse: func(page *Page, out *Output) error {
		out.Item(struct {
			URL string `json:"url"`
			A   any    `json:"a"`
		}{page.URL, page.Crawl.Params["a"]})
		out.Follow(page.Absolute("c?d"))
		out.Request(Request{URL: "/post", Method: "POST", Body: "z", Callback: "book", Priority: &first, Meta: object{"m": 1}})
		out.Store("e.pdf")
		out.Log("warn", "careful", object{"how": "so"})
		page.Crawl.Count("books", 2.5)
		return nil
	}}
	expect(t, conversation(t, spider, opening, page(7, nil)), []object{
		{"type": "item", "page": 7, "data": object{"url": "http://a/b/", "a": 1}},
		{"type": "request", "page": 7, "url": "http://a/b/c?d"},
		{"type": "request", "page": 7, "url": "/post", "method": "POST", "body": "z", "callback": "book", "priority": 9, "meta": object{"m": 1}},
		{"type": "store", "page": 7, "url": "e.pdf"},
		{"type": "log", "page": 7, "level": "warn", "message": "careful", "how": "so"},
		{"type": "stats", "name": "books", "by": 2.5},
		{"type": "done", "page": 7},
	})
}

func TestFailsAPageByItsErrorAndGoesOn(t *testing.T) {
	spider := Spider{
		Parse: func(*Page, *Output) error { return nil },
		Callbacks: map[string]ParseFunc{
			"fails":    func(*Page, *Output) error { return errors.New("no price") },
			"panics":   func(*Page, *Output) error { panic("lost") },
			"nonsense": func(_ *Page, out *Output) error { out.Item(make(chan int)); return nil },
		},
	}
	for name, wanted := range map[string]string{
		"fails": "no price", "panics": "panic: lost", "unheard": `the spider has no callback "unheard"`,
		"nonsense": "panic: an output must be JSON: json: unsupported type: chan int",
	} {
		answers := conversation(t, spider, opening, page(1, object{"callback": name}), page(2, nil))
		var ends []object
		for _, answer := range answers {
			if answer["type"] != "log" {
				ends = append(ends, answer)
			}
		}
		expect(t, ends, []object{{"type": "error", "page": 1, "message": wanted}, {"type": "done", "page": 2}})
	}
}

func TestAsksForStateWhileFurtherPagesCome(t *testing.T) {
	fromWorker, toSpider := io.Pipe()
	fromSpider, toWorker := io.Pipe()
	spider := Spider{Parse: func(page *Page, out *Output) error {
		var seen []string
		isThere, err := page.Crawl.Get("seen", &seen)
		if err != nil {
			return err
		}
		sum, err := page.Crawl.Add("n", 2)
		out.Item(object{"seen": seen, "isThere": isThere, "sum": sum, "set": page.Crawl.Set("", 1).Error()})
		return err
	}}
	ended := make(chan error)
	go func() { ended <- spider.run(fromWorker, toWorker) }()
	said := bufio.NewScanner(fromSpider)
	heard := func() object {
		said.Scan()
		return objects(t, said.Text())[0]
	}
	toSpider.Write(append(lineOf(opening), append(lineOf(page(1, nil)), lineOf(page(2, nil))...)...))
	for number, value := range []any{[]string{"a"}, 2} {
		call := heard()
		expect(t, call["id"], number+1)
		toSpider.Write(lineOf(object{"type": "state", "id": call["id"], "value": value}))
	}
	toSpider.Write(lineOf(object{"type": "state", "id": heard()["id"], "error": "not so"}))
	expect(t, heard()["data"], object{"seen": []string{"a"}, "isThere": true, "sum": 2, "set": "not so"})
	expect(t, heard(), object{"type": "done", "page": 1})
	expect(t, heard()["type"], "state.get")
	// The worker is gone: whoever waits for it hears so.
	toSpider.Close()
	expect(t, heard(), object{"type": "error", "page": 2, "message": "the worker has closed"})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestIsToldOfFilesOpeningAndClosing(t *testing.T) {
	var calls []string
	spider := Spider{
		Parse: func(*Page, *Output) error { calls = append(calls, "parse"); return nil },
		Open:  func(crawl *Crawl) error { calls = append(calls, "open "+crawl.ID+" "+crawl.Node); return nil },
		Close: func(crawl *Crawl) { calls = append(calls, "close "+crawl.ID) },
		File: func(file *File, out *Output) error {
			out.Item(object{"name": file.Name, "bytes": file.Bytes, "on": file.FoundOn})
			return nil
		},
	}
	file := object{"type": "file", "id": 3, "file": object{"url": "http://a/x.pdf", "name": "x.pdf", "bytes": 5, "foundOn": "http://a/"}}
	answers := conversation(t, spider, opening, page(1, nil), file, object{"type": "close"}, page(2, nil))
	expect(t, answers[1]["data"], object{"name": "x.pdf", "bytes": 5, "on": "http://a/"})
	expect(t, calls, []string{"open c1 n1", "parse", "close c1"})
}

func TestGivesBytesOfWhatIsNoText(t *testing.T) {
	var bodies [][]byte
	spider := Spider{Parse: func(page *Page, _ *Output) error {
		body, err := page.Body()
		bodies = append(bodies, body)
		return err
	}}
	conversation(t, spider, opening, page(1, object{"body": "iQD/", "text": nil}), page(2, object{"text": "ä"}))
	expect(t, bodies, [][]byte{{0x89, 0, 0xff}, []byte("ä")})
}

func TestParsesSeveralPagesAtOnceIfItMay(t *testing.T) {
	var together atomic.Int32
	all := make(chan struct{})
	spider := Spider{Concurrency: 3, Parse: func(*Page, *Output) error {
		if together.Add(1) == 3 {
			close(all)
		}
		<-all
		return nil
	}}
	answers := conversation(t, spider, opening, page(1, nil), page(2, nil), page(3, nil))
	expect(t, len(answers), 3)
}
