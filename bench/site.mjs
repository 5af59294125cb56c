/**
 * A synthetic site: any number of pages over many hosts, the same on every machine and in every run. A page
 * has about 20 KB and 60 links, and is made when it is asked for, so that a large site needs no more memory
 * than a small one, and costs no more a page.
 *
 * The links of a page: to the first pages of its host (as a navigation has), to its children in a tree over
 * all pages (so that every page is reached from page 0, in a few steps), to its neighbours on the host, and
 * the rest drawn by lot, half on the same host and relative, half anywhere and absolute.
 */

export const HOSTS = 50;
const LINKS = 60;
const NAVIGATION = 8;
const CHILDREN = 8;
const FILLERS = 64;
const FILLER_BYTES = 8_300;
export const PATH_PREFIX = "/catalogue/item-";
export const PATH_SUFFIX = "/index.html";

const WORDS =
  "amber basin candle drift ember field grove harbour island juniper kettle lantern meadow north orchard " +
  "pebble quarry river saddle timber under valley willow yarrow bright calm distant early fallow gentle";

/** The loopback address of a host, by its number. */
export function addressOf(host) {
  return `127.77.${Math.floor(host / 250)}.${(host % 250) + 1}`;
}

/** The number of the page that a path leads to on a host, or -1. */
export function pageAt(host, path, pages) {
  if (!path.startsWith(PATH_PREFIX) || !path.endsWith(PATH_SUFFIX)) return -1;
  const digits = path.slice(PATH_PREFIX.length, -PATH_SUFFIX.length);
  const page = Number(digits);
  const isCanonical = String(page) === digits && page >= 0 && page < pages;
  return isCanonical && page % HOSTS === host ? page : -1;
}

export class SyntheticSite {
  #pages;
  #origins;
  #fillers = fillers();

  /** @param {{ pages: number, port: number }} options */
  constructor({ pages, port }) {
    if (pages < HOSTS) throw new Error(`the site has ${HOSTS} hosts: it needs as many pages, not ${pages}`);
    this.#pages = pages;
    this.#origins = Array.from({ length: HOSTS }, (_, host) => `http://${addressOf(host)}:${port}`);
  }

  get pages() {
    return this.#pages;
  }

  /** One page of each host. */
  get seeds() {
    return Array.from({ length: HOSTS }, (_, host) => this.urlOf(host));
  }

  urlOf(page) {
    return this.#origins[page % HOSTS] + pathOf(page);
  }

  /** Calls back for each link of a page, in their order, with the page it leads to and the link as written. */
  eachLink(page, add) {
    const host = page % HOSTS;
    const onHost = Math.ceil((this.#pages - host) / HOSTS);
    const rank = Math.floor(page / HOSTS);
    let links = 0;
    const addOnHost = (index) => {
      links += 1;
      const target = host + HOSTS * index;
      add(target, pathOf(target));
    };
    const addAnywhere = (target) => {
      links += 1;
      add(target, this.urlOf(target));
    };
    for (let index = 0; index < Math.min(NAVIGATION, onHost); index += 1) addOnHost(index);
    if (rank > 0) addOnHost(rank - 1);
    if (rank + 1 < onHost) addOnHost(rank + 1);
    const lastChild = Math.min(page * CHILDREN + CHILDREN, this.#pages - 1);
    for (let target = page * CHILDREN + 1; target <= lastChild; target += 1) addAnywhere(target);
    let state = (page + 1) | 0;
    while (links < LINKS) {
      state = (state + 0x6d2b79f5) | 0;
      const draw = scramble(state);
      if (links % 2 === 0) addOnHost(draw % onHost);
      else addAnywhere(draw % this.#pages);
    }
  }

  /** A whole HTTP/1.1 response with the page as its body. */
  render(page) {
    let top =
      `<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n<title>Item ${page} of the catalogue</title>\n` +
      `<meta name="description" content="All about item ${page}"><link rel="stylesheet" href="/style.css">\n` +
      `<script>window.item = ${page}; if (1 < 2) { document.title += ""; }</script></head>\n` +
      `<body class="item"><header><h1>Item ${page}</h1><p class="price">&pound;${page % 97}.50</p></header>\n` +
      `<section class="cards">\n`;
    this.eachLink(page, (target, href) => {
      top +=
        `<article class="card" data-item="${target}"><h3><a class="card-link" href="${href}" ` +
        `title="Item ${target}">Item ${target}</a></h3><p class="price">&pound;${target % 97}.50</p></article>\n`;
    });
    top += "</section>\n";
    const filler = this.#fillers[page % FILLERS];
    const length = top.length + filler.length;
    const head = `HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: ${length}\r\n\r\n`;
    const response = Buffer.allocUnsafe(head.length + length);
    response.latin1Write(head, 0);
    response.latin1Write(top, head.length);
    filler.copy(response, head.length + top.length);
    return response;
  }
}

function pathOf(page) {
  return `${PATH_PREFIX}${page}${PATH_SUFFIX}`;
}

/** Spreads a counter over 32 bits (the mixing steps of mulberry32). */
function scramble(state) {
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return (mixed ^ (mixed >>> 14)) >>> 0;
}

/** The rest of a page, from the text to the end, in a few variants. */
function fillers() {
  const words = WORDS.split(" ");
  return Array.from({ length: FILLERS }, (_, variant) => {
    const parts = ['<main class="text">\n'];
    let bytes = 0;
    let state = variant + 1;
    while (bytes < FILLER_BYTES) {
      const sentence = Array.from({ length: 40 }, (_, index) => {
        state = (state + 0x6d2b79f5) | 0;
        const word = words[scramble(state) % words.length];
        return index % 13 === 5 ? `<em>${word}</em>` : index % 17 === 9 ? `${word} &amp;` : word;
      });
      const paragraph = `<p class="paragraph">${sentence.join(" ")}.</p>\n`;
      parts.push(paragraph);
      bytes += paragraph.length;
    }
    parts.push("</main>\n<footer><p>&copy; the catalogue</p></footer></body></html>\n");
    return Buffer.from(parts.join(""), "latin1");
  });
}
