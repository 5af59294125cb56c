// Loaded before a program, so that its bundled spiders are one more: it logs as many lines a page as its crawl's
// parameter says, numbered, and follows links; on a page whose path is /fault it fails.
import path from "node:path";
import { pathToFileURL } from "node:url";

const file = path.resolve(import.meta.dirname, "../../dist/spiders/index.js");
const { bundledSpiders } = await import(pathToFileURL(file).href);
const { get, has, list } = bundledSpiders;

const chatty = {
  name: "chatty",
  version: "7",
  async *parse(page) {
    const lines = Number(page.crawl.params.lines ?? 1);
    const { pathname } = new URL(page.url);
    const { log } = page;
    for (let number = 1; number <= lines; number += 1) {
      log.info({ number }, `${pathname} says ${number} of ${lines}`);
      // As a spider does that waits for something now and then.
      if (number % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    if (page.url.endsWith("/fault")) throw new Error("no shelf here");
    for (const url of page.links()) yield { request: url };
  },
};

bundledSpiders.get = (name) => (name === chatty.name ? chatty : get(name));
bundledSpiders.has = (name) => name === chatty.name || has(name);
bundledSpiders.list = () => [...list(), chatty];
