import type { Clock } from "../../lib/clock.js";
import type { Spiders, StoredSpider } from "../../store/index.js";

/** How old what is known of a spider may be, in milliseconds. */
const MAX_AGE_MS = 2_000;
/** Names of which something is known. */
const MAX_NAMES = 1_000;

type Entry = { readonly spider: StoredSpider | undefined; readonly readAtMs: number };

/** Which spiders were put, and which versions of theirs are current: never older than two seconds, without a read a task. */
export class SpiderDirectory {
  readonly #spiders: Pick<Spiders, "get">;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #reading = new Map<string, Promise<StoredSpider | undefined>>();

  constructor(deps: { readonly spiders: Pick<Spiders, "get">; readonly clock: Clock }) {
    this.#spiders = deps.spiders;
    this.#clock = deps.clock;
  }

  /**
   * The spider of this name, at once if that is known; undefined when there is none.
   * @throws StoreError when the database cannot be asked
   */
  get(name: string): StoredSpider | undefined | Promise<StoredSpider | undefined> {
    const entry = this.#entries.get(name);
    if (entry !== undefined && this.#clock.monotonic() - entry.readAtMs <= MAX_AGE_MS) return entry.spider;
    let reading = this.#reading.get(name);
    if (reading === undefined) {
      reading = this.#read(name).finally(() => this.#reading.delete(name));
      this.#reading.set(name, reading);
    }
    return reading;
  }

  /** Whether its pages are read by workers that are not Warren's. */
  isExternal(name: string): boolean | Promise<boolean> {
    const spider = this.get(name);
    return spider instanceof Promise
      ? spider.then((found) => found?.kind === "external")
      : spider?.kind === "external";
  }

  /** Something about it has changed. */
  forget(name: string): void {
    this.#entries.delete(name);
    this.#reading.delete(name);
  }

  async #read(name: string): Promise<StoredSpider | undefined> {
    const readAtMs = this.#clock.monotonic();
    const spider = await this.#spiders.get(name);
    if (this.#entries.size >= MAX_NAMES) this.#entries.clear();
    this.#entries.set(name, { spider, readAtMs });
    return spider;
  }
}
