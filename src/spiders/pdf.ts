import { defineSpider } from "../crawl/spider.js";
import type { LinksItem } from "./links.js";

export type PdfItem = {
  /** The id under which the file can be had again. */
  file: string;
  sha256: string;
  bytes: number;
  foundOn: string;
};

/**
 * Follows every link in scope and stores every PDF linked to; one item a page, as `links` does, and one a PDF.
 *
 * Each link is asked for as a page and as a file: as a page while that is not too deep, else as a file, which
 * is looked at only to see whether it is a PDF.
 */
export const pdf = defineSpider<LinksItem | PdfItem>({
  name: "pdf",
  fileTypes: ["application/pdf"],
  *parse(page) {
    yield { item: { title: page.title, status: page.status } };
    for (const url of page.links()) {
      yield { request: url };
      yield { file: url };
    }
  },
  *file(file) {
    yield { item: { file: file.id, sha256: file.sha256, bytes: file.bytes, foundOn: file.foundOn } };
  },
});
