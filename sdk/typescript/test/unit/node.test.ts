import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Metadata, type ServiceError } from "@grpc/grpc-js";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { afterAll, describe, expect, it, onTestFinished, vi } from "vitest";

import { AuthService } from "../../src/gen/acb/v1/auth_pb.js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "../../src/gen/google/rpc/error_pb.js";
import { find } from "../../src/node/config.js";
import { connect } from "../../src/node/connect.js";
import { GrpcChannel, statusOf } from "../../src/node/grpc.js";
import { Profiles } from "../../src/node/profile.js";
import { NodeReplicas, normal } from "../../src/node/replicas.js";
import { parseYaml } from "../../src/node/yaml.js";

const folder = mkdtempSync(join(tmpdir(), "acb-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const KEY = "acb_0123_secret";
const ca = file("ca.crt", "CA");
const key = file("key", `${KEY}\n`);
const token = file("token", "jwt");
const config = file(
  "config.yaml",
  `current: b
profiles:
- name: a
  servers:
  - https://127.0.0.1:1
  - https://127.0.0.1:2
  ca: |
    -----BEGIN CERTIFICATE-----
    AAAA
    -----END CERTIFICATE-----
  apiKey: ${KEY}
  tenant: acme
- name: b
  servers: ["x"]
`.replace('["x"]', "\n  - hub:1"),
);
const nowhere = join(folder, "nowhere");

describe("where the hub is", () => {
  it("comes from arguments, then the environment, then a profile, then the pod", () => {
    const environment = { ACB_SERVER: "env:1, env:2", ACB_CA_FILE: ca, ACB_API_KEY_FILE: key, ACB_CONFIG: config };
    expect(find({ server: "arg:1" }, environment, nowhere)).toMatchObject({ servers: ["arg:1"], ca: "CA", credential: { kind: "apiKey" } });
    expect(find({}, environment, nowhere).servers).toEqual(["env:1", "env:2"]);
    expect(find({ tokenFile: token }, environment, nowhere).credential).toMatchObject({ kind: "subjectToken", name: token });
    const a = find({}, { ACB_CONFIG: config, ACB_PROFILE: "a" }, nowhere);
    expect(a).toMatchObject({ servers: ["https://127.0.0.1:1", "https://127.0.0.1:2"] });
    expect(a.ca).toBe("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    expect(find({ profile: "a" }, environment, nowhere).servers).toHaveLength(2);
    const pod = join(folder, "pod");
    mkdirSync(pod);
    for (const [name, text] of [["server", "pod:1\n"], ["ca.crt", "PODCA"], ["token", "jwt"]] as const) writeFileSync(join(pod, name), text);
    expect(find({}, { ACB_CONFIG: nowhere }, pod)).toMatchObject({ servers: ["pod:1"], ca: "PODCA", credential: { kind: "subjectToken" } });
    expect(find({}, { ACB_CONFIG: nowhere, ACB_SERVER: "env:1" }, pod)).toMatchObject({ servers: ["env:1"], ca: "PODCA" });
  });

  it("is said to be unknown, or doubly said", () => {
    expect(() => find({}, {}, nowhere)).toThrow(/no server .*, no CA .*, no credential/);
    expect(() => find({ server: "x", systemRoots: true }, {}, nowhere)).toThrow(/there is no credential/);
    expect(() => find({ apiKey: KEY, apiKeyFile: key }, {}, nowhere)).toThrow("apiKey and apiKeyFile");
    expect(() => find({}, { ACB_API_KEY_FILE: key, ACB_TOKEN_FILE: token }, nowhere)).toThrow("ACB_API_KEY_FILE and ACB_TOKEN_FILE");
    expect(() => find({ profile: "a", server: "x" }, { ACB_CONFIG: config }, nowhere)).toThrow("beside it");
    expect(() => find({ profile: "c" }, { ACB_CONFIG: config }, nowhere)).toThrow('profile "c" does not exist');
    expect(() => find({ caFile: nowhere }, {}, nowhere)).toThrow(`the CA, ${nowhere}: ENOENT`);
  });

  it("is asked for by the right names", async () => {
    await expect(connect({ servers: "x" } as never)).rejects.toMatchObject({ reason: "USAGE", message: 'connect has no "servers": is "server" meant?' });
    await expect(connect({ api_key: "x" } as never)).rejects.toThrow('is "apiKey" meant?');
  });

  it("is not said with a key where a file can't be read", () => {
    const broken = file("broken.yaml", `profiles:\n- name: a\n  apiKey: &x ${KEY}\n`);
    expect(() => Profiles.load({ ACB_CONFIG: broken })).toThrow(/can't be read as profiles: mend it/);
    expect(() => Profiles.load({ ACB_CONFIG: broken })).not.toThrow(KEY);
    const forwarded = file("forwarded.yaml", "contexts:\n- name: a\n  cluster:\n    context: kind\n");
    expect(() => find({ profile: "a" }, { ACB_CONFIG: forwarded }, nowhere)).toThrow("port-forward");
    expect(Profiles.load({}).byName.size).toBe(0);
  });

  it("reads endpoints as people write them", () => {
    for (const text of ["hub", "hub:8443", "https://hub", "https://hub:8443/", " hub:8443 "]) expect(normal(text)).toBe("https://hub:8443");
    expect(normal("[::1]:9000")).toBe("https://[::1]:9000");
    expect(normal("https://hub:443")).toBe("https://hub:443");
    for (const text of ["http://hub", "hub/path", "", "a b", "hub:99999", "user@hub", "a:b:c"]) expect(() => normal(text)).toThrow("is not an endpoint");
    expect(() => new NodeReplicas([], { ca: "", systemRoots: false })).toThrow("no endpoint");
    expect(() => new NodeReplicas(["hub"], { ca: "no pem", systemRoots: false })).toThrow("holds no certificate");
    const pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    expect(() => new NodeReplicas(["hub"], { ca: pem, systemRoots: false })).toThrow("the CA can't be used");
  });
});

describe("YAML", () => {
  it("is read as acb writes it", () => {
    const text = 'a: 1 # one\n"b c": "x\\n#y"\nd: \'it\'\'s\'\nlist:\n  - x\n  - k: v\n    l: w\nempty:\nnone: []\nfolded: >-\n  a\n  b\n';
    expect(parseYaml(text)).toEqual({ a: "1", "b c": "x\n#y", d: "it's", list: ["x", { k: "v", l: "w" }], empty: "", none: "", folded: "a b" });
    expect(parseYaml("")).toBe("");
  });

  it("that is something else is refused, and ends", () => {
    for (const text of ["a", "a: {b: c}", "a: &x y", "a: *x", "a: !!str x", "a: 1\na: 2", "a: 'x", "\ta: 1", "a: 1\n  b: 2", "- - x", "a: |\n  x\n b"]) {
      expect(() => JSON.stringify(parseYaml(text)), text).toThrow("not of the form");
    }
    let deep = "";
    for (let depth = 0; depth < 100; depth += 1) deep += `${"  ".repeat(depth)}a:\n`;
    expect(() => parseYaml(`${deep}${"  ".repeat(100)}a: 1`)).toThrow("not of the form");
  });
});

describe("a status", () => {
  const error = (code: number, details: string, metadata = new Metadata()) => Object.assign(new Error(details), { code, details, metadata }) as ServiceError;

  it("has its reason from the details", () => {
    const metadata = new Metadata();
    const details = [
      anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "RATE_LIMIT_EXCEEDED", domain: "acb.dev" })),
      anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: { seconds: 2n, nanos: 500_000_000 } })),
    ];
    metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code: 8, details }))));
    metadata.set("x-correlation-id", "c-1");
    const status = statusOf(error(8, "too many", metadata));
    expect(status).toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "RATE_LIMIT_EXCEEDED", retryAfter: 2_500, correlationId: "c-1", broke: false });
    const noise = new Metadata();
    noise.set("grpc-status-details-bin", Buffer.from([255, 255]));
    expect(statusOf(error(5, "no", noise))).toMatchObject({ code: "NOT_FOUND", reason: "", broke: false });
  });

  it("that the transport made is a broken connection", () => {
    for (const [code, details] of [[14, "x"], [13, "Received RST_STREAM with code 2 (Internal server error)"], [1, "Call cancelled"]] as const) {
      expect(statusOf(error(code, details)).broke, details).toBe(true);
    }
    for (const [code, details] of [[13, "internal"], [1, "the call was cancelled"], [16, "no token"]] as const) {
      expect(statusOf(error(code, details)).broke, details).toBe(false);
    }
  });
});

