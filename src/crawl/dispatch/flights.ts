import type { DispatchedUrl } from "../frontier.js";
import type { Lane, LaneSource } from "./lane.js";

/** A URL on its way: chosen, marked, sent, and not yet known to have ended. */
export type Flight = {
  readonly source: LaneSource;
  /** Whose window it is counted in. */
  readonly crew: string;
  /** Whether it can be asked who has it. */
  readonly isLocatable: boolean;
  /** When it was dispatched. */
  beganAt: number;
  /** Why it is to be ended without a fetch. */
  readonly givenUp: string | undefined;
  /** Its host has not answered lately. */
  readonly isDoubtful: boolean;
  /** The dispatch it flies under; empty until it is about to be marked. */
  token: string;
  /** Instant at which its silence is taken for a loss. */
  deadline: number;
  /** Instant since which its state in the frontier must be `dispatched`, unless it has ended. */
  settledAt: number | undefined;
  /** Nobody had it when that was last asked. */
  isMissing: boolean;
};

export type FlightEntry = readonly [id: string, flight: Flight];

/** Dispatches in the frontier that are not in flight here, seen twice in a row. */
export type Strangers = {
  /** Marked by us and never sent. */
  readonly unsent: readonly DispatchedUrl[];
  /** Those of a former holder. */
  readonly inherited: readonly DispatchedUrl[];
};

/** Time in flight from which on it is asked who has a URL, in milliseconds. */
const QUIET_FLIGHT_MS = 1_000;

/** Part of a window that may be taken by fetches from hosts that have not answered lately. */
const DOUBTFUL_SHARE = 0.25;

/** The crew of Warren's own workers. */
export const OWN_CREW = "";

/**
 * What is in flight, each URL holding a place in its lane and in its crew's window from the moment it is chosen.
 *
 *   take ──▶ (token) ──▶ settled ──▶ land
 *   adopt ─────────────────▲  │
 *                             ├──▶ ended unheard: the frontier has it no more under this dispatch
 *                             └──▶ lost: its deadline has passed, or nobody has it
 */
export class Flights {
  readonly #byId = new Map<string, Flight>();
  /** URLs in flight, by crew. */
  readonly #flying = new Map<string, number>();
  #doubtful = 0;
  /** How many may be, by crew. */
  readonly #windows = new Map<string, number>();
  /** Dispatches in the frontier, unknown here, when it was last compared. */
  #strangers = new Map<string, string>();

  get size(): number {
    return this.#byId.size;
  }

  has(id: string): boolean {
    return this.#byId.has(id);
  }

  get(id: string): Flight | undefined {
    return this.#byId.get(id);
  }

  setWindow(crew: string, window: number): void {
    this.#windows.set(crew, window);
  }

  windowOf(crew: string): number {
    return this.#windows.get(crew) ?? 0;
  }

