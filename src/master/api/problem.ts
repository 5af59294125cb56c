import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import type { FieldError } from "../../lib/field-errors.js";
import { asRequestError, RequestError, type RequestErrorCode } from "../errors.js";

/** An error answer as RFC 9457 has it, with a code to branch on and the members at fault. */
export type Problem = {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: RequestErrorCode;
  readonly errors?: readonly FieldError[];
  readonly requestId: string;
};

export const PROBLEM_TYPE = "application/problem+json; charset=utf-8";

const STATUS: Readonly<Record<RequestErrorCode, number>> = {
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  "not-found": 404,
  "method-not-allowed": 405,
  "not-acceptable": 406,
  conflict: 409,
  "too-large": 413,
  "unsupported-media-type": 415,
  "key-reused": 422,
  internal: 500,
  unavailable: 503,
  timeout: 504,
  cancelled: 503,
};

const TITLE: Readonly<Record<RequestErrorCode, string>> = {
  invalid: "The request is not valid",
  unauthorized: "A token is needed",
  forbidden: "Not allowed",
  "not-found": "Not found",
  "method-not-allowed": "Method not allowed",
  "not-acceptable": "Not available in that form",
  conflict: "Not possible in the present state",
  "too-large": "The request is too large",
  "unsupported-media-type": "The body is of a type that is not taken here",
  "key-reused": "The idempotency key belongs to another request",
  internal: "Internal error",
  unavailable: "Not available just now",
  timeout: "No answer in time",
  cancelled: "Cancelled",
};

/** Answers with the problem that `thrown` is. What nobody foresaw is logged, and its text kept inside. */
export function sendProblem(thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = ofServer(thrown) ?? asRequestError(thrown);
  const status = STATUS[error.code];
  if (error.code === "internal") request.log.error({ err: thrown, requestId: request.id }, "request failed");
  if (status === 401) reply.header("www-authenticate", 'Bearer realm="warren"');
  if (status === 503) reply.header("retry-after", "2");
  const problem: Problem = {
    type: `urn:warren:problem:${error.code}`,
    title: TITLE[error.code],
    status,
    detail: error.message,
    code: error.code,
    ...(error.fields.length > 0 ? { errors: error.fields } : {}),
    requestId: request.id,
  };
  return reply.code(status).type(PROBLEM_TYPE).send(JSON.stringify(problem));
}

/** The server's own complaints, put into the same words as ours. */
function ofServer(thrown: unknown): RequestError | undefined {
  if (!(thrown instanceof Error)) return undefined;
  const { code, statusCode } = thrown as Partial<FastifyError>;
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") {
    return new RequestError("unsupported-media-type", "send the body as application/json");
  }
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") {
    return new RequestError("too-large", "the body is larger than this server takes");
  }
  const isTheirs = code?.startsWith("FST_ERR_") === true && statusCode !== undefined && statusCode < 500;
  return isTheirs ? new RequestError("invalid", thrown.message, { cause: thrown }) : undefined;
}
