import { describe, it } from "vitest";
import { expectIsolated, MISBEHAVIOUR } from "../support/processes/misbehaviour.js";

describe("a process that misbehaves takes no other page along:", () => {
  it.each(MISBEHAVIOUR.map(({ text }) => text))("%s", (text) => expectIsolated(text));
});
