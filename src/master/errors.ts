import type { ZodError } from "zod";
import { CALL_ERROR_CODES, CallError } from "../bus/index.js";
import { WarrenError } from "../lib/errors.js";
import { CursorError, StoreError } from "../store/index.js";

/** What went wrong with a request, the same over HTTP and over AMQP. Stable: callers branch on it. */
export const REQUEST_ERROR_CODES = [
  "invalid",
  "unauthorized",
  "forbidden",
  "not-found",
  "method-not-allowed",
  "conflict",
  "key-reused",
  "too-large",
  "unsupported-media-type",
  "not-acceptable",
  "unavailable",
  "timeout",
  "cancelled",
  "internal",
] as const;
export type RequestErrorCode = (typeof REQUEST_ERROR_CODES)[number];

/** A member of the request that is wrong: its dotted path (`limits.maxPages`, `seeds.3`) and why. */
export type FieldError = { readonly field: string; readonly message: string };

/**
 * A request that is not done, for a reason its sender should know. Anything else that is thrown is a fault
 * of ours: the sender learns only that there was one.
 */
export class RequestError extends WarrenError {
  readonly code: RequestErrorCode;
  readonly fields: readonly FieldError[];

  constructor(
    code: RequestErrorCode,
    message: string,
    options: ErrorOptions & { readonly fields?: readonly FieldError[] } = {},
  ) {
    super(message, options);
    this.code = code;
    this.fields = options.fields ?? [];
  }
}

/** One member is wrong. */
export function invalid(field: string, message: string): RequestError {
  return new RequestError("invalid", `${field}: ${message}`, { fields: [{ field, message }] });
}

export function notFound(what: string, id: string): RequestError {
  return new RequestError("not-found", `there is no ${what} "${id}"`);
}

/** Every fault that a schema found, as one error that names each member. */
export function invalidBySchema(error: ZodError): RequestError {
  const fields = error.issues.flatMap((issue) => fieldErrors(issue, []));
  const shown = fields
    .slice(0, 5)
    .map(({ field, message }) => (field === "" ? message : `${field}: ${message}`));
  if (fields.length > shown.length) shown.push(`and ${fields.length - shown.length} more`);
  return new RequestError("invalid", shown.join("; "), { fields });
}

/**
 * Anything thrown as its sender may see it. What nobody foresaw becomes `internal` and keeps its text inside.
 * @see RequestError
 */
export function asRequestError(thrown: unknown): RequestError {
  if (thrown instanceof RequestError) return thrown;
  if (thrown instanceof CursorError) return invalid("cursor", "is not one that this list gave");
  if (thrown instanceof StoreError) {
    const code = REQUEST_ERROR_CODES.find((known) => known === thrown.code) ?? "internal";
    return new RequestError(code, thrown.message, { cause: thrown });
  }
  if (thrown instanceof CallError) return new RequestError(thrown.code, thrown.message, { cause: thrown });
  return new RequestError("internal", "something failed here; the log of the master has it", {
    cause: thrown,
  });
}

/** The same, in the fewer codes that go over AMQP. */
export function asCallError(thrown: unknown): CallError {
  const { code, message } = asRequestError(thrown);
  const known = CALL_ERROR_CODES.find((other) => other === code);
  return new CallError(known ?? (code === "key-reused" ? "conflict" : "invalid"), message, { cause: thrown });
}

type Issue = ZodError["issues"][number];

function fieldErrors(issue: Issue, parent: readonly PropertyKey[]): FieldError[] {
  const path = [...parent, ...issue.path];
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ field: dotted([...path, key]), message: "is not known here" }));
  }
  if (issue.code === "invalid_union") {
    // The branch that got furthest is the one that was meant.
    const meant = issue.errors.find((branch) =>
      branch.some((inner) => inner.path.length > 0 || inner.code === "unrecognized_keys"),
    );
    if (meant !== undefined) return meant.flatMap((inner) => fieldErrors(inner, path));
  }
  return [{ field: dotted(path), message: plain(issue) }];
}

function plain(issue: Issue): string {
  if (issue.code === "invalid_type") {
    const expected = issue.expected === "record" ? "object" : issue.expected;
    return issue.input === undefined && issue.message.endsWith("received undefined")
      ? `is missing; must be ${article(expected)}`
      : `must be ${article(expected)}`;
  }
  if (issue.code === "invalid_value") {
    return `must be ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
  }
  return issue.message;
}

function article(noun: string): string {
  if (noun === "int") return "a whole number";
  return `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
}

function dotted(path: readonly PropertyKey[]): string {
  return path.map(String).join(".");
}