  /** How many more URLs a crew may be given. */
  roomOf(crew: string): number {
    return (this.#windows.get(crew) ?? 0) - (this.#flying.get(crew) ?? 0);
  }

  hasRoom(crews: Iterable<string>): boolean {
    for (const crew of crews) if (this.roomOf(crew) > 0) return true;
    return false;
  }

  /**
   * How many more fetches may be tried of hosts that have not answered lately. Each may take as long as a time-out,
   * so all of them together get only a part of the window; else a few thousand dead hosts would fill it.
   */
  doubtfulRoomOf(crew: string): number {
    return Math.max(1, Math.floor(this.windowOf(crew) * DOUBTFUL_SHARE)) - this.#doubtful;
  }

  /** A URL was chosen: it holds its places from here on. */
  take(id: string, source: LaneSource, crew: string, now: number): void {
    const { lane } = source;
    const givenUp = lane.objection(now);
    this.#begin(id, {
      source,
      crew,
      isLocatable: crew === OWN_CREW,
      beganAt: now,
      givenUp,
      isDoubtful: givenUp === undefined && lane.isDoubtful,
      token: "",
      deadline: Number.POSITIVE_INFINITY,
      settledAt: undefined,
      isMissing: false,
    });
  }

  /** A URL was in flight before anyone here knew of it. */
  adopt(id: string, flight: Omit<Flight, "isMissing" | "givenUp" | "isDoubtful">): void {
    this.#begin(id, { ...flight, givenUp: undefined, isDoubtful: false, isMissing: false });
  }

  /** Its places are free again. Returns false when it is not, or no longer, what is in flight under this id. */
  land(id: string, flight: Flight): boolean {
    if (this.#byId.get(id) !== flight) return false;
    this.#end(id, flight);
    flight.source.inFlight -= 1;
    flight.source.lane.inFlight -= 1;
    return true;
  }

  /** What is in flight in these lanes is someone else's from now on. */
  forget(lanes: ReadonlySet<Lane>): void {
    for (const [id, flight] of this.#byId) {
      if (!lanes.has(flight.source.lane)) continue;
      this.#end(id, flight);
      flight.source.inFlight = 0;
    }
  }

  /** Those that must be in the frontier, as it was when asked at this instant, and are not: they have ended. */
  endedUnheard(dispatched: ReadonlyMap<string, DispatchedUrl>, askedAt: number): readonly FlightEntry[] {
    const ended: FlightEntry[] = [];
    for (const entry of this.#byId) {
      const [id, flight] = entry;
      if (flight.settledAt === undefined || flight.settledAt >= askedAt) continue;
      if (dispatched.get(id)?.dispatch.token !== flight.token) ended.push(entry);
    }
    return ended;
  }

  /**
   * What the frontier has as dispatched and is unknown here. Seen once, it may just have ended.
   * @param isOurs whether a dispatch token is one of ours
   */
  strangersAmong(dispatched: Iterable<DispatchedUrl>, isOurs: (token: string) => boolean): Strangers {
    const seen = new Map<string, string>();
    const unsent: DispatchedUrl[] = [];
    const inherited: DispatchedUrl[] = [];
    for (const url of dispatched) {
      const { token } = url.dispatch;
      if (this.#byId.has(url.id)) continue;
      if (this.#strangers.get(url.id) !== token) seen.set(url.id, token);
      else if (isOurs(token)) unsent.push(url);
      else inherited.push(url);
    }
    this.#strangers = seen;
    return { unsent, inherited };
  }

  /**
   * What is in flight and will not end: nobody reported it in its time; or nobody has it, twice in a row, since
   * a message may be on its way between broker and worker when that is asked.
   * @param locate resolves with the ids of all that some worker has, or with undefined when nobody can tell
   */
  async findLost(
    now: number,
    locate: (() => Promise<ReadonlySet<string> | undefined>) | undefined,
  ): Promise<readonly FlightEntry[]> {
    const quiet = [...this.#byId].filter(
      ([, flight]) => flight.settledAt !== undefined && now - flight.settledAt >= QUIET_FLIGHT_MS,
    );
    const located = quiet.length > 0 ? await locate?.() : undefined;
    const lost: FlightEntry[] = [];
    for (const entry of quiet) {
      const [id, flight] = entry;
      const wasMissing = flight.isMissing;
      flight.isMissing = flight.isLocatable && located !== undefined && !located.has(id);
      if (flight.deadline <= now || (wasMissing && flight.isMissing)) lost.push(entry);
    }
    return lost;
  }

  #begin(id: string, flight: Flight): void {
    this.#byId.set(id, flight);
    this.#flying.set(flight.crew, (this.#flying.get(flight.crew) ?? 0) + 1);
    if (flight.isDoubtful) this.#doubtful += 1;
    if (flight.givenUp === undefined) flight.source.lane.fetches += 1;
    flight.source.inFlight += 1;
    flight.source.lane.inFlight += 1;
  }

  #end(id: string, { crew, source, givenUp, isDoubtful }: Flight): void {
    this.#byId.delete(id);
    this.#flying.set(crew, (this.#flying.get(crew) ?? 0) - 1);
    if (isDoubtful) this.#doubtful -= 1;
    if (givenUp === undefined) source.lane.fetches -= 1;
  }
}
