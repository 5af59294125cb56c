import type { CrawlState } from "../../crawl/crawl-state.js";
import { messageOf } from "../../lib/errors.js";
import { lineOf, type StateCall } from "./protocol.js";

/** The line that answers what a process asks of its crawl's state. Never rejects: what is wrong is the answer. */
export async function answerTo(call: StateCall, state: CrawlState): Promise<string> {
  const { id } = call;
  try {
    return lineOf({ type: "state", id, value: (await outcomeOf(call, state)) ?? null });
  } catch (error) {
    return lineOf({ type: "state", id, error: messageOf(error) });
  }
}

async function outcomeOf(call: StateCall, state: CrawlState): Promise<unknown> {
  switch (call.type) {
    case "state.get":
      return state.get(call.name);
    case "state.set":
      return state.set(call.name, call.value);
    case "state.add":
      return state.add(call.name, call.by);
    case "state.delete":
      return state.delete(call.name);
    default:
      return call satisfies never;
  }
}
