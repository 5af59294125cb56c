export type { BusDeps, BusOptions } from "./bus.js";
export { Bus } from "./bus.js";
export type { Stop } from "./call-server.js";
export type {
  AnyCalls,
  CallContext,
  CallDefinition,
  CallTable,
  Handlers,
  HandlersOf,
} from "./call-table.js";
export type { BroadcastCallOptions, CallOptions, Gathered, NodeAnswer } from "./caller.js";
export type { Calls, CallTables } from "./calls.js";
export type { Identity } from "./connection.js";
export type {
  ArchivedLetter,
  DeadLetter,
  DeadLetterArchive,
  DeadLetterReport,
  DeadLetters,
} from "./dead-letters.js";
export { AGAIN_HEADER } from "./dead-letters.js";
export type { BusError, CallErrorCode } from "./errors.js";
export { CALL_ERROR_CODES, CallError, PublishReturnedError } from "./errors.js";
export type { BusEvent, EventHandler, Events, Unsubscribe } from "./events.js";
export type { ItemMessage, ItemStream } from "./item-stream.js";
export type { DeadLetterReason, ExternalTask, ParsedTask } from "./messages.js";
export { CANCEL_CALL, DEAD_LETTER_REASONS, externalTask, parseExternalTask } from "./messages.js";
export type { NodeClaim } from "./node-claim.js";
export type { PublishOutcome } from "./publisher.js";
export type { BusRole, Rights } from "./rights.js";
export { BUS_ROLES, rightsOf } from "./rights.js";
export type { SecurityOptions } from "./security.js";
export { TaskQueues } from "./task-queues.js";
export type { TopologyOptions } from "./topology.js";
export { Names } from "./topology.js";
export type { Consumer, DeliveryOutcome, TaskMessage } from "./work-queue.js";
export { TaskDelivery, WorkQueue } from "./work-queue.js";
