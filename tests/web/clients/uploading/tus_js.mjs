// Uploads a file as tus-js-client does, however often the line breaks: the folder of npm's packages, the endpoint, the
// file, the key, bytes of a part (0: all in one), how often it is tried.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, endpoint, path, key, part, tries] = process.argv.slice(2);
const tus = createRequire(`${modules}/`)("tus-js-client");
const upload = new tus.Upload(readFileSync(path), {
  endpoint,
  chunkSize: Number(part) || Infinity,
  metadata: { key, filetype: "application/x-test" },
  retryDelays: Array(Number(tries)).fill(100),
  onError(error) {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess() {},
});
upload.start();
