#!/usr/bin/env node
/** `npm run conformance -- --spider NAME`: see docs/reference/amqp.md, "Workers in other languages". */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { Conformance } from "./conformance/conformance.mjs";
import { SetupError, startServers } from "./servers.mjs";

const USAGE = `Usage: npm run conformance -- --spider NAME [flags] [-- COMMAND …]

Plays the master in front of a worker in another language, and says what the worker gets wrong: a line a case.
COMMAND is started as the worker, with AMQP_URL and WARREN_NAMESPACE set; without it they are shown, for you to
start it. The worker and this must run on the same machine.

  --spider NAME      the external spider whose tasks the worker takes
  --namespace NAME   prefix of the names on the broker [conformance- and something random]
  --only TEXT        only cases whose name has TEXT in it
  --patience SECONDS longest wait for a result, or for the worker to come [60]

RabbitMQ is that of AMQP_URL (amqp://), else a private one is started. Exit code 0: all is right; 1: something is wrong;
2: wrong usage.
`;

class UsageError extends Error {}

const stops = [];
process.exitCode = await main().catch((error) => {
  const isExpected = error instanceof UsageError || error instanceof SetupError;
  process.stderr.write(`${isExpected ? error.message : error.stack}\n`);
  return isExpected ? 2 : 1;
});
for (const stop of stops.reverse()) await stop();

async function main() {
  const options = readOptions(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(USAGE);
    return 0;
  }
  for (const [name, exitCode] of Object.entries({ SIGINT: 130, SIGTERM: 143 })) {
    process.once(name, async () => {
      for (const stop of stops.splice(0).reverse()) await stop();
      process.exit(exitCode);
    });
  }
  const amqpUrl = await brokerUrl();
  const kit = new Conformance({ ...options, amqpUrl });
  const environment = await kit.start();
  stops.push(() => kit.stop());
  if (options.command.length === 0) {
    const shown = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    process.stdout.write(`Start the worker of spider ${options.spider} with ${shown.join(" ")}\n`);
  } else stops.push(startWorker(options.command, environment));
  let wrong = 0;
  let right = 0;
  for await (const { name, fault } of kit.results()) {
    if (fault === undefined) right += 1;
    else wrong += 1;
    process.stdout.write(fault === undefined ? `ok     ${name}\n` : `WRONG  ${name}: ${fault}\n`);
  }
  process.stdout.write(wrong === 0 ? `all ${right} right\n` : `${wrong} of ${right + wrong} wrong\n`);
  return wrong === 0 ? 0 : 1;
}

function readOptions(args) {
  let values;
  let positionals;
  try {
    ({ values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        spider: { type: "string" },
        namespace: { type: "string", default: `conformance-${randomBytes(4).toString("hex")}` },
        only: { type: "string", default: "" },
        patience: { type: "string", default: "60" },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (error) {
    throw new UsageError(`${error.message}\n${USAGE}`);
  }
  if (values.help) return undefined;
  const { spider, namespace, only, patience } = values;
  if (spider === undefined || spider === "")
    throw new UsageError(`--spider: name the worker's spider\n${USAGE}`);
  if (!/^[1-9]\d{0,3}$/.test(patience)) throw new UsageError("--patience: must be a whole number of seconds");
  return { spider, namespace, only, patienceMs: Number(patience) * 1_000, command: positionals };
}

async function brokerUrl() {
  const given = process.env.AMQP_URL?.split(",")[0];
  if (given !== undefined && given !== "") {
    if (!given.startsWith("amqp://"))
      throw new UsageError("AMQP_URL: must be amqp://; this reads what passes");
    return given;
  }
  const servers = await startServers({ purpose: "test", mongodb: false });
  stops.push(() => servers.stop());
  return servers.amqpUrl;
}

/** Starts the worker in a process group of its own, so that all of it can be ended. */
function startWorker([program, ...args], environment) {
  const child = spawn(program, args, {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "inherit", "inherit"],
    detached: true,
  });
  const ended = Promise.race([once(child, "exit"), once(child, "error")]).catch((error) => {
    process.stderr.write(`the worker could not be started: ${error.message}\n`);
  });
  return async () => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    process.kill(-child.pid, "SIGKILL");
    await ended;
  };
}
