import { connect, createServer, type Server, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import type { NewUrl } from "../../src/crawl/frontier.js";
import type { Store } from "../../src/store/index.js";
import { mongodbUri, StoresUnderTest } from "../support/store-under-test.js";

/** A way to the database that can lose what comes back over it. */
class LossyProxy {
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  #doomed = "";
  #losses = 0;
  #isOpen = true;
  lost = 0;

  constructor(target: { host: string; port: number }) {
    this.#target = target;
    this.#server = createServer((client) => this.#join(client));
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the proxy has no port");
    return address.port;
  }

  /** The next replies to this command are lost with their connection, after the server has carried it out. */
  loseReplies(command: string, losses: number): void {
    this.#doomed = `\u0002${command}\u0000`;
    this.#losses = losses;
    this.lost = 0;
  }

  cut(): void {
    this.#isOpen = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isOpen = true;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: Socket): void {
    if (!this.#isOpen) {
      client.destroy();
      return;
    }
    const server = connect(this.#target);
    let isDoomed = false;
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        client.destroy();
        server.destroy();
      });
      socket.on("error", () => {});
    }
    client.on("data", (data) => {
      if (this.#losses > 0 && data.includes(this.#doomed)) {
        this.#losses -= 1;
        isDoomed = true;
      }
      server.write(data);
    });
    server.on("data", (data) => {
      if (!isDoomed) client.write(data);
      else {
        this.lost += 1;
        client.destroy();
      }
    });
  }
}

describe("a store whose database goes away", () => {
  const stores = new StoresUnderTest();
  let proxy: LossyProxy;
  let store: Store;
  let sound: Store;

  beforeAll(async () => {
    const [, credentials = "", host = "", port = "27017"] =
      /^mongodb:\/\/([^@/]*@)?([^:,/?]+)(?::(\d+))?/.exec(mongodbUri()) ?? [];
    proxy = new LossyProxy({ host, port: Number(port) });
    const uri = `mongodb://${credentials}127.0.0.1:${await proxy.listen()}/?directConnection=true`;
    sound = await stores.open();
    store = await stores.open({ uri, serverSelectionMs: 500, retryForMs: 3_000 });
  });
  afterAll(async () => {
    await stores.dispose();
    await proxy.close();
  });

  let crawls = 0;
  function bundle() {
    crawls += 1;
    const crawl = `crawl${crawls}`;
    const urls = Array.from(
      { length: 40 },
      (_, index): NewUrl => ({
        id: `${crawl}:${index}`,
        crawl,
        url: `http://a.test/${index}`,
        host: "a.test",
        kind: "page",
        depth: 1,
        priority: 5,
      }),
    );
    const ids = urls.map(({ id }) => id);
    const dispatch = { token: `1.${crawl}`, generation: 1, dispatchedAt: 1, notAfter: 1 };
    const endings = urls.map(({ id }) => ({
      id,
      crawl,
      token: dispatch.token,
      attempts: 1,
      state: "done" as const,
      items: 0,
      files: 0,
    }));
    return { crawl, urls, ids, dispatch, endings };
  }

  it("says of each URL rightly whether it was added, although the answer was lost", async () => {
    const { urls } = bundle();
    await sound.frontier.add(urls.slice(0, 10));
    // The driver asks once more by itself; the second loss is ours to deal with.
    proxy.loseReplies("insert", 2);

    const { queued, known } = await store.frontier.add([...urls, ...urls.slice(15, 20)]);

    expect(proxy.lost).toBe(2);
    expect(queued).toEqual(urls.slice(10));
    expect(known).toBe(15);
  });

  it("says of each URL rightly whether it was dispatched, although the answer was lost", async () => {
    const { urls, ids, dispatch } = bundle();
    await store.frontier.add(urls);
    await sound.frontier.dispatch(ids.slice(0, 5), { ...dispatch, token: "other" });
    proxy.loseReplies("update", 1);

    const marked = await store.frontier.dispatch(ids, dispatch);

    expect(proxy.lost).toBe(1);
    expect(marked).toEqual(new Set(ids.slice(5)));
  });

  it("says of each ending rightly whether it was applied, although the answer was lost", async () => {
    const { urls, ids, dispatch, endings } = bundle();
    await store.frontier.add(urls);
    await store.frontier.dispatch(ids, dispatch);
    await sound.frontier.commit(endings.slice(0, 5));
    proxy.loseReplies("update", 1);

    const applied = await store.frontier.commit([
      ...endings.slice(0, 39),
      { ...(endings[39] ?? endings[0]), token: "stale" } as (typeof endings)[number],
    ]);

    expect(proxy.lost).toBe(1);
    expect(applied).toEqual(new Set(ids.slice(5, 39)));
  });

  it("says rightly which URLs wait again, although the answer was lost", async () => {
    const { urls } = bundle();
    await store.frontier.add(urls.map((url) => ({ ...url, depth: 3, skip: "depth" as const })));
    await sound.frontier.add(urls.slice(0, 5));
    proxy.loseReplies("update", 1);

    const { queued, known } = await store.frontier.add(urls);

    expect(proxy.lost).toBe(1);
    expect(new Set(queued)).toEqual(new Set(urls.slice(5)));
    expect(known).toBe(5);
  });

  it("creates and finishes a crawl once, although the answers were lost", async () => {
    const spec = { spider: "links", seeds: [], scope: "host", limits: {}, priority: 5, params: {} } as const;
    proxy.loseReplies("insert", 2);
    const { crawl, isNew } = await store.crawls.create({ ...spec, politeness: DEFAULT_POLITENESS });
    expect(proxy.lost).toBe(2);
    expect(isNew).toBe(true);
    await store.crawls.added(crawl.id);

    proxy.loseReplies("findAndModify", 2);
    const finished = await store.crawls.finishIfOver(crawl.id);

    expect(proxy.lost).toBe(2);
    expect(finished).toMatchObject({ id: crawl.id, status: "finished" });
  });

  it("goes on where it was when the database is back", async () => {
    const { urls, ids, dispatch, endings, crawl } = bundle();
    await store.frontier.add(urls);
    proxy.cut();
    const dispatching = store.frontier.dispatch(ids, dispatch);
    await expect(store.ping()).rejects.toThrow();
    proxy.mend();

    expect((await dispatching).size).toBe(40);
    expect((await store.frontier.commit(endings)).size).toBe(40);
    expect(await sound.crawls.recount(crawl)).toMatchObject({ done: 40 });
  });

  it("gives up in the end, saying what it could not do", async () => {
    const { urls } = bundle();
    proxy.cut();
    const failure: unknown = await store.frontier.add(urls).catch((error: unknown) => error);
    proxy.mend();

    expect(failure).toMatchObject({ code: "unavailable" });
    expect(String(failure)).toMatch(/could not add URLs: MongoDB was not available for \d+ ms/);
  });
});
