import type { Logger } from "./logger.js";

/**
 * Anything with a loop, a timer, a socket or a consumer. `start` resolves when it works; `stop` resolves
 * when nothing of it runs any more. Stopping twice, or before starting, is harmless.
 */
export interface Service {
  readonly name: string;
  start(): Promise<void>;
  stop(): Promise<void>;
}

export type RunOptions = {
  readonly logger: Logger;
  /** Longest time for all services to stop after the first signal, in milliseconds. */
  readonly shutdownTimeoutMs: number;
};

/**
 * Starts the services in the order given and stops them in reverse on SIGTERM or SIGINT, or when
 * `finished` settles. A second signal, or the time-out, ends the process at once with exit code 1.
 * Returns when everything has stopped; a failing start stops what was started and rethrows.
 */
export async function runUntilSignalled(
  services: readonly Service[],
  options: RunOptions,
  finished: Promise<void> = new Promise(() => {}),
): Promise<void> {
  const { logger } = options;
  const started: Service[] = [];
  // Timers of services do not keep the process alive; that it is to live is decided here.
  const keepAlive = setInterval(() => {}, 60_000);
  let signals = 0;
  let signalled: () => void = () => {};
  const signal = new Promise<void>((resolve) => {
    signalled = resolve;
  });
  let deadline: NodeJS.Timeout | undefined;
  // It is awaited once all have started; what fails before that is not "unhandled" meanwhile.
  finished.catch(() => {});
  const onSignal = (name: NodeJS.Signals) => {
    signals += 1;
    if (signals > 1) {
      logger.warn({ signal: name }, "second signal: leaving at once");
      process.exit(1);
    }
    logger.info({ signal: name }, "stopping");
    deadline = setTimeout(() => {
      logger.error(
        { timeoutMs: options.shutdownTimeoutMs },
        "not everything stopped in time: leaving at once",
      );
      process.exit(1);
    }, options.shutdownTimeoutMs);
    signalled();
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  try {
    for (const service of services) {
      const starting = service.start();
      started.push(service);
      // A signal ends the wait as well: a server that is away must not make us deaf to Ctrl-C.
      await Promise.race([starting, signal]);
      if (signals > 0) {
        starting.catch(() => {});
        break;
      }
    }
    if (signals === 0) await Promise.race([signal, finished]);
  } finally {
    for (const service of started.reverse()) {
      try {
        await service.stop();
      } catch (error) {
        logger.error({ err: error, service: service.name }, "could not stop cleanly");
      }
    }
    clearInterval(keepAlive);
    clearTimeout(deadline);
    process.off("SIGTERM", onSignal);
    process.off("SIGINT", onSignal);
  }
}
