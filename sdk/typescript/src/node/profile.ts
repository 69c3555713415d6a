/** The profiles that `acb login` keeps: hubs, and the keys to them. Only read here. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { failure } from "../core/error.js";
import { parseYaml, type Yaml } from "./yaml.js";

/** One of them. It holds a key. */
export interface Profile {
  readonly servers: readonly string[];
  /** The tenant's CA, as PEM. */
  readonly ca: string;
  readonly apiKey: string;
  /** The token of a ServiceAccount, in the place of a key. */
  readonly tokenFile: string;
}

export type Environment = Readonly<Record<string, string | undefined>>;

export class Profiles {
  private constructor(
    /** The name of the current one; empty where there is none. */
    readonly current: string,
    readonly byName: ReadonlyMap<string, { readonly [key: string]: Yaml }>,
  ) {}

  /** Where there is no file there are none. */
  static load(environment: Environment): Profiles {
    const file = pathOf(environment);
    let text = "";
    try {
      if (file !== undefined) text = readFileSync(file, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw failure("USAGE", `${file} can't be read as profiles: ${(error as Error).message}`);
    }
    try {
      const content = parseYaml(text);
      if (content === "") return new Profiles("", new Map());
      if (!isMapping(content)) throw new Error("no mapping");
      // An older version wrote them as contexts.
      const listed = content["profiles"] ?? content["contexts"] ?? [];
      const profiles = listed === "" ? [] : (listed as readonly Yaml[]);
      const named = profiles.map((profile) => {
        if (!isMapping(profile) || typeof profile["name"] !== "string") throw new Error("no profile");
        return [profile["name"], profile] as const;
      });
      return new Profiles(textOf(content["current"]), new Map(named));
    } catch {
      // Nothing of the file is said: it holds keys.
      throw failure("USAGE", `${file} can't be read as profiles: mend it, or remove it and log in again`);
    }
  }

  choose(name: string): Profile {
    const found = this.byName.get(name);
    if (found === undefined) {
      throw failure("USAGE", `profile ${JSON.stringify(name)} does not exist: \`acb profile list\` shows those that do, \`acb login\` makes one`);
    }
    if (found["cluster"] !== undefined && found["cluster"] !== "") {
      const what = "reaches its hub by port-forward, which `acb` alone does: give the hub's address as the server";
      throw failure("USAGE", `profile ${JSON.stringify(name)} ${what}`);
    }
    const servers = found["servers"] ?? [];
    return {
      servers: Array.isArray(servers) ? servers.map(textOf) : [],
      ca: textOf(found["ca"]),
      apiKey: textOf(found["apiKey"]),
      tokenFile: textOf(found["tokenFile"]),
    };
  }
}

function pathOf(environment: Environment): string | undefined {
  const { ACB_CONFIG, XDG_CONFIG_HOME, HOME } = environment;
  if (ACB_CONFIG) return ACB_CONFIG;
  if (XDG_CONFIG_HOME) return join(XDG_CONFIG_HOME, "acb", "config.yaml");
  return HOME ? join(HOME, ".config", "acb", "config.yaml") : undefined;
}

function isMapping(yaml: Yaml): yaml is { readonly [key: string]: Yaml } {
  return typeof yaml === "object" && !Array.isArray(yaml);
}

function textOf(yaml: Yaml | undefined): string {
  return typeof yaml === "string" ? yaml : "";
}
