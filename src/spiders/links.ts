import { defineSpider } from "../crawl/spider.js";

export type LinksItem = { title: string; status: number };

/** Follows every link in scope; one item a page: its title and its status. */
export const links = defineSpider<LinksItem>({
  name: "links",
  *parse(page) {
    yield { item: { title: page.title, status: page.status } };
    for (const url of page.links()) yield { request: url };
  },
});
