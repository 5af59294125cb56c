/** A place in a distributed trace, as W3C headers have it. @see https://www.w3.org/TR/trace-context/ */
export type TraceContext = { readonly traceparent: string; readonly tracestate?: string };

/** Version, trace id, parent id, flags (W3C Trace Context, 3.2.2); later versions may add to it. */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-|$)/;
const MAX_TRACEPARENT_CHARACTERS = 128;
/** What must be carried on at least (3.3.1.5). */
const MAX_TRACESTATE_CHARACTERS = 512;

/**
 * The trace context among a message's headers. One that is not valid is none, as the standard has it, and so is a
 * `tracestate` that is too long.
 */
export function traceContextOf(
  headers: Readonly<Record<string, unknown>> | undefined,
): TraceContext | undefined {
  const { traceparent, tracestate } = headers ?? {};
  if (typeof traceparent !== "string" || traceparent.length > MAX_TRACEPARENT_CHARACTERS) return undefined;
  if (!TRACEPARENT.test(traceparent)) return undefined;
  const isStateKept =
    typeof tracestate === "string" && tracestate !== "" && tracestate.length <= MAX_TRACESTATE_CHARACTERS;
  return { traceparent, ...(isStateKept && { tracestate }) };
}

/** What log lines say of a trace; nothing when there is none. */
export function traceFields(trace: TraceContext | undefined): {
  readonly traceId?: string;
  readonly spanId?: string;
} {
  const [, traceId, spanId] = TRACEPARENT.exec(trace?.traceparent ?? "") ?? [];
  return traceId === undefined || spanId === undefined ? {} : { traceId, spanId };
}
