import { z } from "zod";
import type { TraceContext } from "../lib/trace-context.js";

/** Everything that there is to know of one kind of call: what validates it, types it and documents it. */
export type CallDefinition = {
  /** What it does, in a sentence, for people. */
  readonly summary: string;
  /** An object; what is left out or unknown is for the schema to say. */
  readonly args: z.ZodType<Readonly<Record<string, unknown>>>;
  readonly result: z.ZodType;
  /** The answer comes in parts, each of them a `result`. @default false */
  readonly inParts?: boolean;
  /**
   * Asked twice, with the same message id, it does what it does when it is asked once. Then a connection that is
   * lost on the way is no reason to give up: it is asked again.
   */
  readonly isRepeatable: boolean;
};

/** Kinds of calls by their names. */
export type CallTable = Readonly<Record<string, CallDefinition>>;

/** The calls of a bus that was given no table: any name, any arguments, any answer. */
export type AnyCalls = Readonly<Record<string, typeof ANY_CALL>>;

export const ANY_CALL = {
  summary: "A call that is in no table.",
  args: z.record(z.string(), z.unknown()),
  result: z.unknown(),
  isRepeatable: false,
} satisfies CallDefinition;

/** Arguments as a caller writes them. */
export type ArgsOf<Table extends CallTable, Type extends keyof Table> = z.input<Table[Type]["args"]>;
/** What a call brings, or one part of it. */
export type ResultOf<Table extends CallTable, Type extends keyof Table> = z.output<Table[Type]["result"]>;

/** Who asks, how, and until when. */
export type CallContext = {
  readonly messageId: string | undefined;
  readonly replyTo: string | undefined;
  readonly correlationId: string | undefined;
  /** Aborted when the caller gives up or nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  /** Where the call belongs in a trace that its caller began. */
  readonly trace: TraceContext | undefined;
};

/**
 * What is done with calls and commands, by their type. What comes of it is the answer; an error with one of the
 * codes of calls keeps it, any other is `internal`.
 */
export type HandlersOf<Table extends CallTable> = {
  readonly [Type in keyof Table]: (
    args: z.output<Table[Type]["args"]>,
    context: CallContext,
  ) => Table[Type] extends { readonly inParts: true }
    ? AsyncIterable<z.input<Table[Type]["result"]>>
    : Promise<z.input<Table[Type]["result"]>>;
};

/** What is done with calls that are in no table. */
export type Handlers = HandlersOf<AnyCalls>;

/** Handlers, once the types have done their work. */
export type CheckedHandlers = Readonly<
  // biome-ignore lint/suspicious/noExplicitAny: arguments are what the schema of the same name has made of them
  Record<string, (args: any, context: CallContext) => Promise<unknown> | AsyncIterable<unknown>>
>;
