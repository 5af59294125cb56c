/**
 * First bytes by which a type is told when the server's word for it is wrong or missing (WHATWG MIME
 * Sniffing, 6 and 7, for the types that people store).
 */
const SIGNATURES: Readonly<Record<string, readonly Buffer[]>> = {
  "application/pdf": [Buffer.from("%PDF-")],
  "application/zip": [Buffer.from([0x50, 0x4b, 0x03, 0x04])],
  "application/gzip": [Buffer.from([0x1f, 0x8b, 0x08])],
  "image/png": [Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])],
  "image/jpeg": [Buffer.from([0xff, 0xd8, 0xff])],
  "image/gif": [Buffer.from("GIF87a"), Buffer.from("GIF89a")],
  "application/postscript": [Buffer.from("%!PS-Adobe-")],
};

/** Bytes from a body's start that are needed to tell its type. */
export const SNIFFED_BYTES = 16;

/** Which of the wanted types a body is of, by the server's word or its first bytes; undefined for none. */
export function wantedType(
  wanted: readonly string[],
  contentType: string | undefined,
  firstBytes: Buffer,
): string | undefined {
  if (contentType !== undefined && wanted.includes(contentType)) return contentType;
  return wanted.find((type) =>
    (SIGNATURES[type] ?? []).some((signature) => firstBytes.subarray(0, signature.length).equals(signature)),
  );
}

/** A file's name as its URL gives it, fit for a file system; `file` when it gives none. */
export function fileNameOf(url: string): string {
  const last = new URL(url).pathname.split("/").pop() ?? "";
  let name = last;
  try {
    name = decodeURIComponent(last);
  } catch {
    // Not valid UTF-8: the encoded form will do.
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not get through
  const safe = name.replace(/[\u0000-\u001f\u007f/\\:*?"<>|]/g, "_").replace(/^\.+/, "_");
  return cut(safe) || "file";
}

/** File systems count a name's bytes (255 of them), and stores put something before it. */
const MAX_NAME_BYTES = 200;

/** As many whole characters as fit. */
function cut(name: string): string {
  if (Buffer.byteLength(name) <= MAX_NAME_BYTES) return name;
  // A character that is cut in two becomes U+FFFD in the end.
  return Buffer.from(name)
    .subarray(0, MAX_NAME_BYTES)
    .toString("utf8")
    .replace(/\ufffd$/, "");
}
