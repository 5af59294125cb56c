import type { ZodError } from "zod";
import { CALL_ERROR_CODES, CallError } from "../bus/index.js";
import { WarrenError } from "../lib/errors.js";
import { type FieldError, fieldErrorsOf, summaryOf } from "../lib/field-errors.js";
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
  const fields = fieldErrorsOf(error);
  return new RequestError("invalid", summaryOf(fields), { fields });
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
