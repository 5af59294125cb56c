import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect } from "amqplib";
import { MongoClient } from "mongodb";
import { type NodeSelection, placeOf } from "../../src/crawl/node-selection.js";

/** One master or worker, as a process of its own. */
export type Member = {
  readonly name: string;
  readonly process: ChildProcess;
  /** What it has logged. */
  output(): string;
  /** Sends a signal and waits until it is gone; resolves with its exit code (null when the signal ended it). */
  end(signal?: NodeJS.Signals): Promise<number | null>;
};

export type Master = Member & { readonly url: string };

const ROOT = path.resolve(import.meta.dirname, "../..");

function required(name: "AMQP_URL" | "MONGODB_URI"): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: run these tests with \`npm test\``);
  return value;
}

/** A cluster of real processes in a namespace of its own, on the servers that the test run was given. */
export class Cluster {
  readonly namespace: string;
  readonly amqpUrl: string;
  readonly mongodbUri: string;
  readonly members: Member[] = [];
  readonly #environment: Record<string, string>;
  #dataDir: string | undefined;

  /**
   * @param given servers other than those of the test run, for tests that break them; a namespace in use; what all
   *   members find in their environment
   */
  constructor(
    given: {
      readonly amqpUrl?: string;
      readonly mongodbUri?: string;
      readonly namespace?: string;
      readonly environment?: Record<string, string>;
    } = {},
  ) {
    this.#environment = given.environment ?? {};
    this.namespace = given.namespace ?? `t${randomBytes(5).toString("hex")}`;
    this.amqpUrl = given.amqpUrl ?? required("AMQP_URL");
    this.mongodbUri = given.mongodbUri ?? required("MONGODB_URI");
  }

