// Crawls one host, breadth first, and writes the title of each page as a line of JSON.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
)

const (
	maxPages     = 100
	maxBodyBytes = 1 << 20
)

var (
	link  = regexp.MustCompile(`<a href="([^"#]+)`)
	title = regexp.MustCompile(`<title>([^<]*)</title>`)
)

type Page struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
	Title  string `json:"title"`
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: crawler URL")
	}
	start, err := url.Parse(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	pages := json.NewEncoder(os.Stdout)
	seen := map[string]bool{start.String(): true}
	queue := []*url.URL{start}
	for fetched := 0; len(queue) > 0 && fetched < maxPages; fetched++ {
		next := queue[0]
		queue = queue[1:]
		page, body, err := fetch(next)
		if err != nil {
			log.Print(err)
			continue
		}
		if err := pages.Encode(page); err != nil {
			log.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(body, -1) {
			target, err := next.Parse(found[1])
			if err != nil || target.Host != start.Host || seen[target.String()] {
				continue
			}
			seen[target.String()] = true
			queue = append(queue, target)
		}
	}
}

func fetch(address *url.URL) (Page, string, error) {
	response, err := http.Get(address.String())
	if err != nil {
		return Page{}, "", err
	}
	defer response.Body.Close()
	page := Page{URL: address.String(), Status: response.StatusCode}
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/html") {
		return page, "", nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBodyBytes))
	if found := title.FindSubmatch(body); found != nil {
		page.Title = string(found[1])
	}
	return page, string(body), err
}
