import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/**
 * Every metric of a process, under the names that dashboards and alerts rely on. One instance a process
 * (or a test); labels are bounded sets, never URLs or ids.
 */
export class Metrics {
  readonly registry = new Registry();
  readonly pages = new Counter({
    name: "warren_pages_total",
    help: "URLs that reached an end, by that end (done, failed, skipped)",
    labelNames: ["status"],
    registers: [this.registry],
  });
  readonly items = new Counter({
    name: "warren_items_total",
    help: "Items stored",
    registers: [this.registry],
  });
  readonly fetchDuration = new Histogram({
    name: "warren_fetch_duration_seconds",
    help: "Time from the start of a fetch to the end of its body",
    buckets: [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [this.registry],
  });
  readonly frontierUrls = new Gauge({
    name: "warren_frontier_urls",
    help: "URLs of running and paused crawls, by state",
    labelNames: ["state"],
    registers: [this.registry],
  });
  readonly tasksActive = new Gauge({
    name: "warren_tasks_active",
    help: "Tasks in this worker's hands",
    registers: [this.registry],
  });
  readonly callDuration = new Histogram({
    name: "warren_rpc_duration_seconds",
    help: "Time from sending a call to its reply",
    labelNames: ["type"],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2.5, 10, 30],
    registers: [this.registry],
  });
  readonly busReconnects = new Counter({
    name: "warren_bus_reconnects_total",
    help: "Connections to RabbitMQ that were lost and made again",
    registers: [this.registry],
  });
  readonly eventsDropped = new Counter({
    name: "warren_events_dropped_total",
    help: "Events that were not sent: RabbitMQ was away, it did not keep up (full), or they cannot be written as JSON",
    labelNames: ["reason"],
    registers: [this.registry],
  });
  readonly eventsMissed = new Counter({
    name: "warren_events_missed_total",
    help: "Messages of events that were sent and did not reach this process: it did not keep up, or was away",
    registers: [this.registry],
  });
  readonly nodes = new Gauge({
    name: "warren_nodes",
    help: "Nodes, by status",
    labelNames: ["status"],
    registers: [this.registry],
  });
  readonly deadLetters = new Counter({
    name: "warren_dead_letters_total",
    help: "Messages given up, by reason",
    labelNames: ["reason"],
    registers: [this.registry],
  });
  readonly deliveries = new Counter({
    name: "warren_deliveries_total",
    help: "Posts to receivers, by outcome: delivered, postponed (not taken, to be tried again), failed (given up)",
    labelNames: ["outcome"],
    registers: [this.registry],
  });
  readonly dispatchLag = new Histogram({
    name: "warren_dispatch_lag_seconds",
    help: "Time from when a URL might have been dispatched to when it was",
    buckets: [0.001, 0.01, 0.05, 0.25, 1, 5, 30],
    registers: [this.registry],
  });

  /** Adds the process's own metrics (CPU, memory, event loop lag); once a process. */
  collectProcessMetrics(): void {
    collectDefaultMetrics({ register: this.registry });
  }
}
