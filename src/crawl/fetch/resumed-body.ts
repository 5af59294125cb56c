import { FetchError } from "../errors.js";
import { validatorsOf } from "../revisit.js";
import { tooLarge } from "./content-coding.js";
import type { Fetched } from "./fetcher.js";

export type ResumedBodyInput = {
  readonly first: Fetched;
  readonly maxBytes: number;
  /** How often the rest is asked for, over the whole body. */
  readonly maxResumes: number;
  /** In milliseconds since the epoch. */
  readonly now: number;
  readonly signal: AbortSignal;
  /** Sends the same request once more, with these headers. @throws FetchError */
  readonly askAgain: (headers: Readonly<Record<string, string>>) => Promise<Fetched>;
  /** Waits before it is asked again, as long as the host's politeness and its trouble want. */
  readonly pause: (resumes: number) => Promise<void>;
};

/**
 * The server was asked for the rest of a body and sent a whole one instead: it is another than it was, or cannot be
 * had in parts. What came before is of no use.
 */
export class BodyRestartedError extends Error {
  readonly fetched: Fetched;

  constructor(fetched: Fetched) {
    super(`${fetched.url}: came anew when its rest was asked for`);
    this.fetched = fetched;
  }
}

/**
 * A body, gone on with where its transfer was cut: only if the server takes ranges and gave a strong validator, so
 * that no two versions are put together (RFC 9110, 13.1.5 and 14), and only for a body without content coding, of
 * which the ranges would be ranges of the coded form. A time-out is not a cut: it ends the body.
 * @throws FetchError what cut the body, when it cannot be gone on with
 * @throws BodyRestartedError
 */
export async function* resumedBody(input: ResumedBodyInput): AsyncGenerator<Buffer, void> {
  const { first, maxBytes, maxResumes, signal } = input;
  const validator = rangeValidatorOf(first.headers, input.now);
  let { body } = first;
  let received = 0;
  let resumes = 0;
  for (;;) {
    let cut: FetchError;
    try {
      for await (const chunk of body.stream(maxBytes - received)) {
        received += chunk.length;
        yield chunk;
      }
      return;
    } catch (error) {
      if (!(error instanceof FetchError)) throw error;
      if (error.reason === "too-large") throw tooLarge(first.url, maxBytes);
      cut = error;
    }
    let rest: Fetched | undefined;
    while (rest === undefined) {
      if (validator === undefined || received === 0 || !isCut(cut, signal) || resumes === maxResumes)
        throw cut;
      resumes += 1;
      await input.pause(resumes);
      if (signal.aborted) throw cut;
      try {
        rest = await input.askAgain({
          range: `bytes=${received}-`,
          "if-range": validator,
          "accept-encoding": "identity",
        });
      } catch (error) {
        if (!(error instanceof FetchError)) throw error;
        cut = error;
      }
    }
    if (rest.statusCode === 200) throw new BodyRestartedError(rest);
    if (!goesOn(rest, first, received)) {
      rest.body.discard();
      throw cut;
    }
    ({ body } = rest);
  }
}

function isCut({ reason, retryable }: FetchError, signal: AbortSignal): boolean {
  return reason === "network" && retryable && !signal.aborted;
}

/** A 206 with exactly the bytes that are missing, of the same body. */
function goesOn(rest: Fetched, first: Fetched, received: number): boolean {
  const { headers, statusCode } = rest;
  if (statusCode !== 206 || !isPlain(headers)) return false;
  const [, start, end, total] =
    /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(headers["content-range"] ?? "") ?? [];
  if (start === undefined || end === undefined || Number(start) !== received) return false;
  const known = first.headers["content-length"] ?? total;
  if (total !== "*" && total !== known) return false;
  if (known !== undefined && known !== "*" && Number(end) !== Number(known) - 1) return false;
  return headers.etag === undefined || headers.etag === first.headers.etag;
}

function isPlain(headers: Readonly<Record<string, string>>): boolean {
  const coding = headers["content-encoding"];
  return coding === undefined || coding.toLowerCase() === "identity";
}

/**
 * What goes into `If-Range`: a strong entity tag, else a date that is strong because the response was made at least a
 * second later (RFC 9110, 8.8.2.2).
 */
function rangeValidatorOf(headers: Readonly<Record<string, string>>, now: number): string | undefined {
  if (!isPlain(headers) || headers["accept-ranges"]?.toLowerCase() !== "bytes") return undefined;
  const { etag, lastModified } = validatorsOf(headers, now);
  if (etag !== undefined) return etag.startsWith("W/") ? undefined : etag;
  const sentAt = Date.parse(headers.date ?? "");
  if (lastModified === undefined || Number.isNaN(sentAt)) return undefined;
  return sentAt - Date.parse(lastModified) >= 1_000 ? lastModified : undefined;
}
