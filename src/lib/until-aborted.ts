/**
 * What a promise brings, unless a signal ends the wait for it.
 * @throws the signal's reason; what the promise comes to is then nobody's business any more
 */
export async function untilAborted<Value>(waited: Promise<Value>, signal: AbortSignal): Promise<Value> {
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
  });
  aborted.catch(() => {});
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([waited, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
