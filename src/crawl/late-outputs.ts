import type { SpiderOutput } from "./spider.js";

/** What a spider yields that runs elsewhere: nothing until it is done, and then all of it, which costs one wait. */
export class LateOutputs implements AsyncIterable<SpiderOutput> {
  readonly all: Promise<readonly SpiderOutput[]>;
  /** Tells the spider that nobody waits any more. */
  readonly giveUp: () => void;

  constructor(all: Promise<readonly SpiderOutput[]>, giveUp: () => void) {
    this.all = all;
    this.giveUp = giveUp;
    // Whoever was to wait for them may have gone.
    all.catch(() => {});
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SpiderOutput, void, undefined> {
    yield* await this.all;
  }
}
