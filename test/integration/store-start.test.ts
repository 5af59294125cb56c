import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { MongoClient } from "mongodb";
import { afterAll, describe, expect, it } from "vitest";
import { ConfigError } from "../../src/lib/errors.js";
import { createLogger, silentLogger } from "../../src/lib/logger.js";
import { Store } from "../../src/store/index.js";
import { INDEXES } from "../../src/store/indexes.js";
import { objectionTo } from "../../src/store/replica-set-check.js";
import { mongodbUri, StoresUnderTest } from "../support/store-under-test.js";

describe("Store", () => {
  const stores = new StoresUnderTest();
  afterAll(() => stores.dispose());

  it("starts in several processes at once on an empty database, and again on a full one", async () => {
    const started = await Promise.all(Array.from({ length: 4 }, () => stores.open()));
    await stores.open();

    const [store] = started;
    await expect(store?.ping()).resolves.toBeUndefined();
    expect((await store?.crawls.list())?.items.map(({ id }) => id)).toEqual(["inbox"]);
    const indexes = await store?.collection("urls").indexes();
    expect(indexes?.map(({ name }) => name).sort()).toEqual(["_id_", "left", "next-visits", "open"]);
  });

  it("may be stopped twice, and before it was started", async () => {
    const store = new Store({ uri: mongodbUri(), namespace: stores.namespace }, { logger: silentLogger });
    await store.stop();
    await store.stop();

    await expect(store.start()).rejects.toMatchObject({ code: "unavailable" });
  });

  it("refuses a URI that cannot be read, naming the variable and not the password", () => {
    for (const uri of [
      "http://x/",
      "mongodb://user:secret@host:notaport/",
      "mongodb://",
      "mongodb://a/?nosuch=1",
    ]) {
      const make = () => new Store({ uri, namespace: "x" }, { logger: silentLogger });
      expect(make, uri).toThrow(ConfigError);
      expect(make, uri).toThrow(/^MONGODB_URI: /);
      expect(make, uri).not.toThrow(/secret/);
    }
  });

  it("refuses wrong credentials at once, without the password", async () => {
    const uri = mongodbUri().replace("mongodb://", "mongodb://nobody:secret@");
    const store = new Store({ uri, namespace: stores.namespace }, { logger: silentLogger });

    const failure: unknown = await store.start().catch((error: unknown) => error);
    await store.stop();

    expect(failure).toBeInstanceOf(ConfigError);
    expect(String(failure)).toMatch(/MONGODB_URI: .*nobody:\*\*\*@.* was refused: /);
    expect(String(failure)).not.toContain("secret");
  });

  it("refuses a server of another replica set, or of none", async () => {
    const [server] = /^mongodb:\/\/[^/?]+/.exec(mongodbUri()) ?? [];
    const uri = `${server}/?replicaSet=another`;
    const store = new Store(
      { uri, namespace: stores.namespace, serverSelectionMs: 100 },
      { logger: silentLogger },
    );

    const failure: unknown = await store.start().catch((error: unknown) => error);
    await store.stop();

    expect(failure).toBeInstanceOf(ConfigError);
    expect(String(failure)).toMatch(/MONGODB_URI: .* is the replica set ".+", not "another"/);
    expect(objectionTo({ ok: 1 }, undefined)).toMatch(/is not a replica set/);
    expect(objectionTo({ ok: 1, isreplicaset: true }, "rs0"), "about to be initiated").toBeUndefined();
    expect(objectionTo({ ok: 1, msg: "isdbgrid" }, undefined), "a router").toBeUndefined();
  });

  it("keeps trying while the server is away, says so, and can be stopped meanwhile", async () => {
    const port = await freePort();
    const lines: string[] = [];
    let warn: () => void = () => {};
    const warned = new Promise<void>((resolve) => {
      warn = resolve;
    });
    const logger = createLogger({
      level: "warn",
      destination: {
        write(line: string) {
          lines.push(line);
          warn();
        },
      },
    });
    const uri = `mongodb://u:secret@127.0.0.1:${port}/?replicaSet=rs0`;
    const store = new Store({ uri, namespace: "x", serverSelectionMs: 100 }, { logger });

    const starting = store.start().catch((error: unknown) => error);
    await warned;
    await store.stop();

    expect(await starting).toMatchObject({ code: "unavailable" });
    expect(lines[0]).toContain("MongoDB is away");
    expect(lines.join()).not.toContain("secret");
  });

  it("has every index on record, with the query it is there for", async () => {
    const page = await readFile(new URL("../../docs/reference/collections.md", import.meta.url), "utf8");
    const described = [...page.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, name]) => name);

    for (const { name } of Object.values(INDEXES).flat()) {
      expect(page, `the index ${name}`).toContain(`\`${name}\``);
    }
    const names = new Set(Object.values(INDEXES).flatMap((indexes) => indexes.map(({ name }) => name)));
    expect(described.filter((name) => name?.startsWith("by-") && !names.has(name))).toEqual([]);
  });

  it("uses no more of the database than its own", async () => {
    const store = await stores.open();
    const client = new MongoClient(mongodbUri());
    const names = (await client.db(stores.namespace).listCollections({}, { nameOnly: true }).toArray()).map(
      ({ name }) => name,
    );
    await client.close();

    // What has indexes of its own; the others come with the first that is kept in them.
    expect(names.sort()).toEqual([...new Set([...Object.keys(INDEXES), "crawls", "leases"])].sort());
    expect(store.shardCount).toBe(64);
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
