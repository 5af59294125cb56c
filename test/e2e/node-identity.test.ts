import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Bus } from "../../src/bus/index.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { CALLS, type WarrenBus } from "../../src/protocol/index.js";
import { Cluster, type Member, until } from "../support/cluster.js";

const ROOT = path.resolve(import.meta.dirname, "../..");

/** Without any master: who goes by an id is between the nodes and the broker. */
describe("two processes with one node id", () => {
  let cluster: Cluster;
  let first: Member;
  let asking: WarrenBus;
  const started: ChildProcess[] = [];

  beforeEach(async () => {
    cluster = new Cluster();
    first = await cluster.worker("w1");
    asking = new Bus(
      {
        urls: [cluster.amqpUrl],
        namespace: cluster.namespace,
        identity: { role: "tool", id: "asking", version: "0" },
      },
      { logger: silentLogger, clock: systemClock, tables: CALLS },
    );
    await asking.start();
  });
  afterEach(async () => {
    for (const child of started.splice(0)) child.kill("SIGKILL");
    await asking.stop();
    await cluster.stop();
  });

  function secondProcess(environment: Record<string, string> = {}) {
    const child = spawn(process.execPath, ["dist/worker.js", "--node-id", "w1"], {
      cwd: ROOT,
      env: {
        ...process.env,
        AMQP_URL: cluster.amqpUrl,
        MONGODB_URI: cluster.mongodbUri,
        WARREN_NAMESPACE: cluster.namespace,
        ...environment,
      },
      stdio: ["ignore", "ignore", "pipe"],
    });
    started.push(child);
    let output = "";
    child.stderr.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    return { child, output: () => output, closed: once(child, "close") };
  }

  const pidOf = async () => (await asking.calls.callNode("w1", "system-info")).pid;

  it("are one too many: the second ends with exit code 2, and the first has noticed nothing", async () => {
    const before = first.output();

    const second = secondProcess();
    await second.closed;

    expect(second.child.exitCode).toBe(2);
    expect(second.output()).toContain(
      `--node-id (WARREN_NODE_ID): node "w1" is running already, as process ${first.process.pid} on this machine`,
    );
    expect(second.output()).not.toContain('"msg":"ready"');
    expect(await pidOf()).toBe(first.process.pid);
    expect(first.output()).toBe(before);
  });

  it("are none when the first was killed: the second starts", async () => {
    await first.end("SIGKILL");

    const second = secondProcess();
    await until("the second is ready", async () => second.output().includes('"msg":"ready"'));

    expect(await pidOf()).toBe(second.child.pid);
  });

  it("end as one when the first was frozen and wakes up after the second has taken its place", async () => {
    await first.end("SIGTERM");
    const url = new URL(cluster.amqpUrl);
    url.searchParams.set("heartbeat", "1");
    const frozen = secondProcess({ AMQP_URL: url.href });
    await until("it is ready", async () => frozen.output().includes('"msg":"ready"'));

    frozen.child.kill("SIGSTOP");
    const heir = secondProcess();
    await until("its heir is ready", async () => heir.output().includes('"msg":"ready"'));
    frozen.child.kill("SIGCONT");
    await frozen.closed;

    expect(frozen.child.exitCode).toBe(2);
    expect(frozen.output()).toContain('node "w1" is running already');
    expect(await pidOf()).toBe(heir.child.pid);
  });

  it("started in the same instant leave one of them", async () => {
    await first.end("SIGTERM");

    const both = [secondProcess(), secondProcess()];
    await Promise.race(both.map(({ closed }) => closed));
    const survivor = both.find(({ child }) => child.exitCode === null);
    await until("the other is ready", async () => survivor?.output().includes('"msg":"ready"') === true);

    expect(both.map(({ child }) => child.exitCode).sort()).toEqual([2, null]);
    expect(await pidOf()).toBe(survivor?.child.pid);
  });
});
