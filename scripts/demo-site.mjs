// The demo site: a little web site on loopback, with what real ones have, bad manners included.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

/** Sections, and their pages: name, title, and what they say, a paragraph each. */
const SECTIONS = {
  burrow: {
    title: "The burrow",
    about: "What lies under the ground, how it was dug, and why it still stands after a wet spring.",
    pages: [
      [
        "entrances",
        "Entrances",
        "A warren has many ways in. The more of them there are, the less a fox at one of them matters.",
        "Most are hidden under brambles. Two are in the open, for those who come in a hurry.",
      ],
      [
        "chambers",
        "Chambers",
        "Work goes on in many chambers at once, each of them small, warm and easy to leave.",
        "When one of them is lost, those who worked there begin anew in the next, with nothing but their paws.",
      ],
      [
        "runs",
        "Runs",
        "Runs join the chambers. What is carried through them arrives, even when one of them falls in.",
        "They are wide enough for one and a half rabbits; who carries something has the right of way.",
      ],
      [
        "stores",
        "Stores",
        "What must not be lost is kept in one dry place that everybody can find.",
        "Nothing goes in unless it was counted, and nothing that is there already is put there twice.",
      ],
      [
        "lookout",
        "The lookout",
        "Somebody always listens. When the lookout falls silent, another takes the place.",
        "One thump means a shadow, two mean a dog, and three mean that supper is ready.",
      ],
    ],
  },
  meadow: {
    title: "The meadow",
    about: "What grows above, who owns it, and how to move about in it without being a nuisance.",
    pages: [
      [
        "clover",
        "Clover",
        "Clover is taken leaf by leaf and never all at once, so that there is some tomorrow.",
        "The red kind is sweeter, the white kind lasts longer, and the kind with four leaves is a rumour.",
      ],
      [
        "paths",
        "Paths",
        "Those who walked a path before leave it marked, so that nobody walks it twice for nothing.",
        "A path that only goes round in a circle is marked as well, after the first time.",
      ],
      [
        "hedges",
        "Hedges",
        "A hedge says where the meadow ends. A well brought up rabbit stays on this side of it.",
        "There are gaps, of course. A gap is no invitation.",
      ],
      [
        "weather",
        "Weather",
        "When it rains hard one waits, a little longer each time, and tries again.",
        "After the third time one goes home and writes down that it rained.",
      ],
      [
        "neighbours",
        "Neighbours",
        "Each field is visited at the pace that its owner has asked for.",
        "Owners who put up a sign are thanked for it. Signs are read at the gate, before anything else.",
      ],
    ],
  },
  visitors: {
    title: "Visitors",
    about: "Who comes by, what they want, and what they are given.",
    pages: [
      [
        "hares",
        "Hares",
        "Hares arrive fast, ask for everything and leave before it is brought.",
        "They are asked to wait in line like everybody else.",
      ],
      [
        "moles",
        "Moles",
        "Moles come from below and have no notion of doors. They are good at finding what was forgotten.",
        "Their maps are in the library, as far as they can be read.",
      ],
      [
        "foxes",
        "Foxes",
        "A fox may look like a hedge, a stone, or a very large rabbit. It is told by its teeth.",
        "Names and clothes prove nothing; the first look at the thing itself does.",
      ],
      [
        "children",
        "School classes",
        "They come in May, in twos, and touch everything once.",
        "Afterwards all is counted, and it is always right, which nobody can explain.",
      ],
    ],
  },
  library: {
    title: "The library",
    about: "Papers, some of them to take away. Some were filed under the wrong name by a mole.",
    pages: [
      [
        "maps",
        "Maps",
        "Maps of the tunnels, the old ones and the new.",
        "Where they disagree, dig carefully.",
      ],
      [
        "almanacs",
        "Almanacs",
        "When to sow, when to reap, and when the moon is full.",
        "The forecast for the harvest is right every other year.",
      ],
      [
        "recipes",
        "Recipes",
        "Seventeen ways with dandelion, of which nine are good.",
        "The other eight are kept for the sake of completeness.",
      ],
      [
        "songs",
        "Songs",
        "Songs for digging, with a strong beat on the third stroke.",
        "The sheet has no ending in its name; sing until the tunnel is done.",
      ],
      [
        "letters",
        "Letters",
        "Letters that came back because nobody lived there any more.",
        "They are all kept, each with a note that says why.",
      ],
    ],
  },
};

