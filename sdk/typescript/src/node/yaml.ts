/**
 * Reads the YAML that `acb` writes: mappings and lists by indentation, plain and quoted scalars, literal blocks. What it does not know it refuses; it
 * never guesses. Scalars stay text.
 */

export type Yaml = string | readonly Yaml[] | { readonly [key: string]: Yaml };

interface Line {
  readonly indent: number;
  readonly text: string;
  readonly number: number;
}

/** Never with a part of the text: that may be a key. */
export class YamlError extends Error {
  constructor(line: number) {
    super(`line ${line} is not of the form that acb writes`);
  }
}

const KEY = /^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[A-Za-z_][\w./-]*):(?:\s+(.*))?$/;
const DEEPEST = 16;

export function parseYaml(text: string): Yaml {
  const reader = new Reader(text.split(/\r?\n/));
  const value = reader.value(0, 0);
  reader.expectEnd();
  return value;
}

class Reader {
  #at = 0;

  constructor(readonly lines: readonly string[]) {}

  value(indent: number, depth: number): Yaml {
    const line = this.#peek();
    if (line === undefined || line.indent < indent) return "";
    if (depth > DEEPEST) throw new YamlError(line.number);
    return line.text === "-" || line.text.startsWith("- ") ? this.#list(line.indent, depth) : this.#mapping(line.indent, depth);
  }

  expectEnd(): void {
    const line = this.#peek();
    if (line !== undefined) throw new YamlError(line.number);
  }

  #list(indent: number, depth: number): Yaml[] {
    const items: Yaml[] = [];
    for (let line = this.#peek(); line?.indent === indent && /^-( |$)/.test(line.text); line = this.#peek()) {
      const rest = line.text.slice(1).trimStart();
      if (KEY.test(rest)) {
        // The mapping begins on the line of its dash.
        items.push(this.#mapping(indent + line.text.length - rest.length, depth + 1, rest));
      } else {
        this.#at += 1;
        items.push(rest === "" ? this.value(indent + 1, depth + 1) : this.#scalar(rest, indent, line.number));
      }
    }
    return items;
  }

  #mapping(indent: number, depth: number, first?: string): Yaml {
    const entries = new Map<string, Yaml>();
    for (let line = this.#peek(); line !== undefined && (first !== undefined || line.indent === indent); line = this.#peek()) {
      const parts = KEY.exec(first ?? line.text);
      if (parts === null) throw new YamlError(line.number);
      first = undefined;
      this.#at += 1;
      const key = this.#scalar(parts[1] as string, indent, line.number);
      const rest = (parts[2] ?? "").trim();
      if (entries.has(key)) throw new YamlError(line.number);
      entries.set(key, rest === "" || rest.startsWith("#") ? this.#nested(indent, depth) : this.#scalar(rest, indent, line.number));
    }
    return Object.fromEntries(entries);
  }

  /** A list may stand as far left as its key. */
  #nested(indent: number, depth: number): Yaml {
    const line = this.#peek();
    const isList = line?.indent === indent && /^-( |$)/.test(line.text);
    return this.value(isList ? indent : indent + 1, depth + 1);
  }

  #scalar(text: string, indent: number, number: number): string {
    if (/^[|>][+-]?$/.test(text)) return this.#block(text, indent);
    if (text.startsWith('"')) {
      try {
        return String(JSON.parse(text.replace(/\s+#.*$/, "")));
      } catch {
        throw new YamlError(number);
      }
    }
    if (text.startsWith("'")) {
      const parts = /^'((?:[^']|'')*)'(?:\s+#.*)?$/.exec(text);
      if (parts === null) throw new YamlError(number);
      return (parts[1] as string).replaceAll("''", "'");
    }
    if (text === "[]" || text === "{}" || text === "null" || text === "~") return "";
    if (/^([[{&*!%@`|>]|- )/.test(text)) throw new YamlError(number);
    return text.replace(/\s+#.*$/, "");
  }

  #block(style: string, indent: number): string {
    const taken: string[] = [];
    let inner: number | undefined;
    for (; this.#at < this.lines.length; this.#at += 1) {
      const line = this.lines[this.#at] as string;
      const blank = line.trim() === "";
      const width = line.length - line.trimStart().length;
      if (!blank && width <= indent) break;
      if (!blank) inner ??= width;
      if (!blank && width < (inner ?? 0)) throw new YamlError(this.#at + 1);
      taken.push(blank ? "" : line.slice(inner ?? 0));
    }
    while (taken.at(-1) === "") taken.pop();
    const joined = taken.join(style.startsWith(">") ? " " : "\n");
    return style.endsWith("-") ? joined : `${joined}\n`;
  }

  /** The next line that says something. */
  #peek(): Line | undefined {
    for (; this.#at < this.lines.length; this.#at += 1) {
      const line = this.lines[this.#at] as string;
      const text = line.trim();
      if (text === "" || text.startsWith("#") || text === "---") continue;
      const indent = line.length - line.trimStart().length;
      if (line.slice(0, indent).includes("\t")) throw new YamlError(this.#at + 1);
      return { indent, text, number: this.#at + 1 };
    }
    return undefined;
  }
}
