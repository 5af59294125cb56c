/**
 * @typedef {((line: string) => void) & { status?: (key: string, text: string | undefined) => void }} Report
 *   says what is being done; where it has a `status`, what still goes on is shown in a line that changes
 */

/** Without a terminal: the seconds after which it is said that a step still goes on, and every 10 s from then on. */
const SAID_AFTER_S = new Set([1, 3, 5]);

/**
 * Writes lines to a stream. On a terminal the last line is kept for what is going on.
 * @param {NodeJS.WriteStream} stream
 * @returns {Report & { status: (key: string, text: string | undefined) => void } | Report}
 */
export function reportTo(stream) {
  if (!stream.isTTY) return (line) => void stream.write(`${line}\n`);
  const statuses = new Map();
  const clear = "\r\u001b[2K";
  const shown = () => [...statuses.values()].join(" | ").slice(0, (stream.columns ?? 120) - 1);
  return Object.assign((line) => void stream.write(`${clear}${line}\n${shown()}`), {
    status(key, text) {
      if (text === undefined) statuses.delete(key);
      else statuses.set(key, text);
      stream.write(`${clear}${shown()}`);
    },
  });
}

/**
 * Does something, says so, and says for how long it has been going on when that is more than a second.
 * @template T
 * @param {Report} report
 * @param {string} what
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function step(report, what, action) {
  const startedAt = performance.now();
  const seconds = () => Math.floor((performance.now() - startedAt) / 1_000);
  report(`${what} …`);
  let said = 0;
  const timer = setInterval(() => {
    const now = seconds();
    if (now === said) return;
    said = now;
    if (report.status !== undefined) report.status(what, `${what} … ${now} s`);
    else if (SAID_AFTER_S.has(now) || now % 10 === 0) report(`${what} … ${now} s`);
  }, 200);
  let outcome = "failed";
  try {
    const result = await action();
    outcome = "done";
    return result;
  } finally {
    clearInterval(timer);
    report.status?.(what, undefined);
    if (outcome === "failed" || seconds() >= 1) report(`${what}: ${outcome} after ${seconds()} s`);
  }
}
