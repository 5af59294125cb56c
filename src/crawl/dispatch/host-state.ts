import type { HostTrouble } from "./host-health.js";

/**
 * What is remembered of a host's lane, so that politeness survives the master that held it.
 * Instants in milliseconds since the epoch.
 */
export type HostState = {
  readonly host: string;
  readonly lastEndedAt?: number;
  /** How long the fetch took that ended then, in milliseconds. Noted where the delay follows it. */
  readonly lastFetchMs?: number;
  readonly backoffUntil?: number;
  /** Known once its robots.txt was read. */
  readonly crawlDelayMs?: number;
  /** Until when the bytes that were fetched keep its bandwidth busy. */
  readonly paidUntil?: number;
  /** What it was last known to suffer from; null when it has recovered. */
  readonly trouble?: HostTrouble | null;
};

/** What is told of a host at once, because more than one fetch of it may be under way. */
export type HostNews = Pick<HostState, "host" | "crawlDelayMs" | "backoffUntil">;

/** What is new about a host. Instants only grow, and debts add up: a late note takes nothing back. */
export type HostNote = Omit<HostState, "paidUntil"> & {
  /** Its bandwidth was used from an instant on, for so long, in milliseconds. */
  readonly debt?: { readonly from: number; readonly ms: number };
};

export interface HostStates {
  load(hosts: readonly string[]): Promise<readonly HostState[]>;
  note(notes: readonly HostNote[]): Promise<void>;
}

/** One note for each host. */
export function mergeHostNotes(notes: Iterable<HostNote>): readonly HostNote[] {
  const merged = new Map<string, HostNote>();
  for (const note of notes) {
    const known = merged.get(note.host);
    merged.set(note.host, known === undefined ? note : bothOf(known, note));
  }
  return [...merged.values()];
}

/** What is known of a host once it was noted. */
export function stateAfter(known: HostState | undefined, note: HostNote): HostState {
  const { debt, ...news } = note;
  const paidUntil =
    debt === undefined ? known?.paidUntil : Math.max(known?.paidUntil ?? debt.from, debt.from) + debt.ms;
  return {
    ...known,
    ...news,
    ...latestOf(known, note),
    ...(paidUntil !== undefined && { paidUntil }),
  };
}

function bothOf(one: HostNote, other: HostNote): HostNote {
  const { debt: first } = one;
  const { debt: second } = other;
  const debt =
    first === undefined || second === undefined
      ? (first ?? second)
      : // Never less than one after the other.
        { from: Math.max(first.from, second.from), ms: first.ms + second.ms };
  return { ...one, ...other, ...latestOf(one, other), ...(debt !== undefined && { debt }) };
}

function latestOf(
  one: HostNote | undefined,
  other: HostNote,
): Pick<HostState, "lastEndedAt" | "backoffUntil"> {
  const lastEndedAt = later(one?.lastEndedAt, other.lastEndedAt);
  const backoffUntil = later(one?.backoffUntil, other.backoffUntil);
  return {
    ...(lastEndedAt !== undefined && { lastEndedAt }),
    ...(backoffUntil !== undefined && { backoffUntil }),
  };
}

function later(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.max(one, other);
}
