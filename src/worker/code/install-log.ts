import type { Line } from "../processes/line-reader.js";

const MAX_HEAD_CHARACTERS = 65_536;
const MAX_TAIL_CHARACTERS = 196_608;
const MAX_LINE_CHARACTERS = 4_000;

/** What the commands of an installation write: its beginning and its end, whatever comes between. */
export class InstallLog {
  readonly #head: string[] = [];
  #headCharacters = 0;
  readonly #tail: string[] = [];
  #tailCharacters = 0;
  #dropped = 0;

  add(line: Line | string): void {
    const whole = typeof line === "string" ? line : line.text;
    const text = whole.length > MAX_LINE_CHARACTERS ? `${whole.slice(0, MAX_LINE_CHARACTERS)}…` : whole;
    if (this.#headCharacters + text.length <= MAX_HEAD_CHARACTERS) {
      this.#head.push(text);
      this.#headCharacters += text.length + 1;
      return;
    }
    // Nothing belongs to the beginning any more once something did not fit.
    this.#headCharacters = Number.POSITIVE_INFINITY;
    this.#tail.push(text);
    this.#tailCharacters += text.length + 1;
    while (this.#tailCharacters > MAX_TAIL_CHARACTERS) {
      this.#tailCharacters -= (this.#tail.shift()?.length ?? 0) + 1;
      this.#dropped += 1;
    }
  }

  get text(): string {
    const left = this.#dropped === 0 ? [] : [`… ${this.#dropped} lines …`];
    return [...this.#head, ...left, ...this.#tail].join("\n");
  }
}

/** The end of a log, in whole lines if they are not too long. */
export function endOf(log: string, characters: number): string {
  if (log.length <= characters) return log;
  const end = log.slice(-characters);
  const line = end.indexOf("\n");
  return line < 0 || line === end.length - 1 ? end : end.slice(line + 1);
}
