import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFailed, onTestFinished } from "vitest";
import { z } from "zod";
import { PrivateRabbit } from "../../scripts/servers.mjs";
import { Bus, CALL_ERROR_CODES, CallError } from "../../src/bus/index.js";
import { Names } from "../../src/bus/topology.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { until } from "../support/cluster.js";

const BATCH = 20;
/** Messages that each consumer takes before, between and after what is done to the cluster. */
const SOME = 1_000;
const CALL = { timeoutMs: 5_000 };
/** Longest time for a cluster to be itself again, in milliseconds. */
const RECOVERY_MS = 60_000;

const queueState = z.object({
  leader: z.string().optional(),
  online: z.array(z.string()).default([]),
  messages: z.number().default(0),
});

/** Whether something listens on the port of a URL. */
function listens(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp({ host: "127.0.0.1", port: Number(new URL(url).port) });
    socket.once("error", () => resolve(false));
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
  });
}

function within(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  return until(what, async () => holds(), undefined, RECOVERY_MS);
}

/** Tasks that are sent until they are confirmed, and taken, as fast as that goes. */
class TaskTraffic {
  readonly #confirmed = new Set<string>();
  readonly #taken = new Set<string>();
  readonly #takings = new Map<Bus, number>();
  readonly #publishing: readonly Promise<void>[];
  /** How often a task had to be sent again, by the reason. */
  readonly #sentAgain = new Map<string, number>();
  #isPublishing = true;
  #isOver = false;

  constructor(publishers: readonly Bus[]) {
    this.#publishing = publishers.map((bus, index) => this.#publish(bus, `p${index}`));
  }

  async takeWith(bus: Bus): Promise<void> {
    this.#takings.set(bus, 0);
    await bus.tasks.consume({ prefetch: 50 }, (delivery) => {
      this.#taken.add(delivery.body.toString());
      this.#takings.set(bus, this.takenBy(bus) + 1);
      bus.tasks.settle([delivery], { kind: "ack" });
    });
  }

  takenBy(bus: Bus): number {
    return this.#takings.get(bus) ?? 0;
  }

