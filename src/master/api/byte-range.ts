/** A part of a body: `start` inclusive, `end` exclusive. */
export type ByteRange = { readonly start: number; readonly end: number };

/**
 * The part that a `Range` header asks for (RFC 9110, 14.1.2 and 14.2); undefined when there is none that is understood,
 * or it asks for several: a server may then send all.
 */
export function byteRangeOf(
  header: string | undefined,
  bytes: number,
): ByteRange | "unsatisfiable" | undefined {
  const [, first = "", last = ""] = /^bytes=\s*(\d{0,15})-(\d{0,15})\s*$/i.exec(header ?? "") ?? [];
  if (first === "" && last === "") return undefined;
  if (first === "") {
    const wanted = Number(last);
    if (wanted === 0) return "unsatisfiable";
    // All of nothing cannot be said in a Content-Range.
    return bytes === 0 ? undefined : { start: Math.max(0, bytes - wanted), end: bytes };
  }
  const start = Number(first);
  if (last !== "" && Number(last) < start) return undefined;
  if (start >= bytes) return "unsatisfiable";
  return { start, end: last === "" ? bytes : Math.min(bytes, Number(last) + 1) };
}

/** Whether an `If-None-Match` header names this strong entity tag, compared weakly (RFC 9110, 13.1.2). */
export function matchesAny(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  return header.trim() === "*" || header.split(",").some((one) => one.trim().replace(/^W\//, "") === etag);
}
