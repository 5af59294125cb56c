import { setImmediate as nextTurn } from "node:timers/promises";

/** How long a slice is, in milliseconds: short against anything that waits for the event loop. */
const SLICE_MS = 10;

/** Characters of a page that are worked on between two looks at the clock: about 1 ms. */
export const SLICE_CHARACTERS = 65_536;

/** Cuts long work into slices, between which the event loop gets to everything else. */
export class TimeSlices {
  #beganAtMs = performance.now();

  /** Ends the slice if it has lasted long enough. */
  async rest(): Promise<void> {
    if (performance.now() - this.#beganAtMs < SLICE_MS) return;
    await nextTurn();
    this.#beganAtMs = performance.now();
  }
}