/** The PDFs: where each is, what it says, and as what the server passes it off. */
const PDFS = [
  { path: "/library/tunnels.pdf", type: "application/pdf", title: "A map of the tunnels", lines: 40 },
  { path: "/library/almanac-2026.pdf", type: "application/pdf", title: "Almanac", lines: 120 },
  {
    path: "/library/dandelions.pdf",
    type: "application/pdf",
    title: "Seventeen ways with dandelion",
    lines: 17,
  },
  // Its name does not say that it is one.
  { path: "/library/songs/digging", type: "application/pdf", title: "Songs for digging", lines: 60 },
  // Neither does its type.
  { path: "/library/letters.bin", type: "application/octet-stream", title: "Letters", lines: 80 },
].map((pdf) => ({ ...pdf, body: pdfOf(pdf.title, pdf.lines) }));

const ROBOTS = "User-agent: *\nDisallow: /private/\n\nSitemap: ORIGIN/sitemap.xml\n";
const SLOW_MS = 2_000;

/**
 * Serves the site on loopback.
 * @param {{ port?: number }} [options]
 * @returns {Promise<{ url: string, pdfs: { path: string, sha256: string, bytes: number, body: Buffer }[], close: () => Promise<void> }>}
 */
export async function startDemoSite({ port = 0 } = {}) {
  const timers = new Set();
  const server = createServer((request, response) => {
    const origin = `http://127.0.0.1:${server.address().port}`;
    const send = (status, type, body, headers = {}) =>
      response
        .writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(body), ...headers })
        .end(body);
    const html = (body, status = 200) => send(status, "text/html; charset=utf-8", body);

    // A request target may also be `*` or a whole URL (RFC 9112, 3.2).
    if (!request.url.startsWith("/")) return html(layout("Not understood", "<p>Ask for a path.</p>"), 400);
    const { pathname } = new URL(`${origin}${request.url}`);
    const pdf = PDFS.find(({ path }) => path === pathname);
    const page = PAGES.get(pathname);
    if (pdf !== undefined) send(200, pdf.type, pdf.body);
    else if (page !== undefined) html(page);
    else if (pathname === "/robots.txt") send(200, "text/plain", ROBOTS.replace("ORIGIN", origin));
    else if (pathname === "/sitemap.xml") send(200, "application/xml", sitemapOf(origin));
    else if (pathname === "/slow") {
      const timer = setTimeout(() => {
        timers.delete(timer);
        html(layout("A slow page", "<p>This page took its time.</p>"));
      }, SLOW_MS);
      timers.add(timer);
    } else if (pathname === "/broken") html(layout("Broken", "<p>Something fell in.</p>"), 500);
    else if (pathname === "/home") send(301, "text/plain", "moved", { location: "/about" });
    else if (pathname.startsWith("/private/"))
      html(layout("Private", "<p>Robots were asked to stay out.</p>"));
    else html(layout("Not here", "<p>There is no such page.</p>"), 404);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    pdfs: PDFS.map(({ path, body }) => ({
      path,
      sha256: createHash("sha256").update(body).digest("hex"),
      bytes: body.length,
      body,
    })),
    async close() {
      for (const timer of timers) clearTimeout(timer);
      if (!server.listening) return;
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

const PAGES = pages();

function pages() {
  const made = new Map();
  const sections = Object.entries(SECTIONS);
  const links = (items) =>
    `<ul>${items.map(([to, text]) => `<li><a href="${to}">${text}</a></li>`).join("")}</ul>`;
  const toSections = sections.map(([name, { title }]) => [`/${name}/`, title]);
  made.set(
    "/",
    layout(
      "A warren, explained",
      `<p>A little site to crawl: ${sections.length} sections, some papers, and a few things that go wrong.</p>
${links([...toSections, ["/about", "About"], ["/home", "The old home page"], ["/slow", "A slow page"]])}`,
    ),
  );
  made.set(
    "/about",
    layout(
      "About",
      `<p>Made for trying out a crawler. Some of its links lead nowhere, on purpose.</p>
${links([
  ["/broken", "A broken page"],
  ["/nowhere", "A page that is gone"],
  ["/private/diary", "A diary"],
  ["/", "Home"],
])}`,
    ),
  );
  for (const [name, { title, about, pages: entries }] of sections) {
    const papers =
      name === "library" ? PDFS.map(({ path, title: text }) => [path, `${text} (to print)`]) : [];
    const list = entries.map(([slug, text]) => [`/${name}/${slug}`, text]);
    made.set(`/${name}/`, layout(title, `<p>${about}</p>${links([...list, ...papers, ["/", "Home"]])}`));
    entries.forEach(([slug, text, ...paragraphs], index) => {
      const next = entries[(index + 1) % entries.length];
      const paper = name === "library" ? PDFS[index] : undefined;
      const more = [
        [`/${name}/`, title],
        [`/${name}/${next[0]}`, `Next: ${next[1]}`],
      ];
      if (paper !== undefined) more.push([paper.path, `${paper.title} (to print)`]);
      // The same target under another spelling: a crawler should know it again.
      more.push([`/${name}/../${name}/${next[0]}#top`, "The same once more"]);
      made.set(
        `/${name}/${slug}`,
        layout(text, `${paragraphs.map((body) => `<p>${body}</p>`).join("\n")}\n${links(more)}`),
      );
    });
  }
  return made;
}

function layout(title, body) {
  const nav = Object.entries(SECTIONS).map(([name, section]) => `<a href="/${name}/">${section.title}</a>`);
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>${title}</title></head>
<body>
<nav><a href="/">Home</a> ${nav.join(" ")} <a href="/about">About</a></nav>
<h1>${title}</h1>
${body}
</body>
</html>
`;
}

function sitemapOf(origin) {
  const urls = [...PAGES.keys()].map((place) => `<url><loc>${origin}${place}</loc></url>`).join("");
  return `<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">${urls}</urlset>`;
}

/** A valid PDF 1.4 file of one page, the same each time (ISO 32000-1, 7.5). */
function pdfOf(title, lines) {
  const text = Array.from({ length: lines }, (_, index) => `(${title}, line ${index + 1}) Tj T*`).join("\n");
  const stream = `BT /F1 6 Tf 40 800 Td 6.5 TL\n${text}\nET`;
  const objects = [
    "<< /Type /Catalog /Pages 2 0 R >>",
    "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
    `<< /Length ${stream.length} >>\nstream\n${stream}\nendstream`,
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
  ];
  let file = "%PDF-1.4\n";
  const offsets = objects.map((object, index) => {
    const offset = file.length;
    file += `${index + 1} 0 obj\n${object}\nendobj\n`;
    return offset;
  });
  const table = offsets.map((offset) => `${String(offset).padStart(10, "0")} 00000 n \n`).join("");
  const size = objects.length + 1;
  const start = file.length;
  file += `xref\n0 ${size}\n0000000000 65535 f \n${table}trailer\n<< /Size ${size} /Root 1 0 R >>\nstartxref\n${start}\n%%EOF\n`;
  return Buffer.from(file, "latin1");
}

/** @returns {{ port: number }} */
function readArguments(args) {
  const { values } = parseArgs({ args, options: { port: { type: "string", default: "0" } } });
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65_535)
    throw new Error(`--port must be a whole number from 0 to 65535, not "${values.port}"`);
  return { port };
}

if (process.argv[1] === import.meta.filename) {
  let options;
  try {
    options = readArguments(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
  const { url, pdfs } = await startDemoSite(options);
  // One line of JSON; what is in the PDFs is for the caller to fetch.
  const list = pdfs.map(({ path, sha256, bytes }) => ({ path, sha256, bytes }));
  process.stdout.write(`${JSON.stringify({ url, pdfs: list })}\n`);
}
