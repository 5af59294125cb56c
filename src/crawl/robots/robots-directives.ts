import { productTokenOf } from "./robots-txt.js";

/** What a page says about what may be done with it. */
export type RobotsDirectives = {
  /** Nothing of it is to be kept. */
  readonly noindex: boolean;
  /** Where its links lead is not to be followed because of it. */
  readonly nofollow: boolean;
};

export const NO_DIRECTIVES: RobotsDirectives = { noindex: false, nofollow: false };

/** Rules that have a value after a colon, so that their name is not taken for a crawler's. */
const WITH_VALUE = new Set(["unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"]);
/** Parts of one header, or `meta` elements of one page, that are looked at. */
const MAX_PARTS = 200;
const MAX_HEADER_CHARACTERS = 10_000;

/** Gathers what is said of one page, in whichever place. */
export class DirectiveReader {
  readonly #token: string;
  readonly #now: number;
  #noindex = false;
  #nofollow = false;

  /**
   * @param userAgent ours: what is said to crawlers of other names is not for us
   * @param now in milliseconds since the epoch, to tell whether a page should be gone by now
   */
  constructor(userAgent: string, now: number) {
    this.#token = productTokenOf(userAgent);
    this.#now = now;
  }

  get directives(): RobotsDirectives {
    return { noindex: this.#noindex, nofollow: this.#nofollow };
  }

  /**
   * Takes in `X-Robots-Tag`. A crawler's name and a colon say for whom the rules after it are, up to the next name.
   * Several headers have been joined by commas by now, so rules without a name behind one with a name count for that
   * name; nobody can tell any more.
   */
  header(value: string | undefined): void {
    if (value === undefined) return;
    let isOurs = true;
    const parts = value.slice(0, MAX_HEADER_CHARACTERS).split(",", MAX_PARTS);
    for (let index = 0; index < parts.length; index += 1) {
      let rule = (parts[index] ?? "").trim();
      let colon = rule.indexOf(":");
      while (colon > 0 && !WITH_VALUE.has(rule.slice(0, colon).trim().toLowerCase())) {
        isOurs = this.#isUs(rule.slice(0, colon));
        rule = rule.slice(colon + 1).trim();
        colon = rule.indexOf(":");
      }
      // The old way to write a date has a comma after the day of the week (RFC 9110, 5.6.7).
      if (/^unavailable_after\s*:\s*[a-z]+$/i.test(rule)) {
        index += 1;
        rule += `, ${parts[index] ?? ""}`;
      }
      if (isOurs) this.#take(rule);
    }
  }

  /** Takes in a `meta` element: its name, which is `robots` or a crawler's, and its content. */
  meta(name: string, content: string): void {
    const word = name.trim().toLowerCase();
    if (word === "robots" || this.#isUs(word)) {
      for (const rule of rulesIn(content)) this.#take(rule);
    }
  }

  #isUs(name: string): boolean {
    const token = name.trim().toLowerCase();
    return token === "*" || token === "robots" || token === this.#token;
  }

  #take(rule: string): void {
    const word = rule.trim().toLowerCase();
    if (word === "none" || word === "noindex") this.#noindex = true;
    if (word === "none" || word === "nofollow") this.#nofollow = true;
    const after = /^unavailable_after\s*:\s*(.+)$/.exec(word)?.[1];
    if (after !== undefined && instantOf(after) <= this.#now) this.#noindex = true;
  }
}

/** In content of a `meta` element white space parts rules as well as commas do, except in a date. */
function rulesIn(content: string): readonly string[] {
  const text = content.slice(0, MAX_HEADER_CHARACTERS);
  const after = /unavailable_after\s*:.*$/is.exec(text);
  const words = (after === null ? text : text.slice(0, after.index)).split(/[\s,]+/, MAX_PARTS);
  return after === null ? words : [...words, after[0]];
}

/** In milliseconds since the epoch; never, when it is no date that can be read. */
function instantOf(date: string): number {
  // The zone of a date in the style of RFC 850 is a name; years may have two digits.
  const at = Date.parse(date.replace(/^[a-z]+,\s*/i, "").replace(/(\d)-([a-z]{3})-(\d)/i, "$1 $2 $3"));
  return Number.isNaN(at) ? Number.POSITIVE_INFINITY : at;
}
