import { HelpRequested } from "./config.js";
import { ConfigError, messageOf } from "./errors.js";

/**
 * Runs a program and ends the process with its exit code: 0 when it is done; 1 when it failed at run time; 2
 * when its usage or configuration is wrong, which trying again cannot mend.
 */
export async function main(run: () => Promise<void>): Promise<never> {
  try {
    await run();
  } catch (error) {
    if (error instanceof HelpRequested) {
      process.stdout.write(error.message);
      process.exit(0);
    }
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(error instanceof ConfigError ? 2 : 1);
  }
  process.exit(0);
}
