import type { LookupAddress } from "node:dns";
import type { LookupFunction } from "node:net";
import { describe, expect, it } from "vitest";
import { DnsTimeoutError } from "../../../src/crawl/errors.js";
import { DnsCache, type DnsCacheOptions } from "../../../src/crawl/fetch/dns-cache.js";
import { ManualClock } from "../../../src/lib/clock.js";

type Script = LookupAddress[] | NodeJS.ErrnoException;

/** A resolver that answers when it is told to, and in the order in which it was asked. */
function setup(options: Partial<DnsCacheOptions> = {}) {
  const clock = new ManualClock();
  const asked: { name: string; answer: (script: Script) => void }[] = [];
  const resolve: LookupFunction = (name, _options, callback) => {
    asked.push({
      name,
      answer: (script) => (Array.isArray(script) ? callback(null, script) : callback(script, "", 0)),
    });
  };
  const cache = new DnsCache(options, resolve, clock);
  const ask = (name = "a.example", lookupOptions: { all?: boolean; family?: number } = { all: true }) =>
    new Promise<unknown>((settle) => {
      cache.lookup(name, lookupOptions, (error, addresses) => settle(error ?? addresses));
    });
  return { clock, asked, cache, ask };
}

const FIRST = [{ address: "192.0.2.1", family: 4 }];
const SECOND = [{ address: "192.0.2.2", family: 4 }];
const fault = (code: string) => Object.assign(new Error(code), { code });

describe("a DNS cache", () => {
  it("asks once for all who wait, and then not until the answer is too old", async () => {
    const { clock, asked, ask } = setup({ ttlMs: 60_000 });
    const waiting = [ask(), ask(), ask()];
    expect(asked).toHaveLength(1);
    asked[0]?.answer(FIRST);
    expect(await Promise.all(waiting)).toEqual([FIRST, FIRST, FIRST]);
    clock.advance(59_000);
    expect(await ask()).toEqual(FIRST);
    expect(asked).toHaveLength(1);

    clock.advance(2_000);
    const again = ask();
    asked[1]?.answer(SECOND);
    expect(await again).toEqual(SECOND);
  });

  it("remembers nothing when it is off", async () => {
    const { asked, ask } = setup({ ttlMs: 0 });
    for (const [index, answer] of [FIRST, SECOND].entries()) {
      const asking = ask();
      asked[index]?.answer(answer);
      expect(await asking).toEqual(answer);
    }
  });

  it("remembers for a moment that there is no such name", async () => {
    const { clock, asked, ask } = setup();
    const asking = ask();
    asked[0]?.answer(fault("ENOTFOUND"));
    expect(await asking).toMatchObject({ code: "ENOTFOUND" });
    expect(await ask()).toMatchObject({ code: "ENOTFOUND" });
    expect(asked).toHaveLength(1);
    clock.advance(1_000);
    const later = ask();
    asked[1]?.answer(FIRST);
    expect(await later).toEqual(FIRST);
  });

  it.each(["EAI_AGAIN", "ESERVFAIL", "ETIMEOUT"])(
    "does not remember %s, which says nothing",
    async (code) => {
      const { asked, ask } = setup();
      const asking = ask();
      asked[0]?.answer(fault(code));
      expect(await asking).toMatchObject({ code });
      void ask();
      expect(asked).toHaveLength(2);
    },
  );

  it("lets nobody wait for longer than the time-out, and uses the late answer all the same", async () => {
    const { clock, asked, ask } = setup({ timeoutMs: 5_000 });
    const first = ask();
    clock.advance(3_000);
    const second = ask();
    clock.advance(2_000);
    expect(await first).toBeInstanceOf(DnsTimeoutError);
    expect(String(await first)).toContain("a.example was not resolved within 5000 ms");
    asked[0]?.answer(FIRST);
    expect(await second).toEqual(FIRST);
    expect(await ask()).toEqual(FIRST);
    expect(asked).toHaveLength(1);
    expect(clock.pending).toBe(0);
  });

  it("remembers so many names, and forgets the one that was unused for longest", async () => {
    const { asked, cache, ask } = setup({ maxNames: 2 });
    for (const [index, name] of ["a", "b", "c"].entries()) {
      const asking = ask(name);
      asked[index]?.answer(FIRST);
      await asking;
    }
    expect(cache.size).toBe(2);
    await ask("c");
    await ask("b");
    expect(asked).toHaveLength(3);
    void ask("a");
    expect(asked.at(-1)?.name).toBe("a");
    expect(asked).toHaveLength(4);
  });

  it("uses so many addresses of an answer", async () => {
    const { asked, ask } = setup();
    const asking = ask();
    asked[0]?.answer(Array.from({ length: 4_000 }, (_, n) => ({ address: `192.0.2.${n % 256}`, family: 4 })));
    expect(await asking).toHaveLength(16);
  });

  it("gives one address, or those of one family, to who wants that", async () => {
    const { asked, ask } = setup();
    const asking = ask("a.example", {});
    asked[0]?.answer([...FIRST, { address: "2001:db8::1", family: 6 }]);
    expect(await asking).toBe("192.0.2.1");
    expect(await ask("a.example", { family: 6 })).toBe("2001:db8::1");
    expect(await ask("a.example", { family: 4, all: true })).toEqual(FIRST);
  });

  it("takes a resolver that throws for one that fails", async () => {
    const cache = new DnsCache({}, () => {
      throw new Error("no resolver");
    });
    const answer = await new Promise((settle) => {
      cache.lookup("a.example", { all: true }, (error) => settle(error));
    });
    expect(answer).toEqual(new Error("no resolver"));
  });
});
