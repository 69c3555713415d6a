import { defineConfig } from "vitest/config";

// Two cores, and a hub beside them: one worker is quick enough, and no test waits for another one's.
export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"], execArgv: ["--expose-gc"] } },
      {
        test: {
          name: "live",
          include: ["test/live/**/*.test.ts"],
          globalSetup: ["test/live/hub.ts"],
          // The hub is on this machine, whatever stands before others.
          env: { no_proxy: "127.0.0.1" },
          testTimeout: 40_000,
          hookTimeout: 40_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
