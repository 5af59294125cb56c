export { Aftermath } from "./aftermath.js";
export { type CommittedGroup, Committer } from "./committer.js";
export { Replies } from "./replies.js";
export { TaskEvents } from "./task-events.js";
