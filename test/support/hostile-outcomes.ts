import { expect } from "vitest";
import type { ExpectedEnd } from "./hostile/behaviour.js";

/** How a URL ended, with what it brought. */
export type Outcome = {
  readonly state: string;
  readonly reason: string | undefined;
  readonly statusCode: number | undefined;
  readonly attempts: number;
  readonly error: string | undefined;
  readonly files: number;
  /** The title that its item has, if it has one. */
  readonly title: string | undefined;
};

/** Fails where a URL ended otherwise than the table has it. */
export function expectEnd(outcome: Outcome | undefined, { error, ...rest }: ExpectedEnd): void {
  expect(outcome).toMatchObject({
    ...rest,
    ...(error !== undefined && { error: expect.stringMatching(error) }),
    ...(rest.state === "done" && { reason: undefined, error: undefined }),
  });
}
