const REGISTER_BITS = 8;
const REGISTERS = 1 << REGISTER_BITS;
/** Bias of the estimate with that many registers. */
const ALPHA = 0.7213 / (1 + 1.079 / REGISTERS);

/**
 * About how many different texts were added, in 256 bytes whatever their number (HyperLogLog: Flajolet, Fusy, Gandouet
 * and Meunier, 2007). Off by 6.5 % on average, and almost exact below a few hundred. The same text counts once.
 */
export class DistinctCounter {
  readonly #registers = new Uint8Array(REGISTERS);
  #empty = REGISTERS;
  /** Sum of 2^-register over all of them, kept up as they change. */
  #sum = REGISTERS;

  add(text: string): void {
    const hash = hashOf(text);
    const index = hash & (REGISTERS - 1);
    const rank = Math.clz32((hash >>> REGISTER_BITS) | 0) - REGISTER_BITS + 1;
    const known = this.#registers[index] ?? 0;
    if (rank <= known) return;
    if (known === 0) this.#empty -= 1;
    this.#sum += 2 ** -rank - 2 ** -known;
    this.#registers[index] = rank;
  }

  /** Cheaper than to ask for the count, which is beyond this only if this is true. */
  mayExceed(count: number): boolean {
    return (ALPHA * REGISTERS * REGISTERS) / this.#sum > count;
  }

  get count(): number {
    const estimate = (ALPHA * REGISTERS * REGISTERS) / this.#sum;
    // Where few registers are in use, how many are not says more.
    if (estimate > 2.5 * REGISTERS || this.#empty === 0) return estimate;
    return REGISTERS * Math.log(REGISTERS / this.#empty);
  }
}

/** FNV-1a, its bits spread as MurmurHash3 does at its end: each must depend on all of the text. */
function hashOf(text: string): number {
  let state = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    state = Math.imul(state ^ text.charCodeAt(index), 0x01000193);
  }
  state = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
  state = Math.imul(state ^ (state >>> 13), 0xc2b2ae35);
  return (state ^ (state >>> 16)) >>> 0;
}
