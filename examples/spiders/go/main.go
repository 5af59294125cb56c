// The chapters of the demo site, and how many words each has.
package main

import (
	"net/url"
	"regexp"
	"strings"

	warren "warren-crawler.example/go"
)

var paragraph = regexp.MustCompile(`(?s)<p>(.*?)</p>`)

// Chapter is an item.
type Chapter struct {
	Title string `json:"title"`
	Words int    `json:"words"`
}

func main() {
	warren.Spider{
		Parse:       parse,
		Callbacks:   map[string]warren.ParseFunc{"chapter": chapter},
		Concurrency: 8,
	}.Run()
}

// The worker has found the links; which of them are chapters can be told by their paths: /section/chapter.
func parse(page *warren.Page, out *warren.Output) error {
	for _, link := range page.Links {
		target, err := url.Parse(link)
		if err != nil {
			return err
		}
		switch parts := strings.Split(target.Path, "/"); {
		case len(parts) == 3 && parts[1] == "private":
			out.Log("info", "leaving the private part alone", map[string]any{"link": link})
		case len(parts) == 3 && parts[2] == "":
			out.Follow(link)
		case len(parts) == 3 && !strings.Contains(parts[2], "."):
			out.Request(warren.Request{URL: link, Callback: "chapter"})
		}
	}
	return nil
}

func chapter(page *warren.Page, out *warren.Output) error {
	words := 0
	for _, found := range paragraph.FindAllStringSubmatch(page.Text, -1) {
		words += len(strings.Fields(found[1]))
	}
	page.Crawl.Count("words", float64(words))
	out.Item(Chapter{Title: page.Title, Words: words})
	return nil
}
