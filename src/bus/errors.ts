import { WarrenError } from "../lib/errors.js";

/** Something on the bus did not work. Not for what a handler at the other end found wrong: that is a `CallError`. */
export abstract class BusError extends WarrenError {}

/** The broker refused a message, for example because its queue is full. It was not taken. */
export class PublishRejectedError extends BusError {
  readonly code = "PUBLISH_REJECTED";
}

/** No queue takes messages with this address. It was not taken. */
export class PublishReturnedError extends BusError {
  readonly code = "PUBLISH_RETURNED";
}

/**
 * The channel was lost before the broker confirmed: the message may have been taken or not. Whoever sends it
 * again must be prepared for both.
 */
export class PublishUnknownError extends BusError {
  readonly code = "PUBLISH_UNKNOWN";
}

/** There was no room or no connection in time, or the sender gave up waiting. It was not sent. */
export class PublishAbandonedError extends BusError {
  readonly code = "PUBLISH_ABANDONED";
}

/** The message cannot be put into AMQP, for example because its headers are too large. It was not sent. */
export class PublishUnencodableError extends BusError {
  readonly code = "PUBLISH_UNENCODABLE";
}

/** The bus was stopped before it had started. */
export class BusStoppedError extends BusError {
  readonly code = "BUS_STOPPED";
}

/** What may be wrong with a call, as it goes over the wire. */
export const CALL_ERROR_CODES = [
  "invalid",
  "not-found",
  "forbidden",
  "conflict",
  "unavailable",
  "timeout",
  "cancelled",
  "internal",
] as const;
export type CallErrorCode = (typeof CALL_ERROR_CODES)[number];

/** A call did not bring a result: refused or failed at the other end, or nobody answered. */
export class CallError extends BusError {
  readonly code: CallErrorCode;

  constructor(code: CallErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The connection was lost while an answer was awaited: whether the other side did anything is not known. */
export class AnswerLostError extends CallError {
  constructor(message: string, options?: ErrorOptions) {
    super("unavailable", message, options);
  }
}

/** The code under which an error goes over the wire: its own if that is one of the list, else `internal`. */
export function callErrorCodeOf(error: unknown): CallErrorCode {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  return CALL_ERROR_CODES.find((known) => known === code) ?? "internal";
}