  hasTaken(isMeant: (id: string) => boolean): boolean {
    return [...this.#taken].some(isMeant);
  }

  /** Tells of a task whether it has been confirmed or taken by now. */
  snapshot(): (id: string) => boolean {
    const known = new Set([...this.#confirmed, ...this.#taken]);
    return (id) => known.has(id);
  }

  lost(): string[] {
    return [...this.#confirmed].filter((id) => !this.#taken.has(id));
  }

  /** Resolves when the last one is confirmed. */
  async endPublishing(): Promise<void> {
    this.#isPublishing = false;
    await Promise.all(this.#publishing);
  }

  end(): void {
    this.#isPublishing = false;
    this.#isOver = true;
  }

  figures(): string {
    const takings = [...this.#takings.values()].reduce((sum, count) => sum + count, 0);
    const again = JSON.stringify(Object.fromEntries(this.#sentAgain));
    return `${this.#confirmed.size} tasks confirmed, sent again ${again}, taken again ${takings - this.#taken.size}`;
  }

  async #publish(bus: Bus, name: string): Promise<void> {
    for (let number = 0; this.#isPublishing; number += BATCH) {
      let ids = Array.from({ length: BATCH }, (_, index) => `${name}-${number + index}`);
      while (ids.length > 0 && !this.#isOver) {
        const outcomes = await bus.tasks.publish(
          ids.map((id) => ({ body: id, contentType: "text/plain", messageId: id })),
        );
        const unsure: string[] = [];
        for (const [index, id] of ids.entries()) {
          const outcome = outcomes[index];
          if (outcome?.ok === true) this.#confirmed.add(id);
          else unsure.push(id);
          const code = outcome?.ok === false ? outcome.error.code : undefined;
          if (code !== undefined) this.#sentAgain.set(code, (this.#sentAgain.get(code) ?? 0) + 1);
        }
        ids = unsure;
      }
    }
  }
}

/** Calls, one after the other, each of which has to end. */
class CallTraffic {
  /** How often calls to whom ended how. */
  readonly #ends = new Map<string, Map<string, number>>();
  readonly #repeating: Promise<void>[] = [];
  #slowestMs = 0;
  #isOver = false;

  repeat(whom: string, call: () => Promise<unknown>): void {
    const ends = this.#ends.get(whom) ?? new Map<string, number>();
    this.#ends.set(whom, ends);
    this.#repeating.push(this.#repeat(ends, call));
  }

  answered(whom: string): number {
    return this.#ends.get(whom)?.get("result") ?? 0;
  }

  ends(): Set<string> {
    return new Set([...this.#ends.values()].flatMap((ends) => [...ends.keys()]));
  }

  end(): void {
    this.#isOver = true;
  }

  /** Resolves when no call waits any more. */
  async ended(): Promise<void> {
    this.end();
    let areOver = false;
    const over = Promise.all(this.#repeating).then(() => {
      areOver = true;
    });
    await until("no call is left hanging", async () => areOver, undefined, 4 * CALL.timeoutMs);
    await over;
  }

  figures(): string {
    const ends = [...this.#ends].map(
      ([whom, each]) => `to the ${whom} ${JSON.stringify(Object.fromEntries(each))}`,
    );
    return `calls ${ends.join(", ")}, the slowest over after ${Math.round(this.#slowestMs)} ms`;
  }

  async #repeat(ends: Map<string, number>, call: () => Promise<unknown>): Promise<void> {
    while (!this.#isOver) {
      const startedAt = performance.now();
      const end = await call().then(
        () => "result",
        (error: unknown) => (error instanceof CallError ? error.code : `not typed: ${String(error)}`),
      );
      this.#slowestMs = Math.max(this.#slowestMs, performance.now() - startedAt);
      ends.set(end, (ends.get(end) ?? 0) + 1);
      // An error may come at once; whoever calls again then is not to keep others from their turn.
      if (end !== "result") await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

describe("a cluster of three brokers", () => {
  const namespace = `cluster-${randomBytes(5).toString("hex")}`;
  const names = new Names(namespace);
  const buses: Bus[] = [];
  let folder: string;
  let members: PrivateRabbit[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-cluster-"));
    const first = new PrivateRabbit({ folder: path.join(folder, "1") });
    const others = ["2", "3"].map((name) => {
      return new PrivateRabbit({ folder: path.join(folder, name), joins: first });
    });
    members = [first, ...others];
    await first.start();
    await Promise.all(others.map((each) => each.start()));
    await until("all are members", async () => (await nodesRunning(first)) === 3);
  });

  afterAll(async () => {
    await Promise.all(buses.map((bus) => bus.stop()));
    // The first one keeps the list of where the others are.
    await Promise.all(members.slice(1).map((each) => each.stop()));
    await members[0]?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  async function ask(member: PrivateRabbit, what: string): Promise<unknown> {
    const headers = { authorization: `Basic ${Buffer.from("guest:guest").toString("base64")}` };
    const response = await fetch(`${member.managementUrl}/api/${what}`, { headers });
    if (!response.ok) throw new Error(`${what}: ${response.status}`);
    return response.json();
  }

  async function nodesRunning(member: PrivateRabbit): Promise<number> {
    const nodes = z.array(z.object({ running: z.boolean() })).parse(await ask(member, "nodes"));
    return nodes.filter(({ running }) => running).length;
  }

  async function stateOf(queue: string, member: PrivateRabbit): Promise<z.infer<typeof queueState>> {
    return queueState.parse(await ask(member, `queues/%2F/${queue}`));
  }

  /** A bus that tries the members in turn, beginning with one of them. */
  async function started(id: string, begin: number): Promise<Bus> {
    const urls = members.map((_, index) => members[(begin + index) % members.length]?.url ?? "");
    const bus = new Bus(
      {
        urls,
        namespace,
        identity: { role: "tool", id, version: "0" },
        reconnect: { minMs: 50, maxMs: 1_000 },
      },
      { logger: silentLogger, clock: systemClock },
    );
    buses.push(bus);
    await bus.start();
    return bus;
  }

  it("loses no confirmed task and leaves no call hanging when the leader of the tasks is killed, and comes back, twice", async () => {
    const publishers = [await started("publisher-1", 0), await started("publisher-2", 1)];
    const consumers = [await started("consumer-1", 0), await started("consumer-2", 2)];
    const callers = [await started("caller-1", 0), await started("caller-2", 1)];
    await callers[1]?.calls.serveNode("node-1", { echo: async (args) => args });
    await consumers[1]?.calls.serveMaster("master-1", { echo: async (args) => args });
    const tasks = new TaskTraffic(publishers);
    const calls = new CallTraffic();
    onTestFailed(() => console.log(`so far: ${tasks.figures()}; ${calls.figures()}`));
    // Nobody is to go on for ever when the test has failed.
    onTestFinished(() => {
      tasks.end();
      calls.end();
    });
    for (const bus of consumers) await tasks.takeWith(bus);
    for (const bus of callers) {
      calls.repeat("node", () => bus.calls.callNode("node-1", "echo", { a: 1 }, CALL));
      calls.repeat("master", () => bus.calls.callMaster("echo", { a: 1 }, CALL));
    }
    const moreTaken = (what: string) => {
      const goals = consumers.map((bus) => tasks.takenBy(bus) + SOME);
      const isReached = (bus: Bus, index: number) => tasks.takenBy(bus) >= Number(goals[index]);
      return within(`each consumer takes ${SOME} more ${what}`, () => consumers.every(isReached));
    };
    const moreAnswered = (whom: string, what: string) => {
      const answered = calls.answered(whom);
      return within(`calls to the ${whom} are answered ${what}`, () => calls.answered(whom) > answered);
    };
    await moreTaken("at first");
    await moreAnswered("node", "at first");
    await moreAnswered("master", "at first");

    const takenAgainMs: number[] = [];
    for (const round of ["the first time", "the second time"]) {
      const [anyone] = members;
      const leaderName = anyone && (await stateOf(names.tasks(), anyone)).leader;
      const leader = members.find(({ nodeName }) => nodeName === leaderName);
      const other = members.find(({ nodeName }) => nodeName !== leaderName);
      if (leader === undefined || other === undefined) throw new Error(`no member is ${leaderName}`);

      await leader.kill();
      const killedAt = performance.now();
      const isKnown = tasks.snapshot();
      await within("a message is taken that was not confirmed before", () =>
        tasks.hasTaken((id) => !isKnown(id)),
      );
      takenAgainMs.push(Math.round(performance.now() - killedAt));
      await within("all are connected to those that are left", () => buses.every((bus) => bus.connected));
      await moreTaken(`while its leader is away ${round}`);
      await moreAnswered("node", `while a member is away ${round}`);
      const leaderNow = async () => (await stateOf(names.tasks(), other)).leader;
      await within("another member leads", async () => ![undefined, leaderName].includes(await leaderNow()));

      await leader.start();
      const online = async () => (await stateOf(names.tasks(), other)).online.length;
      await within("it is back among those that hold the queue", async () => (await online()) === 3);
      await moreTaken(`since its former leader is back ${round}`);
      await moreAnswered("node", `since it is back ${round}`);
      await moreAnswered("master", `since it is back ${round}`);
    }

    await tasks.endPublishing();
    const lost = await within("all that was confirmed is taken", () => tasks.lost().length === 0).then(
      () => [],
      () => tasks.lost(),
    );
    await calls.ended();
    console.log(
      `leader of the tasks killed twice: ${tasks.figures()}; taken again after ${takenAgainMs.join(" and ")} ms; ${calls.figures()}`,
    );
    expect(lost).toEqual([]);
    const codes = [...calls.ends()].filter((end) => end !== "result");
    expect(codes.filter((end) => !CALL_ERROR_CODES.some((code) => code === end))).toEqual([]);
    expect(
      await Promise.all(members.map(async (each) => (await stateOf(names.rejected(), each)).messages)),
    ).toEqual([0, 0, 0]);
  });

  it("ends as a whole, and nothing of it listens any more", async () => {
    await Promise.all(buses.splice(0).map((bus) => bus.stop()));
    const urls = members.flatMap(({ url, managementUrl }) => [url, managementUrl]);
    expect(await Promise.all(urls.map(listens))).not.toContain(false);
    await Promise.all(members.slice(1).map((each) => each.stop()));
    await members[0]?.stop();
    expect(await Promise.all(urls.map(listens))).not.toContain(true);
  });
});
