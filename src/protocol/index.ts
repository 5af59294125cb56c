import type { Bus, Calls } from "../bus/index.js";
import { MASTER_CALLS, type MasterCalls } from "./master-calls.js";
import { NODE_CALLS, type NodeCalls } from "./node-calls.js";

export { asyncApiDocument } from "./asyncapi.js";
export { EVENTS, LOG_EVENT_LEVELS } from "./events.js";
export { foreignTask, NOTIFICATION_LEVELS, type NotificationLevel } from "./master-calls.js";
export { MAX_LOG_LINES, MAX_PROFILE_SECONDS, SYNC_STATES, type SyncState } from "./node-calls.js";
export type { MasterCalls, NodeCalls };

/** All that may be called. */
export const CALLS = { node: NODE_CALLS, master: MASTER_CALLS };

/** The bus of masters and workers. */
export type WarrenBus = Bus<NodeCalls, MasterCalls>;
export type WarrenCalls = Calls<NodeCalls, MasterCalls>;