describe("a connection that was left", () => {
  it("is there for the calls that it has, and no longer", async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    let closed = 0;
    let answer: ((error: null, response: object) => void) | undefined;
    const makeUnaryRequest = (...all: unknown[]) => {
      answer = all.at(-1) as typeof answer;
      return { cancel: () => undefined };
    };
    const channel = new GrpcChannel({ makeUnaryRequest, close: () => (closed += 1) } as never);
    const call = () => channel.unary(AuthService.method.refreshToken, {}, {});
    const long = call();
    channel.retire(2_000, () => undefined);
    await vi.advanceTimersByTimeAsync(300_000);
    expect(closed).toBe(0);
    answer?.(null, { late: true });
    expect(await long).toEqual({ late: true });
    await vi.advanceTimersByTimeAsync(1_900);
    expect(closed).toBe(0);
    await vi.advanceTimersByTimeAsync(200);
    expect(closed).toBe(1);
    await expect(call()).rejects.toMatchObject({ code: "UNAVAILABLE", broke: true });
    const other = new GrpcChannel({ makeUnaryRequest, close: () => undefined } as never);
    const cut = other.unary(AuthService.method.refreshToken, {}, {});
    other.close();
    await expect(cut).rejects.toMatchObject({ code: "UNAVAILABLE", broke: true });
  });
});

describe("the package", () => {
  it("has types that a project with the plainest settings compiles", () => {
    const project = mkdtempSync(join(tmpdir(), "acb-types-"));
    onTestFinished(() => rmSync(project, { recursive: true }));
    const here = new URL("../../", import.meta.url).pathname;
    mkdirSync(join(project, "node_modules/@acb"), { recursive: true });
    symlinkSync(here, join(project, "node_modules/@acb/sdk"));
    writeFileSync(join(project, "package.json"), '{ "type": "module" }');
    writeFileSync(join(project, "a.ts"), 'import { connect } from "@acb/sdk";\nconst agent = await connect({ profile: "a" });\nagent.on<{ n: number }>("x", ({ n }) => n);\n');
    const flags = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "a.ts"];
    const ran = spawnSync(join(here, "node_modules/.bin/tsc"), flags, { cwd: project, encoding: "utf8" });
    expect([ran.stdout, ran.status]).toEqual(["", 0]);
  }, 120_000);
});

describe("the core", () => {
  it("knows neither Node nor gRPC, so that a browser can have it", () => {
    const core = new URL("../../src/core/", import.meta.url).pathname;
    for (const name of readdirSync(core)) {
      const text = readFileSync(join(core, name), "utf8");
      expect(text, name).not.toMatch(/from "node:|from "@grpc|from "\.\.\/node|\bBuffer\b|\bprocess\.\w/);
    }
  });
});
