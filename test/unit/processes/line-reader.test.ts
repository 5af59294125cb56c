import fc from "fast-check";
import { expect, it } from "vitest";
import { type Line, LineReader } from "../../../src/worker/processes/line-reader.js";

function linesOf(maxBytes: number, chunks: readonly (string | Uint8Array)[]): Line[] {
  const reader = new LineReader(maxBytes);
  const lines = chunks.flatMap((chunk) => [...reader.take(Buffer.from(chunk))]);
  const rest = reader.rest();
  return rest === undefined ? lines : [...lines, rest];
}

it("parts lines at LF and CRLF, wherever the chunks end", () => {
  const text = "ä\r\n\nb b\r\rc\n€last";
  const bytes = Buffer.from(text);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: bytes.length })), (cuts) => {
      const ends = [...new Set([...cuts, bytes.length])].sort((a, b) => a - b);
      const chunks = ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
      expect(linesOf(100, chunks).map((line) => line.text)).toEqual(["ä", "", "b b\r\rc", "€last"]);
    }),
  );
});

it("cuts a line that is too long, not in the middle of a character, and goes on with the next", () => {
  expect(linesOf(4, ["abc€def\nnext\nlonger", "\n"])).toEqual([
    { text: "abc", isCut: true },
    { text: "next", isCut: false },
    { text: "long", isCut: true },
  ]);
});

it("keeps no more of an endless line than it may", () => {
  const reader = new LineReader(1_000);
  const chunk = Buffer.alloc(65_536, "x");
  for (let count = 0; count < 1_000; count += 1) expect([...reader.take(chunk)]).toEqual([]);
  expect(reader.rest()).toEqual({ text: "x".repeat(1_000), isCut: true });
});

it("reads bytes that are no text as replacement characters", () => {
  expect(linesOf(100, [new Uint8Array([0xff, 0x00, 0x41, 0x0a])])).toEqual([
    { text: "\u{fffd}\0A", isCut: false },
  ]);
});
