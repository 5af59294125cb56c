import { createServer } from "node:net";

/** A loopback port that nothing listens on. */
export function freePort() {
  return listenOnce(0);
}

/** Whether nothing listens on that loopback port. */
export function isFree(port) {
  return listenOnce(port).then(
    () => true,
    () => false,
  );
}

function listenOnce(port) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      const { port: taken } = server.address();
      server.close(() => resolve(taken));
    });
  });
}
