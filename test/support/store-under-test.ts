import { randomUUID } from "node:crypto";
import { silentLogger } from "../../src/lib/logger.js";
import { Store, type StoreDeps, type StoreOptions } from "../../src/store/index.js";

/** The MongoDB that tests run on. */
export function mongodbUri(): string {
  const uri = process.env.MONGODB_URI;
  if (uri === undefined) throw new Error("MONGODB_URI is not set: run the tests with `npm test`");
  return uri;
}

/** Stores on one database of their own, which goes with them. */
export class StoresUnderTest {
  readonly namespace = `test-${randomUUID().slice(0, 13)}`;
  readonly #stores: Store[] = [];

  /** Another process's view of the database, as it were. */
  async open(options: Partial<StoreOptions> = {}, deps: Partial<StoreDeps> = {}): Promise<Store> {
    const store = new Store(
      { uri: mongodbUri(), namespace: this.namespace, ...options },
      { logger: silentLogger, ...deps },
    );
    this.#stores.push(store);
    await store.start();
    return store;
  }

  async dispose(): Promise<void> {
    await this.#stores[0]?.dropDatabase();
    for (const store of this.#stores) await store.stop();
  }
}
