import { WarrenError } from "../lib/errors.js";

/** A command or call was refused; the code goes to the caller. Not for what fails while it is carried out. */
export class CommandError extends WarrenError {
  readonly code: "invalid" | "not-found" | "conflict" | "unavailable";

  constructor(code: CommandError["code"], message: string) {
    super(message);
    this.code = code;
  }
}
