import { tailOf } from "./processes.mjs";
import { SetupError } from "./setup-error.mjs";

const POLL_MS = 100;
const ATTEMPTS = 3;

/** Tries again until it works or the time is over; throws what went wrong last. */
export async function eventually(timeoutMs, attempt) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/**
 * Waits until a server that was just started is ready, and no longer than it lives.
 * @param {{ name: string, server: import("./processes.mjs").Guarded, ready: () => Promise<void>, logFile: string }} options
 * @throws SetupError with the end of its log
 */
export async function untilReady({ name, server, ready, logFile }) {
  const died = server.exited.then(({ code, signal }) => {
    throw new Error(`it ended at its start (${signal ?? `exit code ${code}`})`);
  });
  died.catch(() => {});
  try {
    await Promise.race([ready(), died]);
  } catch (error) {
    await server.kill();
    throw new SetupError(`${name} did not come up: ${error.message}\n${tailOf(logFile)}`, {
      cause: error,
      exitCode: 1,
    });
  }
}

/** Does it again, with other ports, when somebody else took one between its choice and its use. */
export async function withFreshPorts(choose, use) {
  for (let attempt = 1; ; attempt += 1) {
    const ports = await choose();
    try {
      await use(ports);
      return ports;
    } catch (error) {
      if (attempt === ATTEMPTS || !/eaddrinuse|address already in use/i.test(error.message)) throw error;
    }
  }
}
