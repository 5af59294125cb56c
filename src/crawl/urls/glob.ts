/** Whether a text is what the glob stands for. */
export type GlobMatcher = (text: string) => boolean;

/**
 * A matcher for a glob over the whole text, in which `*` stands for any run and everything else for itself.
 *
 * The pieces between stars are sought from left to right, each at its first place: if the glob matches at
 * all, it matches so. Nothing is ever tried again, so that no glob can be made to take long.
 */
export function compileGlob(glob: string): GlobMatcher {
  const pieces = glob.split("*");
  const first = pieces[0] ?? "";
  if (pieces.length === 1) return (text) => text === first;
  const last = pieces[pieces.length - 1] ?? "";
  const middle = pieces.slice(1, -1).filter((piece) => piece !== "");
  return (text) => {
    if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) {
      return false;
    }
    const end = text.length - last.length;
    let from = first.length;
    for (const piece of middle) {
      const found = text.indexOf(piece, from);
      if (found < 0) return false;
      from = found + piece.length;
    }
    return from <= end;
  };
}
