import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NewDeadLetter, Store } from "../../src/store/index.js";
import { StoresUnderTest } from "../support/store-under-test.js";

describe("DeadLetters", () => {
  const stores = new StoresUnderTest();
  let store: Store;
  beforeAll(async () => {
    store = await stores.open({ deadLetters: { maxRecords: 20 } });
  });
  afterAll(() => stores.dispose());

  let errors = 0;
  /** A letter with a text of its own, by which it can be asked for. */
  function letter(given: Partial<NewDeadLetter> = {}): NewDeadLetter {
    errors += 1;
    return {
      reason: "invalid-message",
      error: `nonsense ${errors}.`,
      firstQueue: "warren.tasks",
      count: 1,
      at: 1_000_000 + errors,
      body: Buffer.from(`message ${errors}`),
      contentType: "text/plain",
      headers: {},
      messageId: undefined,
      replyTo: undefined,
      correlationId: undefined,
      ...given,
    };
  }
  const found = async (wanted: NewDeadLetter) =>
    (await store.deadLetters.list({ error: wanted.error })).items;

  it("keeps everything that came with a message", async () => {
    const whole = letter({
      headers: { plain: 1, nested: { $set: [true, null] }, "a.b": Buffer.from([0, 255]) },
      messageId: "m-1",
      replyTo: "amq.gen-1",
      correlationId: "c-1",
      url: "http://a.test/x",
      host: "a.test",
      crawl: "crawl1",
      body: Buffer.from([0, 1, 254, 255]),
      crashes: [{ node: "worker-1", at: 5 }],
    });

    await store.deadLetters.record([whole]);

    const [row] = await found(whole);
    const { id, bytes, ...kept } = row ?? {};
    expect(kept).toEqual(whole);
    expect(bytes).toBe(4);
    expect(await store.deadLetters.get(id ?? "")).toEqual(row);
  });

  it("keeps a message that comes again once, with an id or without", async () => {
    const named = letter({ messageId: "same" });
    const unnamed = letter();

    await store.deadLetters.record([named, unnamed]);
    await store.deadLetters.record([named, { ...unnamed, redelivered: true, count: 3 }]);
    await store.deadLetters.record([{ ...named, body: Buffer.from("another with that id") }]);

    expect(await found(named)).toHaveLength(2);
    expect(await found(unnamed)).toMatchObject([{ count: 3 }]);
  });

  it("keeps equal messages apart that were sent twice", async () => {
    const one = letter();

    await store.deadLetters.record([one, one]);

    expect(await found(one)).toHaveLength(2);
  });

  it("keeps of what is too large as much as it takes, and says so", async () => {
    const large = letter({
      body: Buffer.alloc(300_000, "x"),
      headers: { large: "x".repeat(70_000) },
    });

    await store.deadLetters.record([large]);

    expect(await found(large)).toMatchObject([{ bytes: 300_000, headers: undefined }]);
    expect((await found(large))[0]?.body).toHaveLength(262_144);
  });

  it("lists newest first, page by page, those that a filter names", async () => {
    const own = { reason: "expired", host: "list.test", crawl: "listed" };
    const letters = [1, 2, 3].map(() => letter(own));
    await store.deadLetters.record([...letters, letter({ ...own, host: "other.test" })]);
    const { reason, host, crawl } = own;

    const first = await store.deadLetters.list({ host, crawl, reason }, { limit: 2 });
    const rest = await store.deadLetters.list(
      { host, crawl, reason },
      { limit: 2, cursor: first.next ?? "" },
    );

    const texts = [...first.items, ...rest.items].map(({ error }) => error);
    expect(texts).toEqual(letters.map(({ error }) => error).reverse());
    expect(rest.next).toBeNull();
    expect((await store.deadLetters.list({ host, reason: "poison" })).items).toEqual([]);
    expect(
      (await store.deadLetters.list({ error: letters[0]?.error.toUpperCase() ?? "" })).items,
    ).toHaveLength(1);
    expect((await store.deadLetters.list({ error: ".*" })).items).toEqual([]);
  });

  it("gives each letter to one of those who want to replay it", async () => {
    const letters = Array.from({ length: 10 }, () => letter({ crawl: "claimed" }));
    await store.deadLetters.record(letters);

    const claims = await Promise.all([1, 2, 3].map(() => store.deadLetters.claim({ crawl: "claimed" }, 10)));

    const ids = claims.flat().map(({ id }) => id);
    expect(ids).toHaveLength(10);
    expect(new Set(ids).size).toBe(10);
    expect(await store.deadLetters.claim({ crawl: "claimed" }, 10)).toEqual([]);
    await store.deadLetters.release(ids.slice(0, 1));
    expect(await store.deadLetters.claim({ crawl: "claimed" }, 10)).toMatchObject([{ id: ids[0] }]);
  });

  it("claims none that was given up after an instant", async () => {
    const [early, late] = [letter({ crawl: "timed" }), letter({ crawl: "timed" })];
    await store.deadLetters.record([early, late]);

    expect(await store.deadLetters.claim({ crawl: "timed" }, 10, early.at)).toMatchObject([
      { error: early.error },
    ]);
  });

  it("keeps no more than it may, and those that came last", async () => {
    const flood = Array.from({ length: 35 }, () => letter({ crawl: "flood", at: 2_000_000 + errors }));

    await store.deadLetters.record(flood);

    const { items } = await store.deadLetters.list({}, { limit: 100 });
    expect(items.map(({ error }) => error)).toEqual(
      flood
        .slice(-20)
        .reverse()
        .map(({ error }) => error),
    );
  });

  it("lets the database remove what is too old", async () => {
    const indexes = await store.collection("deadLetters").indexes();

    expect(indexes).toContainEqual(expect.objectContaining({ key: { expiresAt: 1 }, expireAfterSeconds: 0 }));
    const [document] = await store.collection("deadLetters").find().sort({ at: -1 }).limit(1).toArray();
    expect(document?.expiresAt).toEqual(new Date(document?.at + 30 * 86_400_000));
  });
});
