import { randomInt } from "node:crypto";

/** Numbers that look random and are the same each time for the same seed, so that a failure can be repeated. */
export class SeededRandom {
  readonly seed: number;
  #state: number;

  /** @param seed @default WARREN_TEST_SEED, else a new one each time */
  constructor(seed = Number(process.env.WARREN_TEST_SEED ?? randomInt(2 ** 31))) {
    this.seed = seed;
    this.#state = seed;
  }

  /** From 0 to less than 1, by the steps of a SplitMix generator of 32 bits. */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `least` to `most`. */
  between(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  pick<Value>(values: readonly [Value, ...Value[]]): Value {
    return values[this.between(0, values.length - 1)] ?? values[0];
  }
}
