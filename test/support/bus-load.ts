import { setTimeout as sleep } from "node:timers/promises";
import { Bus, CallError } from "../../src/bus/index.js";
import { Names } from "../../src/bus/topology.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { Metrics } from "../../src/lib/metrics.js";
import { found, until } from "./bus-under-test.js";
import { TcpProxy } from "./tcp-proxy.js";

const MAX_TASKS = 2_000_000;
const NODES = ["n1", "n2"] as const;
const PUBLISHERS = 4;
const CALLERS = 8;
const CALL_TIMEOUT_MS = 3_000;
const PUBLISH_TIMEOUT_MS = 4_000;

/** Someone on the bus with a way to the broker that can be disturbed. */
export type Member = {
  readonly name: string;
  readonly proxy: TcpProxy;
  readonly bus: Bus;
  lastTookAt: number;
};

/**
 * Buses that are kept busy, and a record of what became of all that they did: tasks that are published, confirmed and
 * consumed, calls to nodes, to masters and to all nodes. The record takes the same room however long it goes on.
 */
export class BusLoad {
  readonly names: Names;
  readonly sender: Member;
  readonly workers: readonly Member[];
  readonly master: Member;
  readonly metrics: Metrics;
  /** By task: whether it was confirmed, and how often it was consumed. */
  readonly #confirmed = new Uint8Array(MAX_TASKS);
  readonly #consumed = new Uint8Array(MAX_TASKS);
  readonly #published = new Map<string, number>();
  readonly #calls = new Map<string, number>();
  readonly #unexpected: string[] = [];
  readonly #loops: Promise<void>[] = [];
  #tasks = 0;
  #pending = 0;
  #worstOverrunMs = 0;
  #isEnding = false;

  private constructor(names: Names, metrics: Metrics, members: readonly [Member, Member, Member, Member]) {
    this.names = names;
    this.metrics = metrics;
    const [sender, master, ...workers] = members;
    this.sender = sender;
    this.master = master;
    this.workers = workers;
  }

  /** Buses on a broker, each by a proxy of its own, and the load that they carry until `end`. */
  static async start(url: string, namespace: string): Promise<BusLoad> {
    const metrics = new Metrics();
    const member = async (name: string): Promise<Member> => {
      const proxy = await new TcpProxy(url).open();
      const bus = new Bus(
        {
          urls: [proxy.url],
          namespace,
          identity: { role: "tool", id: name, version: "0" },
          // Silence is noticed after twice that.
          heartbeatSeconds: 2,
          connectTimeoutMs: 3_000,
          refreshMs: 2_000,
        },
        { logger: silentLogger, clock: systemClock, metrics },
      );
      await bus.start();
      return { name, proxy, bus, lastTookAt: 0 };
    };
    const load = new BusLoad(new Names(namespace), metrics, [
      await member("sender"),
      await member("master"),
      await member("n1"),
      await member("n2"),
    ]);
    await load.#begin();
    return load;
  }

  get members(): readonly [Member, ...Member[]] {
    return [this.sender, this.master, ...this.workers];
  }

  /** Tasks that were given a number so far. */
  get tasks(): number {
    return this.#tasks;
  }

