import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Crawl } from "./crawl.js";
import { StorageError } from "./errors.js";
import type { NewUrl, UrlKind } from "./frontier.js";
import { type CheckedItem, checkedItem, keptAside } from "./item-check.js";
import { keptAs } from "./item-keeping.js";
import { LinkAdmission } from "./link-admission.js";
import type { InvalidItemRecord, ItemRecord } from "./records.js";
import type { RunOutput } from "./run.js";
import type { Spider, SpiderRequest } from "./spider.js";
import { checkRequest } from "./spider-run.js";

/** What a run has brought, to be stored together. */
export type RunBatch = {
  readonly items: readonly ItemRecord[];
  readonly invalidItems: readonly InvalidItemRecord[];
  readonly links: readonly NewUrl[];
};

/** What a run has brought: items that are as they must be, those that are not, and URLs to fetch. */
export type RunCounts = { readonly items: number; readonly invalidItems: number; readonly requests: number };

export type RunOutputsInput = {
  readonly crawl: Crawl;
  /** The run's id, and which attempt at it this is. */
  readonly run: string;
  readonly attempt: number;
  readonly spider: Spider;
  readonly version: string;
  /** The node's id. */
  readonly node: string;
  readonly clock: Clock;
  /** Called with one batch at a time. What it throws ends the run. */
  readonly store: (batch: RunBatch) => Promise<void>;
};

/** Outputs stored together at most. */
const BATCH = 200;
/** Outputs that may wait for the batch before them; who yields more waits. */
const MAX_WAITING = 1_000;
/** Longest wait of an output for others to join it, in milliseconds. */
const GATHER_MS = 250;
/** What a run asks for is as far from a seed as a seed is. */
const SEED_DEPTH = -1;

/** Gathers what a run yields, and has it stored in batches, in order, at the pace of whoever stores them. */
export class RunOutputs {
  readonly #input: RunOutputsInput;
  readonly #admission: LinkAdmission;
  #items: ItemRecord[] = [];
  #invalidItems: InvalidItemRecord[] = [];
  #links = new Map<string, NewUrl>();
  /** Items so far, valid or not: the number of the next. */
  #itemNumber = 0;
  #counts = { items: 0, invalidItems: 0, requests: 0 };
  #storing: Promise<void> | undefined;
  #failure: { readonly error: StorageError } | undefined;
  #stopTimer: StopTimer | undefined;

  constructor(input: RunOutputsInput) {
    this.#input = input;
    this.#admission = new LinkAdmission(input.crawl, { now: () => input.clock.now() });
  }

  get counts(): RunCounts {
    return this.#counts;
  }

  /**
   * Takes an output; resolves when there is room for more.
   * @throws Error saying what is wrong with it
   * @throws StorageError when what came before could not be stored, or the run was ended
   */
  async take(output: RunOutput): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    const adding = this.#add(output);
    if (adding !== undefined) await adding;
    if (this.#waiting >= BATCH) this.#begin();
    else this.#stopTimer ??= this.#input.clock.after(GATHER_MS, () => this.#begin());
    while (this.#waiting >= MAX_WAITING && this.#storing !== undefined) await this.#storing;
  }

  /** Resolves when all is stored. @throws what it could not be stored for */
  async flush(): Promise<void> {
    this.#begin();
    while (this.#storing !== undefined) {
      await this.#storing;
      this.#begin();
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Stores nothing more. */
  stop(): void {
    this.#stopTimer?.();
    this.#failure ??= { error: new StorageError("the run was ended") };
  }

  get #waiting(): number {
    return this.#items.length + this.#invalidItems.length + this.#links.size;
  }

  #add(output: RunOutput): Promise<void> | undefined {
    const { crawl, spider } = this.#input;
    if ("item" in output) {
      const { item, url = crawl.seeds[0] ?? "" } = output;
      const number = this.#itemNumber++;
      const checked = checkedItem(item, spider.item);
      if (checked instanceof Promise) return checked.then((late) => this.#keep(late, number, url));
      this.#keep(checked, number, url);
    } else if ("invalidItem" in output) {
      const { data, reasons } = output.invalidItem;
      this.#keep({ invalid: data, reasons }, this.#itemNumber++, crawl.seeds[0] ?? "");
    } else if ("request" in output) {
      const wanted = output.request;
      if (typeof wanted !== "object" || wanted?.spider === undefined) {
        throw new Error(
          "a request of a spider that runs as a whole must name the `spider` that reads its page",
        );
      }
      this.#admit(wanted, "page");
    } else this.#admit(output.file, "file");
    return undefined;
  }

  /** @param number the same for the same item each time that the run is begun, if it yields them in the same order */
  #keep(checked: CheckedItem, number: number, url: string): void {
    const { crawl, run, attempt, spider, version, node, clock } = this.#input;
    const about = {
      id: `${run}.${attempt}.${number}`,
      crawl: crawl.id,
      url,
      at: clock.now(),
      spider: spider.name,
      version,
      node,
    };
    if ("data" in checked) {
      this.#counts.items += 1;
      this.#items.push({ ...about, data: checked.data });
    } else {
      this.#counts.invalidItems += 1;
      this.#invalidItems.push({ ...about, ...keptAside(checked.invalid, checked.reasons) });
    }
  }

  #admit(wanted: SpiderRequest, kind: UrlKind): void {
    checkRequest(wanted);
    const link = this.#admission.admit(wanted, kind, { url: "", depth: SEED_DEPTH });
    if (link === undefined) throw new Error("a request's `url` must be an absolute http(s) URL");
    this.#counts.requests += 1;
    this.#links.set(link.id, link);
  }

  #begin(): void {
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    if (this.#storing !== undefined || this.#waiting === 0 || this.#failure !== undefined) return;
    const batch = {
      items: keptAs({ items: this.#items.splice(0, BATCH), files: [] }, this.#input.crawl).items,
      invalidItems: this.#invalidItems.splice(0, BATCH),
      links: [...this.#links.values()],
    };
    this.#links.clear();
    this.#storing = this.#input
      .store(batch)
      .catch((error: unknown) => {
        this.#failure = { error: new StorageError(messageOf(error), { cause: error }) };
      })
      .finally(() => {
        this.#storing = undefined;
        if (this.#waiting > 0) this.#begin();
      });
  }
}
