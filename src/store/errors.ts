import { WarrenError } from "../lib/errors.js";

/** Something that the store was asked for and did not do. `code` is the one that the API shows. */
export abstract class StoreError extends WarrenError {}

/** There is no such record. */
export class NotFoundError extends StoreError {
  readonly code = "not-found";

  constructor(what: string, id: string) {
    super(`there is no ${what} "${id}"`);
  }
}

/** The record is in a state from which the wanted one cannot be reached. Trying again changes nothing. */
export class ConflictError extends StoreError {
  readonly code = "conflict";
}

/** An idempotency key was used before, with another body. */
export class KeyReusedError extends StoreError {
  readonly code = "key-reused";

  constructor(key: string, crawl: string) {
    super(`the idempotency key "${key}" was used for crawl "${crawl}" with another body`);
  }
}

/** A cursor that no list of this kind gave out. */
export class CursorError extends StoreError {
  readonly code = "invalid";

  constructor() {
    super("cursor: is not one that this list gave out");
  }
}

/**
 * MongoDB did not answer in time, however often it was asked. Whether the write happened is not known; all
 * writes of the store may be made again. Not for a server that refuses: that is a `ConfigError`.
 */
export class StoreUnavailableError extends StoreError {
  readonly code = "unavailable";

  constructor(what: string, spentMs: number, options?: ErrorOptions) {
    super(`could not ${what}: MongoDB was not available for ${Math.round(spentMs)} ms`, options);
  }
}
