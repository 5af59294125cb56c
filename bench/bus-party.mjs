/**
 * One side of a measurement of the bus: who calls, or who is called, with our bus or with bare amqplib. Started
 * with an IPC channel; told what to do by bus-bench.mjs: `{ id, method, args }`, answered `{ id, result }` or
 * `{ id, error }`. Ends when it is disconnected.
 *
 * usage: bus-party.mjs ours|bare caller|server DIST URL NAMESPACE
 */
const [kind, role, dist, url, namespace] = process.argv.slice(2);
const { Caller, Server } = await import(kind === "ours" ? "./bus-ours.mjs" : "./bus-bare.mjs");
const party = new (role === "caller" ? Caller : Server)({ dist, url, namespace });

let taking;

const methods = {
  open: (args) => party.open(args),
  /** One operation after the other, for so many milliseconds or so many times. */
  async latency({ operation, durationMs = Number.POSITIVE_INFINITY, times = Number.POSITIVE_INFINITY }) {
    const run = party.operations[operation];
    const took = [];
    const { seconds, cpuSeconds } = await measured(async (startedAt) => {
      while (took.length < times && performance.now() - startedAt < durationMs) {
        const at = performance.now();
        await run();
        took.push(performance.now() - at);
      }
    });
    took.sort((a, b) => a - b);
    const at = (share) => took[Math.min(took.length - 1, Math.floor(share * took.length))];
    return { count: took.length, seconds, cpuSeconds, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: took.at(-1) };
  },
  /** So many operations at once, for so many milliseconds. */
  async rate({ operation, inFlight, durationMs }) {
    const run = party.operations[operation];
    let count = 0;
    const { seconds, cpuSeconds } = await measured(async (startedAt) => {
      const repeat = async () => {
        while (performance.now() - startedAt < durationMs) {
          await run();
          count += 1;
        }
      };
      await Promise.all(Array.from({ length: inFlight }, repeat));
    });
    return { count, seconds, cpuSeconds, perSecond: count / seconds };
  },
  /** So many tasks, of which so many are unconfirmed at once. Resolves when all are confirmed. */
  async send({ count, inFlight }) {
    const run = party.operations.task;
    let left = count;
    const startedAt = process.hrtime.bigint();
    const { seconds, cpuSeconds } = await measured(async () => {
      const repeat = async () => {
        while (left > 0) {
          left -= 1;
          await run();
        }
      };
      await Promise.all(Array.from({ length: inFlight }, repeat));
    });
    return { startedAt: Number(startedAt), seconds, cpuSeconds };
  },
  async expect({ count }) {
    taking = party.take(count);
  },
  /** Resolves when the tasks that were to be expected are acknowledged. */
  async taken() {
    return { finishedAt: Number(await taking) };
  },
  cpuSeconds: async () => cpuSeconds(),
  close: () => party.close(),
};

process.on("message", async ({ id, method, args }) => {
  try {
    process.send({ id, result: await methods[method](args) });
  } catch (error) {
    process.send({ id, error: error.stack });
  }
});
process.once("disconnect", () => process.exit());
process.send({ type: "ready" });

async function measured(work) {
  const [startedAt, cpuBefore] = [performance.now(), cpuSeconds()];
  await work(startedAt);
  return { seconds: (performance.now() - startedAt) / 1e3, cpuSeconds: cpuSeconds() - cpuBefore };
}

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
