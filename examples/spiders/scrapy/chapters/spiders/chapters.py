import scrapy


class ChaptersSpider(scrapy.Spider):
    """The chapters of the demo site, each with its section."""

    name = "chapters"

    def __init__(self, start_url="http://127.0.0.1:8000/", **arguments):
        super().__init__(**arguments)
        self.start_urls = [start_url]

    def parse(self, response):
        sections = response.css("li a[href$='/']::attr(href)")
        yield from response.follow_all(sections, callback=self.parse_section)

    def parse_section(self, response):
        title = response.css("h1::text").get()
        for link in response.css("li a"):
            href = link.attrib["href"]
            if not href.endswith("/") and "(to print)" not in link.css("::text").get(""):
                yield response.follow(href, callback=self.parse_chapter, cb_kwargs={"section": title})

    def parse_chapter(self, response, section):
        yield {
            "section": section,
            "title": response.css("h1::text").get(),
            "text": response.css("p::text").getall(),
            "url": response.url,
        }
