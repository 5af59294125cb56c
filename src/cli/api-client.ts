import { z } from "zod";
import { messageOf } from "../lib/errors.js";
import { ApiCallError } from "./errors.js";

export type ApiClientOptions = {
  /** Where a master's API is, such as `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly token?: string;
};

const problem = z.looseObject({
  detail: z.string(),
  errors: z.array(z.looseObject({ field: z.string(), message: z.string() })).default([]),
});

/** What is sent, if it is more than a question. */
export type ApiBody = { readonly json: unknown } | { readonly type: string; readonly bytes: Uint8Array };

/** Asks a master. Every method @throws ApiCallError */
export class ApiClient {
  readonly #options: ApiClientOptions;

  constructor(options: ApiClientOptions) {
    this.#options = options;
  }

  /** @param path below `/api/v1` @returns what is answered, as JSON; undefined for nothing */
  async call(method: string, path: string, body?: ApiBody): Promise<unknown> {
    const { url, token } = this.#options;
    let response: Response;
    let text: string;
    try {
      response = await fetch(new URL(`/api/v1${path}`, url), {
        method,
        headers: {
          accept: "application/json",
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...(body !== undefined && { "content-type": "json" in body ? "application/json" : body.type }),
        },
        ...(body !== undefined && {
          body: "json" in body ? JSON.stringify(body.json) : new Uint8Array(body.bytes),
        }),
      });
      text = await response.text();
    } catch (error) {
      const why = error instanceof Error && error.cause !== undefined ? error.cause : error;
      throw new ApiCallError(`no answer from ${url}: ${messageOf(why)}`, { cause: error });
    }
    const answer = jsonOf(text);
    if (response.ok) return answer;
    const said = problem.safeParse(answer).data;
    const about = said?.detail ?? text.slice(0, 500);
    throw new ApiCallError(`${method} ${path}: ${response.status} ${about}`);
  }

  get(path: string): Promise<unknown> {
    return this.call("GET", path);
  }
}

function jsonOf(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
