import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { contentHash, contentHashOf, MemoryContentIndex } from "../../../src/crawl/content-index.js";
import { contentIndexContract } from "../../support/content-index-contract.js";

contentIndexContract("MemoryContentIndex", async () => {
  const index = new MemoryContentIndex();
  return { indexes: [index, index], dispose: async () => {} };
});

describe("the name of a body", () => {
  it("is the same whether it is made of the body or of its checksum", () => {
    const body = Buffer.from("any body");
    const sha256 = createHash("sha256").update(body).digest("hex");
    expect(contentHash(body)).toBe(contentHashOf(sha256));
    expect(contentHash(body)).not.toBe(contentHash(Buffer.from("another body")));
  });
});
