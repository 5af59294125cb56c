import { Session } from "node:inspector/promises";
import type { Clock } from "../lib/clock.js";
import { CommandError } from "./errors.js";

export type ProfileKind = "cpu" | "heap";

/** Characters of a profile that are handed out at a time. */
const PART_CHARACTERS = 256 * 1_024;

/** Samples this process, one profile at a time. */
export class Profiler {
  readonly #clock: Clock;
  #isBusy = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Samples for some seconds and yields the profile in parts: texts that, one after the other, are the JSON of a
   * `.cpuprofile` or a `.heapprofile`, as the developer tools of a browser read them.
   * @throws CommandError `conflict` when one is being made already
   */
  async *profile(kind: ProfileKind, seconds: number, signal: AbortSignal): AsyncGenerator<string, void> {
    if (this.#isBusy) throw new CommandError("conflict", "a profile is being made here already");
    this.#isBusy = true;
    let json: string;
    try {
      json = JSON.stringify(await this.#sample(kind, seconds, signal));
    } finally {
      this.#isBusy = false;
    }
    for (let from = 0; from < json.length; from += PART_CHARACTERS) {
      yield json.slice(from, from + PART_CHARACTERS);
    }
  }

  async #sample(kind: ProfileKind, seconds: number, signal: AbortSignal): Promise<unknown> {
    const session = new Session();
    session.connect();
    try {
      if (kind === "cpu") {
        await session.post("Profiler.enable");
        await session.post("Profiler.start");
        await this.#wait(seconds, signal);
        return (await session.post("Profiler.stop")).profile;
      }
      await session.post("HeapProfiler.enable");
      await session.post("HeapProfiler.startSampling");
      await this.#wait(seconds, signal);
      return (await session.post("HeapProfiler.stopSampling")).profile;
    } finally {
      session.disconnect();
    }
  }

  /** @throws what the signal is aborted with */
  async #wait(seconds: number, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const finish = () => {
        stopTimer();
        signal.removeEventListener("abort", finish);
        resolve();
      };
      const stopTimer = this.#clock.after(seconds * 1_000, finish);
      signal.addEventListener("abort", finish, { once: true });
    });
    signal.throwIfAborted();
  }
}
