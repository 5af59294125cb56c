import { WarrenError } from "../../lib/errors.js";
import type { FieldError } from "../../lib/field-errors.js";

/**
 * A spider's code cannot be taken as it is: an archive that is broken or hostile (`invalid`), or more of it than may be
 * (`too-large`). `path` is the file at fault, where there is one. Not for code that is taken and does not work.
 */
export class BundleError extends WarrenError {
  readonly code = "BUNDLE";
  readonly reason: "invalid" | "too-large";
  readonly path: string | undefined;
  /** The members of that file at fault, if it was read as JSON. */
  readonly faults: readonly FieldError[];

  constructor(
    reason: BundleError["reason"],
    message: string,
    options: ErrorOptions & { readonly path?: string; readonly faults?: readonly FieldError[] } = {},
  ) {
    const { path, faults = [], ...rest } = options;
    super(path === undefined ? message : `${shown(path)}: ${message}`, rest);
    this.reason = reason;
    this.faults = faults;
    this.path = path === undefined ? undefined : shown(path);
  }
}

/** A path as a message can hold it, whoever made it up. */
function shown(path: string): string {
  const plain = JSON.stringify(path.slice(0, 200)).slice(1, -1);
  return path.length > 200 ? `${plain}…` : plain;
}
