import { describe, expect, it } from "vitest";
import { traceContextOf, traceFields } from "../../src/lib/trace-context.js";

const TRACE_ID = "0af7651916cd43dd8448eb211c80319c";
const SPAN_ID = "b7ad6b7169203331";
const traceparent = `00-${TRACE_ID}-${SPAN_ID}-01`;

describe("the trace context of a message", () => {
  it("is what its headers say, with the fields that log lines show", () => {
    const trace = traceContextOf({ traceparent, tracestate: "a=1,b=2", other: "x" });

    expect(trace).toEqual({ traceparent, tracestate: "a=1,b=2" });
    expect(traceFields(trace)).toEqual({ traceId: TRACE_ID, spanId: SPAN_ID });
  });

  it.each([
    ["a later version, which may have more fields", `cc-${TRACE_ID}-${SPAN_ID}-01-what-the-future-holds`],
    ["flags that are not known", `00-${TRACE_ID}-${SPAN_ID}-ff`],
  ])("may be of %s", (_what, value) => {
    expect(traceContextOf({ traceparent: value })).toEqual({ traceparent: value });
  });

  it.each<[string, unknown]>([
    ["nothing", undefined],
    ["something that is no text", 17],
    ["a version that is forbidden", `ff-${TRACE_ID}-${SPAN_ID}-01`],
    ["a trace id of zeros", `00-${"0".repeat(32)}-${SPAN_ID}-01`],
    ["a parent id of zeros", `00-${TRACE_ID}-${"0".repeat(16)}-01`],
    ["capitals", traceparent.toUpperCase()],
    ["too few fields", `00-${TRACE_ID}-${SPAN_ID}`],
    ["more without a separator", `${traceparent}2`],
    ["something very long", `${traceparent}-${"x".repeat(200)}`],
  ])("is none when `traceparent` is %s", (_what, value) => {
    expect(traceContextOf({ traceparent: value, tracestate: "a=1" })).toBeUndefined();
    expect(traceFields(undefined)).toEqual({});
  });

  it("leaves out a state that is no text, or too long", () => {
    expect(traceContextOf({ traceparent, tracestate: "x".repeat(513) })).toEqual({ traceparent });
    expect(traceContextOf({ traceparent, tracestate: { a: 1 } })).toEqual({ traceparent });
  });
});
