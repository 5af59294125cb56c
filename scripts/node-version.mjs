// Imported first by every program here, for what it does: an older Node would fail later, in words that help
// nobody. So nothing in this file, and nothing imported before it, may need a new Node.
const LEAST = [20, 19];

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < LEAST[0] || (major === LEAST[0] && minor < LEAST[1])) {
  process.stderr.write(
    `Node.js ${LEAST.join(".")} or newer is needed; this is ${process.versions.node}. Install a newer one from https://nodejs.org\n`,
  );
  process.exit(2);
}
