import { WarrenError } from "../lib/errors.js";

/** The API refused what it was asked for, or could not be reached. Not for wrong usage: that is a `ConfigError`. */
export class ApiCallError extends WarrenError {
  readonly code = "API_CALL";
}
