import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";

/** Ticks a second in /proc/PID/stat: the same on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;
const SAMPLE_MS = 250;

/**
 * Measures processes over a stretch of time: CPU seconds (user and system, all threads) and the largest
 * resident set. Reads /proc; a process that is not on this machine, or not ours to look at, has no numbers.
 */
export class ProcessMeter {
  #subjects = new Map();
  #machineFrom = machineTicks();
  #timer;

  /** @param {readonly { name: string, pid: number | undefined }[]} subjects processes to be measured from now on */
  constructor(subjects) {
    for (const { name, pid } of subjects) this.add(name, pid);
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS).unref();
  }

  add(name, pid) {
    const from = pid === undefined ? undefined : cpuSecondsOf(pid);
    if (pid !== undefined) resetPeak(pid);
    this.#subjects.set(name, { pid, from, to: from, peakBytes: 0 });
    this.#sampleOne(this.#subjects.get(name));
  }

  /** CPU seconds that a process had used when its measurement began. */
  cpuSecondsBefore(name) {
    return this.#subjects.get(name)?.from;
  }

  /**
   * Ends the measurement.
   * @returns {{ processes: Record<string, { cpuSeconds?: number, peakRssBytes?: number }>, otherCores: number }}
   *   `otherCores`: how many of the machine's cores did something else meanwhile
   */
  stop() {
    clearInterval(this.#timer);
    this.#sample();
    const processes = {};
    let measured = 0;
    for (const [name, { from, to, peakBytes }] of this.#subjects) {
      const known = from !== undefined && to !== undefined;
      if (known) measured += to - from;
      processes[name] = known ? { cpuSeconds: to - from, peakRssBytes: peakBytes } : {};
    }
    const { busy, all, cores } = machineTicks();
    const elapsed = Math.max(1, (all - this.#machineFrom.all) / cores);
    const others = busy - this.#machineFrom.busy - measured * TICKS_PER_SECOND;
    return { processes, otherCores: Math.max(0, others / elapsed) };
  }

  #sample() {
    for (const subject of this.#subjects.values()) this.#sampleOne(subject);
  }

  #sampleOne(subject) {
    if (subject.pid === undefined) return;
    // One that has ended keeps what was last seen of it.
    subject.to = cpuSecondsOf(subject.pid) ?? subject.to;
    subject.peakBytes = Math.max(subject.peakBytes, peakRssOf(subject.pid) ?? 0);
  }
}

function cpuSecondsOf(pid) {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // The command's name, in parentheses, may hold anything: fields count from after it.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function peakRssOf(pid) {
  const match = /^VmHWM:\s+(\d+) kB/m.exec(readProc(`/proc/${pid}/status`) ?? "");
  return match === null ? undefined : Number(match[1]) * 1_024;
}

/** Makes the kernel count the peak of a process from here on; servers have a life before the run. */
function resetPeak(pid) {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // Not ours: then its peak is that of its whole life.
  }
}

function machineTicks() {
  const lines = readFileSync("/proc/stat", "utf8").split("\n");
  const ticks = lines[0].trim().split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((sum, value) => sum + value, 0);
  const [, , , idle, iowait] = ticks;
  return { all, busy: all - idle - iowait, cores: lines.filter((line) => /^cpu\d/.test(line)).length };
}

/**
 * The process that listens on a port of this machine, if it can be told and is the program that is expected:
 * what listens for a container is only its proxy.
 */
export function pidListeningOn(port, program) {
  const inodes = new Set();
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    for (const line of (readProc(table) ?? "").split("\n").slice(1)) {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      const isListening = state === "0A";
      if (isListening && Number.parseInt(local.split(":")[1], 16) === port) inodes.add(`socket:[${inode}]`);
    }
  }
  if (inodes.size === 0) return undefined;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      for (const descriptor of readdirSync(`/proc/${pid}/fd`)) {
        if (!inodes.has(readlinkSync(`/proc/${pid}/fd/${descriptor}`))) continue;
        if (readProc(`/proc/${pid}/comm`)?.trim() === program) return Number(pid);
      }
    } catch {
      // Gone meanwhile, or not ours to look at.
    }
  }
  return undefined;
}

function readProc(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
