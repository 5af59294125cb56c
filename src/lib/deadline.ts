import type { Service } from "./service.js";

/**
 * A service whose start must be over in time.
 * @param timeoutMs longest time for its start; 0 waits for ever
 */
export function withDeadline(service: Service, timeoutMs: number, what: string): Service {
  if (timeoutMs === 0) return service;
  return {
    name: service.name,
    stop: () => service.stop(),
    async start() {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new Error(`${what} could not be reached within ${timeoutMs} ms`)),
          timeoutMs,
        );
      });
      try {
        await Promise.race([service.start(), late]);
      } finally {
        clearTimeout(timer);
      }
    },
  };
}