  async master(environment: Record<string, string> = {}): Promise<Master> {
    const member = await this.#spawn("master", ["dist/master.js", "--port", "0"], environment);
    const url = await waitForOutput(member, /"the API is listening"|the API is listening/, (line) => {
      return /"url":"(http:[^"]+)"/.exec(line)?.[1];
    });
    const master = { ...member, url };
    await until(`${member.name} is ready`, async () => (await fetch(`${url}/readyz`)).status === 200, member);
    return master;
  }

  async worker(
    id: string,
    flags: readonly string[] = [],
    environment: Record<string, string> = {},
  ): Promise<Member> {
    const member = await this.#spawn(id, ["dist/worker.js", "--node-id", id, ...flags], environment);
    await waitForOutput(member, /"msg":"ready"/, () => "ready");
    return member;
  }

  /** Where a worker keeps what is its own. */
  nodeFolderOf(name: string): string {
    return path.join(this.#dataDir ?? "", name, this.namespace, name);
  }

  /** Ends what still runs and removes queues, exchanges and the database. */
  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.end("SIGKILL")));
    const client = new MongoClient(this.mongodbUri);
    const database = client.db(this.namespace);
    const spiders = await database.collection<{ _id: string }>("spiders").find().toArray();
    const crawls = await database.collection<{ nodes?: NodeSelection }>("crawls").find().toArray();
    const places = crawls.flatMap(({ nodes }) => placeOf(nodes) ?? []);
    await this.#removeTopology([
      ...spiders.map(({ _id }) => `tasks.${_id}`),
      ...places.map((place) => `placed.${place}`),
    ]);
    await database.dropDatabase();
    await client.close();
    if (this.#dataDir !== undefined) await rm(this.#dataDir, { recursive: true, force: true });
  }

  async #spawn(name: string, args: readonly string[], environment: Record<string, string>): Promise<Member> {
    this.#dataDir ??= await mkdtemp(path.join(tmpdir(), "warren-test-"));
    // The test's own: the programs refuse variables that they do not know.
    const { WARREN_TEST_SEED: _seed, ...inherited } = process.env;
    const child = spawn(process.execPath, args, {
      cwd: ROOT,
      env: {
        ...inherited,
        AMQP_URL: this.amqpUrl,
        MONGODB_URI: this.mongodbUri,
        WARREN_NAMESPACE: this.namespace,
        WARREN_DATA_DIR: path.join(this.#dataDir, name),
        WARREN_ALLOWED_NETWORKS: "127.0.0.0/8",
        ...this.#environment,
        ...environment,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const lines: string[] = [];
    const take = (chunk: Buffer) => lines.push(chunk.toString("utf8"));
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    const exited = once(child, "exit");
    const member: Member = {
      name,
      process: child,
      output: () => lines.join(""),
      async end(signal = "SIGTERM") {
        if (child.exitCode === null && child.signalCode === null) {
          child.kill(signal);
          await exited;
        }
        return child.exitCode;
      },
    };
    this.members.push(member);
    return member;
  }

  async #removeTopology(taskQueues: readonly string[]): Promise<void> {
    const connection = await connect(this.amqpUrl);
    const nodes = ["worker-1", "worker-2", ...this.members.map(({ name }) => name)];
    const names = {
      queues: ["tasks", "master", "dead", "tasks.dead", "rejected", ...taskQueues],
      exchanges: [
        "broadcast",
        "cancels",
        "events",
        "items",
        "dead",
        "rejected",
        ...nodes.map((name) => `node.${name}`),
      ],
    };
    const channel = await connection.createChannel();
    for (const name of names.queues) await channel.deleteQueue(`${this.namespace}.${name}`);
    for (const name of names.exchanges) await channel.deleteExchange(`${this.namespace}.${name}`);
    await connection.close();
  }
}

/** Resolves once `holds` does, looking again and again; fails with what is known when it takes too long. */
export async function until(
  what: string,
  holds: () => Promise<boolean>,
  member?: Member,
  timeoutMs = 60_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const held = await holds().catch(() => false);
    if (held) return;
    if (performance.now() > deadline) {
      throw new Error(
        `waited ${timeoutMs} ms in vain until ${what}\n${member?.output().slice(-4_000) ?? ""}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function waitForOutput(
  member: Member,
  pattern: RegExp,
  find: (line: string) => string | undefined,
): Promise<string> {
  let found: string | undefined;
  await until(
    `${member.name} says ${pattern.source}`,
    async () => {
      if (member.process.exitCode !== null) throw new Error("it has ended");
      const line = member
        .output()
        .split("\n")
        .find((text) => pattern.test(text));
      found = line === undefined ? undefined : find(line);
      return found !== undefined;
    },
    member,
  );
  return found ?? "";
}

/** A small client of the HTTP API. */
export function api(master: { readonly url: string }) {
  const call = async (
    method: string,
    route: string,
    body?: unknown,
  ): Promise<{ status: number; body: unknown }> => {
    const response = await fetch(`${master.url}${route}`, {
      method,
      ...(body !== undefined && {
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }),
    });
    const text = await response.text();
    const isJson =
      response.headers.get("content-type")?.includes("json") === true && !route.includes("/items");
    return { status: response.status, body: isJson ? JSON.parse(text) : text };
  };
  return {
    call,
    async createCrawl(crawl: Record<string, unknown>): Promise<CrawlAnswer> {
      const { status, body } = await call("POST", "/api/v1/crawls", crawl);
      if (status !== 201) throw new Error(`POST /crawls answered ${status}: ${JSON.stringify(body)}`);
      return body as CrawlAnswer;
    },
    async crawl(id: string): Promise<CrawlAnswer> {
      return (await call("GET", `/api/v1/crawls/${id}`)).body as CrawlAnswer;
    },
    /** The crawl once it has this status. */
    async crawlOnce(id: string, status: string, timeoutMs = 120_000): Promise<CrawlAnswer> {
      let last: CrawlAnswer | undefined;
      try {
        await until(
          `crawl ${id} is ${status}`,
          async () => {
            last = await this.crawl(id);
            return last.status === status;
          },
          undefined,
          timeoutMs,
        );
      } catch (error) {
        throw new Error(`${String(error)}; it is ${JSON.stringify(last)}`);
      }
      return last as CrawlAnswer;
    },
    async items(id: string): Promise<Record<string, unknown>[]> {
      const { body } = await call("GET", `/api/v1/crawls/${id}/items?format=ndjson`);
      return String(body)
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    },
    async list(route: string): Promise<Record<string, unknown>[]> {
      const rows: Record<string, unknown>[] = [];
      let cursor: string | null = null;
      do {
        const joint = route.includes("?") ? "&" : "?";
        const { body } = await call(
          "GET",
          `${route}${joint}limit=500${cursor === null ? "" : `&cursor=${cursor}`}`,
        );
        const page = body as { items: Record<string, unknown>[]; next: string | null };
        rows.push(...page.items);
        cursor = page.next;
      } while (cursor !== null);
      return rows;
    },
  };
}

export type CrawlAnswer = {
  readonly nodes: Record<string, unknown>;
  readonly id: string;
  readonly status: string;
  readonly finishReason: string | null;
  readonly counts: Readonly<
    Record<"queued" | "active" | "done" | "failed" | "skipped" | "items" | "files" | "bytes", number>
  >;
};
