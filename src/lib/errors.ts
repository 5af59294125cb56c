/**
 * The root of every error Warren throws on purpose. `code` is stable and is what callers branch on, what
 * the HTTP API and dead letters show; `message` says what failed, on what, with which numbers.
 */
export abstract class WarrenError extends Error {
  abstract readonly code: string;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/**
 * A flag, an environment variable or a configuration file is wrong, and trying again cannot mend it. The
 * programs end with exit code 2. Not for a server that is merely away.
 */
export class ConfigError extends WarrenError {
  readonly code = "CONFIG";
}

/** The message of anything that was thrown, for logs and records. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