  async #begin(): Promise<void> {
    const echo = { echo: async (args: Readonly<Record<string, unknown>>) => args };
    await this.master.bus.calls.serveMaster("m1", echo);
    for (const worker of this.workers) {
      await worker.bus.calls.serveNode(worker.name, echo);
      await worker.bus.tasks.consume({ prefetch: 50 }, (delivery) => {
        const number = Number(delivery.body.toString());
        this.#consumed[number] = Math.min((this.#consumed[number] ?? 0) + 1, 255);
        worker.lastTookAt = performance.now();
        // Some are at hand at any moment.
        setTimeout(() => worker.bus.tasks.settle([delivery], { kind: "ack" }), 3);
      });
    }
    for (let count = 0; count < PUBLISHERS; count += 1) this.#loops.push(this.#keepPublishing());
    for (let count = 0; count < CALLERS; count += 1) this.#loops.push(this.#keepCalling(count));
  }

  async #keepPublishing(): Promise<void> {
    while (!this.#isEnding && this.#tasks < MAX_TASKS) {
      const numbers = [this.#tasks, this.#tasks + 1];
      this.#tasks += numbers.length;
      const bodies = numbers.map((number) => ({ body: String(number), contentType: "text/plain" }));
      const outcomes = await this.#counted(
        this.sender.bus.tasks.publish(bodies, AbortSignal.timeout(PUBLISH_TIMEOUT_MS)),
      );
      for (const [index, outcome] of outcomes.entries()) {
        if (outcome.ok) this.#confirmed[numbers[index] ?? 0] = 1;
        count(this.#published, outcome.ok ? "confirmed" : outcome.error.code);
      }
      await sleep(5);
    }
  }

  async #keepCalling(caller: number): Promise<void> {
    const { calls } = this.sender.bus;
    const node = NODES[caller % NODES.length] ?? "n1";
    const options = { timeoutMs: CALL_TIMEOUT_MS };
    for (let round = 0; !this.#isEnding; round += 1) {
      const startedAt = performance.now();
      const question = { caller, round };
      try {
        const kind = round % 4;
        if (kind === 3) {
          const { answers, silent } = await this.#counted(
            calls.broadcastCall("echo", question, { ...options, expected: NODES }),
          );
          for (const answer of answers) if (answer.ok) this.#expectEcho(question, answer.result);
          count(this.#calls, silent.length === 0 ? "all answered" : "some silent");
        } else {
          const asked =
            kind === 2
              ? calls.callMaster("echo", question, options)
              : calls.callNode(node, "echo", question, options);
          this.#expectEcho(question, await this.#counted(asked));
          count(this.#calls, "answered");
        }
      } catch (error) {
        if (error instanceof CallError) count(this.#calls, error.code);
        else this.#unexpected.push(String(error));
      }
      this.#worstOverrunMs = Math.max(this.#worstOverrunMs, performance.now() - startedAt - CALL_TIMEOUT_MS);
      await sleep(10);
    }
  }

  async #counted<Value>(promise: Promise<Value>): Promise<Value> {
    this.#pending += 1;
    try {
      return await promise;
    } finally {
      this.#pending -= 1;
    }
  }

  #expectEcho(question: unknown, answer: unknown): void {
    if (JSON.stringify(answer) !== JSON.stringify(question)) {
      this.#unexpected.push(`${JSON.stringify(question)} was answered ${JSON.stringify(answer)}`);
    }
  }

  /** Resolves with how long it took from an instant until all workers have taken tasks, in milliseconds. */
  async tookAgain(since: number, workers: readonly Member[] = this.workers): Promise<number> {
    await found(
      "all workers to take tasks again",
      () => workers.every(({ lastTookAt }) => lastTookAt > since) || undefined,
      60_000,
    );
    return Math.max(...workers.map(({ lastTookAt }) => lastTookAt)) - since;
  }

  /** Ends the load; resolves when nothing of it is under way. @throws when something hangs */
  async end(): Promise<void> {
    this.#isEnding = true;
    await found("everyone who published or called to be told what came of it", () =>
      this.#pending === 0 ? true : undefined,
    );
    await Promise.all(this.#loops);
    await until("every confirmed task was consumed", () => this.#lost().length === 0).catch(() => {});
  }

  /** Confirmed tasks that nobody consumed. */
  #lost(): number[] {
    const lost: number[] = [];
    for (let number = 0; number < this.#tasks; number += 1) {
      if (this.#confirmed[number] === 1 && this.#consumed[number] === 0) lost.push(number);
    }
    return lost;
  }

  figures() {
    let consumed = 0;
    let duplicates = 0;
    for (let number = 0; number < this.#tasks; number += 1) {
      const times = this.#consumed[number] ?? 0;
      if (times > 0) consumed += 1;
      duplicates += Math.max(0, times - 1);
    }
    return {
      tasks: this.#tasks,
      published: Object.fromEntries(this.#published),
      consumed,
      duplicates,
      lost: this.#lost().length,
      calls: Object.fromEntries(this.#calls),
      worstOverrunMs: Math.round(this.#worstOverrunMs),
      pending: this.#pending,
      unexpected: this.#unexpected.slice(0, 5),
    };
  }

  async reconnects(): Promise<number> {
    const { values } = await this.metrics.busReconnects.get();
    return values.reduce((sum, { value }) => sum + value, 0);
  }

  /** Ends everything, whatever state it is in. */
  async dispose(): Promise<void> {
    this.#isEnding = true;
    for (const { proxy } of this.members) proxy.thaw();
    await Promise.all(this.members.map(({ bus }) => bus.stop()));
    await Promise.all(this.members.map(({ proxy }) => proxy.close()));
    await Promise.all(this.#loops);
  }
}

function count(counts: Map<string, number>, what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1);
}

/** Shows what a suite found out. */
export function report(suite: string, figures: Readonly<Record<string, unknown>>): void {
  console.log(`${suite}\n${JSON.stringify(figures, undefined, 2)}`);
}
