/**
 * What speaks against a URL: workers that were lost while they had it.
 *
 * When a worker is lost the broker hands out again all that it had taken, and most of that is innocent. So a lost
 * dispatch only makes a URL a suspect:
 *
 *   message comes again ──▶ suspect ──▶ a node notes that it begins it, and runs no other suspect meanwhile
 *                              ▲                  │ ended, or given back: the note goes
 *                              │                  │ comes again, the note still there
 *                              └── a death ◀──────┘
 *
 * A note that stays behind is a death that is charged to the URL. A worker that lost its connection and lives
 * vouches for what it had: those dispatches count for nothing, whether it says so before or after they come again.
 */
export type Suspicion = {
  /** Dispatches whose message came again. */
  readonly lost?: readonly LostDispatch[];
  /** Dispatches that a node noted to begin as a suspect, and of whose end nothing is known. */
  readonly begun?: readonly BegunDispatch[];
  /** Dispatches whose worker lives: the connection was lost, or they were given to someone else. */
  readonly vouched?: readonly string[];
};

/** Instants in milliseconds since the epoch. */
export type LostDispatch = { readonly token: string; readonly at: number };
export type BegunDispatch = LostDispatch & { readonly node: string };

/** A worker that was lost with a URL; which one is not known of the first. */
export type Death = { readonly node?: string; readonly at: number };

/** What a dispatched task says of a suspect. */
export type Suspect = {
  /** Workers that were lost after they had begun it as a suspect. */
  readonly crashes: number;
};

/** What a node hears that wants to begin a suspect. */
export type Beginning =
  | { readonly kind: "begun" }
  /** The dispatch is no longer the current one: it must not run. */
  | { readonly kind: "stale" }
  /** It ended so many workers that no other is risked. */
  | { readonly kind: "poison"; readonly deaths: readonly Death[] };

/** The URL as a suspect; undefined when nothing speaks against it. */
export function suspectOf(suspicion: Suspicion): Suspect | undefined {
  const { lost = [], vouched = [] } = suspicion;
  const crashes = crashesOf(suspicion).length;
  const isDoubtful = lost.some(({ token }) => !vouched.includes(token));
  return crashes > 0 || isDoubtful ? { crashes } : undefined;
}

/**
 * The deaths that are charged to a URL: those of workers that had begun it as a suspect and, once there is one of these,
 * the death through which it came under suspicion.
 * @param current the dispatch that is about to begin
 */
export function deathsOf(suspicion: Suspicion, current?: string): readonly Death[] {
  const { lost = [], begun = [], vouched = [] } = suspicion;
  const crashes = crashesOf(suspicion, current);
  if (crashes.length === 0) return [];
  const noted = new Set([...vouched, ...begun.map(({ token }) => token)]);
  const first = lost.find(({ token }) => !noted.has(token));
  const deaths: Death[] = crashes.map(({ node, at }) => ({ node, at }));
  return first === undefined ? deaths : [{ at: first.at }, ...deaths];
}

function crashesOf({ begun = [], vouched = [] }: Suspicion, current?: string): readonly BegunDispatch[] {
  return begun.filter(({ token }) => token !== current && !vouched.includes(token));
}

/**
 * Whether a suspect must run with nothing else in the worker's hands: the next death would be held against it, and
 * no other URL may have caused that.
 */
export function mustRunAlone({ crashes }: Suspect, maxCrashes: number): boolean {
  return crashes > 0 || maxCrashes <= 2;
}

/** The evidence in words. */
export function describeDeaths(deaths: readonly Death[]): string {
  const nodes = deaths.map(({ node }) => node ?? "one that is not known");
  return `${deaths.length} workers were lost that had it: ${nodes.join(", ")}`;
}
