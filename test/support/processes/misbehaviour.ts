import path from "node:path";
import { expect } from "vitest";
import { isAlive } from "../children-under-test.js";
import { itemsOf, type PageEnd, ProcessSpiderUnderTest } from "../process-spider-under-test.js";

/** A process spider that does what each page says. */
export const COMMAND = [process.execPath, path.resolve(import.meta.dirname, "misbehaving.mjs")];

const TOO_LONG = /^the process was not done with the page within 1500 ms$/;

/** What a page asks the process to do, what becomes of it, and how often the process is started over it. */
export const MISBEHAVIOUR: readonly {
  readonly text: string;
  /** What the page fails by. */
  readonly fails?: RegExp;
  /** What is found on it if it does not fail. */
  readonly items?: readonly Record<string, unknown>[];
  /** What the log says in the end. */
  readonly logs?: RegExp;
  /** Needs a process of its own. */
  readonly ends?: true;
}[] = [
  { text: "fails", fails: /^no price$/ },
  { text: "exits 0", fails: /^the process exited with code 0 before it was done with the page$/, ends: true },
  { text: "exits 3", fails: /^the process exited with code 3 before/, ends: true },
  { text: "exits-loudly", fails: /code 1 .*: Traceback: line 1\nValueError: no price$/s, ends: true },
  { text: "segv", fails: /^the process was ended by SIGSEGV$/, ends: true },
  { text: "hangs", fails: TOO_LONG, ends: true },
  { text: "ignores-term", fails: TOO_LONG, ends: true },
  { text: "grandchild", fails: TOO_LONG, ends: true },
  { text: "closes-stdout", fails: TOO_LONG, ends: true },
  { text: "closes-stdin", fails: TOO_LONG, ends: true },
  { text: "endless", fails: TOO_LONG, ends: true },
  { text: "hog", fails: /^the process took \d+ MiB of memory, more than 200 MiB$/, ends: true },
  { text: "item-flood", fails: /^the process more than 500 outputs from one page$/, ends: true },
  { text: "long-line", items: [], logs: /^y{16384}…$/ },
  { text: "long-message", fails: /^the process wrote a message that is longer than \d+ bytes$/ },
  { text: "half-a-message", fails: /^the process wrote a message that is not JSON$/ },
  { text: "garbage", items: [], logs: /^\[1,2\]$/ },
  { text: "binary", items: [], logs: /\ufffd/ },
  { text: "flood 100000", items: [], logs: /^line 99999$/ },
  { text: "unknown-flood", items: [], logs: /^messages of type "unheard-of-19" are not known/ },
  { text: "unheard", items: [], logs: /^messages of type "news" are not known, and passed over$/ },
  { text: "late", items: [], logs: /^the process wrote "item" for a page that it does not have/ },
  { text: "unknown-page", items: [{ b: 1 }], logs: /^the process wrote "item" for a page that/ },
  { text: "wrong-item", fails: /^the process wrote a message that "item": data: .*expected record/ },
  { text: "wrong-request", fails: /"request": url: .*expected string/ },
  { text: "wrong-page", fails: /"item": page: .*expected number/ },
  { text: "wrong-method", fails: /"request": method: / },
];

/** Runs a page that makes its process misbehave together with others, and expects that these do not notice. */
export async function expectIsolated(text: string): Promise<void> {
  const row = MISBEHAVIOUR.find((known) => known.text === text);
  if (row === undefined) throw new Error(`nothing is known of "${text}"`);
  const { fails, items, logs, ends } = row;
  const at = await ProcessSpiderUnderTest.start(
    {
      command: COMMAND,
      limits: {
        processes: 1,
        pageTimeoutMs: fails === TOO_LONG ? 1_500 : 30_000,
        memoryBytes: 200 * 2 ** 20,
      },
    },
    { maxOutputs: 500, maxLogLinesPerSecond: 1_000_000 },
  );
  try {
    const run = at.run.bind(at);
    const [before, bad, ...after] = await Promise.all([
      run("http://a/before", "well"),
      run("http://a/bad", text),
      run("http://a/after-1", "well"),
      run("http://a/after-2", "well"),
      run("http://a/after-3", "well"),
      run("http://a/after-4", "well"),
    ]);
    const others = [before, ...after].map((end) => itemsOf(end as PageEnd)[0]);
    expect(others.map((item) => String(item?.url).slice("http://a/".length))).toEqual([
      ...["before", "after-1", "after-2", "after-3", "after-4"],
    ]);
    if (fails !== undefined) expect(bad).toEqual({ failed: expect.stringMatching(fails) });
    else expect(bad).toEqual({ outputs: items?.map((item) => ({ item })) });
    if (logs !== undefined) expect(at.log.filter(({ msg }) => logs.test(msg))).toHaveLength(1);
    const pids = new Set(others.map((item) => item?.pid));
    expect(pids.size > 1).toBe(ends === true);
    // Whatever it has started is gone with it.
    const grandchildren = at.log.flatMap(({ msg }) => /^grandchild (\d+)$/.exec(msg)?.[1] ?? []);
    expect(grandchildren.map(Number).filter(isAlive)).toEqual([]);
  } finally {
    await at.dispose();
  }
}
