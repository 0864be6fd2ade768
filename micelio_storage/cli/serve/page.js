// The page of `micelio-storage serve`. Nothing is ever made from markup in strings: what names and files say is text.

const SESSIONS = "sessions/";
const TEXT_CHUNK = 256 * 1024; // bytes of a text that are fetched at a time
const LINES_APART = 400; // lines that the browser lays out together, if they are in sight
const RESUMABLE = 8 * 1024 * 1024; // bytes from which on an upload goes on where it was cut, and does not begin anew
const AT_ONCE = 3; // uploads, and sessions that are counted
const OVERSCAN = 8; // rows above and below what is in sight
const TRIES = 4; // of an upload whose connection breaks, with pauses of 1, 2 and 4 seconds

const $ = (id) => document.getElementById(id);

// -- words

const plain = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const sameYear = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const otherYear = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", year: "numeric" });
const exact = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

function size(bytes) {
  let unit = 0;
  while (bytes >= 999.5 && unit < 5) [bytes, unit] = [bytes / 1000, unit + 1];
  return `${unit ? short.format(bytes) : bytes} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
}

function age(text) {
  const then = new Date(text);
  const seconds = (Date.now() - then) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3570) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86400) return ago.format(-Math.round(seconds / 3600), "hour");
  if (seconds < 30 * 86400) return ago.format(-Math.floor(seconds / 86400), "day");
  return (then.getFullYear() === new Date().getFullYear() ? sameYear : otherYear).format(then);
}

const count = (number, what) => `${plain.format(number)} ${what}${number === 1 ? "" : "s"}`;
const last = (key) => key.replace(/\/$/, "").split("/").pop();
const inUrl = (key) => key.split("/").map(encodeURIComponent).join("/");
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value != null));

function usageText(usage) {
  if (!usage) return "";
  if (!usage.files) return "empty";
  const more = usage.more ? "more than " : "";
  return `${more}${count(usage.files, "file")} · ${size(usage.bytes)} · ${age(usage.modified)}`;
}

// -- elements

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else if (value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function icon(name, extra = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", `icon ${extra}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

function iconButton(name, label, act) {
  const button = element("button", { type: "button", className: "quiet", title: label, tabIndex: -1 }, icon(name));
  button.setAttribute("aria-label", label);
  button.addEventListener("click", (event) => (event.stopPropagation(), act()));
  return button;
}

function showEmpty(box, list, symbol, title, text, ...more) {
  list.hidden = true;
  box.hidden = false;
  box.replaceChildren(icon(symbol), element("b", {}, title), element("p", {}, text), ...more);
}

function say(text) {
  $("said").textContent = text;
}

let silent = 0;
function fail(error) {
  if (!(error instanceof Refusal)) console.error(error);
  if (!$("locked").hidden) return;
  $("failure").textContent = error.message;
  clearTimeout(silent);
  silent = setTimeout(() => $("failure").replaceChildren(), 8000);
}

const tried = (act) => (...given) => Promise.resolve(act(...given)).catch(fail);

function later(act) {
  let timer = 0;
  return () => (clearTimeout(timer), (timer = setTimeout(tried(act), 200)));
}

// -- asking the server

class Refusal extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Has it ended?");
  }
  if (reply.status === 401) lock();
  if (!reply.ok) throw new Refusal(sentence(await reply.text().catch(() => ""), reply.status), reply.status);
  return reply;
}

const askJson = async (path, options) => (await ask(path, options)).json();

function sentence(body, status) {
  try {
    const { detail } = JSON.parse(body);
    return `${detail[0].toUpperCase()}${detail.slice(1)}.`;
  } catch {
    return `The server answered ${status}.`;
  }
}

function lock() {
  $("panes").hidden = $("skip").hidden = true;
  $("locked").hidden = false;
  document.title = "Locked";
}

// -- a list of which only the rows in sight are elements

class List {
  constructor(box, { height, draw, open, keys = {} }) {
    Object.assign(this, { box, height, draw, open, keys, rows: [], active: -1, nodes: new Map(), scheduled: false });
    this.room = element("div", { className: "rows", role: box.getAttribute("role") === "treegrid" ? "rowgroup" : "none" });
    box.append(this.room);
    box.addEventListener("scroll", () => this.paintSoon(), { passive: true });
    new ResizeObserver(() => this.paintSoon()).observe(box);
    box.addEventListener("focus", () => this.move(Math.max(0, this.active), false));
    box.addEventListener("keydown", (event) => this.onKey(event));
    box.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (!row || event.target.closest("a, button")) return;
      this.move(Number(row.dataset.index), false);
      this.open(this.rows[this.active], this.active);
    });
  }

  set(rows) {
    const held = this.rows[this.active];
    this.rows = rows;
    if (held && rows[this.active] !== held) this.active = rows.indexOf(held);
    this.refresh();
  }

  refresh() {
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
    this.room.style.height = `${this.rows.length * this.height()}px`;
    this.paint();
  }

  paintSoon() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => ((this.scheduled = false), this.paint()));
  }

  paint() {
    if (this.box.hidden) return;
    const height = this.height();
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - OVERSCAN);
    const end = Math.min(this.rows.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / height) + OVERSCAN);
    for (const [index, node] of this.nodes) {
      if ((index >= first && index < end) || index === this.active) continue;
      node.remove();
      this.nodes.delete(index);
    }
    for (let index = first; index < end; index++) this.put(index, height);
    if (this.active >= 0 && this.active < this.rows.length) this.put(this.active, height);
    this.mark();
  }

  put(index, height) {
    if (this.nodes.has(index)) return;
    const node = this.draw(this.rows[index], index);
    node.classList.add("row");
    node.id = `${this.box.id}-${index}`;
    node.dataset.index = index;
    node.style.transform = `translateY(${index * height}px)`;
    this.nodes.set(index, node);
    const next = [...this.nodes.keys()].filter((other) => other > index).sort((a, b) => a - b)[0];
    this.room.insertBefore(node, next === undefined ? null : this.nodes.get(next));
  }

  mark() {
    for (const [index, node] of this.nodes) node.classList.toggle("active", index === this.active);
    if (this.nodes.has(this.active)) this.box.setAttribute("aria-activedescendant", `${this.box.id}-${this.active}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  move(index, scroll = true) {
    this.active = Math.max(-1, Math.min(index, this.rows.length - 1));
    const [top, height] = [this.active * this.height(), this.height()];
    if (scroll && top < this.box.scrollTop) this.box.scrollTop = top;
    if (scroll && top + height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + height - this.box.clientHeight;
    this.paint();
  }

  onKey(event) {
    if (event.target !== this.box || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height()) - 1);
    const to = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    const row = this.rows[this.active];
    if (to !== undefined) this.move(Math.max(0, Math.min(this.active + to, this.rows.length - 1)));
    else if ((event.key === "Enter" || event.key === " ") && row) this.open(row, this.active);
    else if (this.keys[event.key] && row) this.keys[event.key](row, this.active);
    else return;
    event.preventDefault();
  }
}

// -- where the reader is: #session=<id>&file=<key>, #all&file=<key>

const place = () => {
  const said = new URLSearchParams(location.hash.slice(1));
  const session = said.get("session");
  return { all: said.has("all"), session, file: said.get("file"), root: session ? `${SESSIONS}${session}/files/` : "" };
};

function go(there) {
  const said = query({ session: there.session, file: there.file });
  location.hash = there.all ? `all${there.file ? `&${said}` : ""}` : `${said}`;
}

let state = { read_only: true };
let shown = {}; // the place that is on the screen

async function arrive() {
  const here = place();
  const other = here.session !== shown.session || here.all !== shown.all;
  const file = here.file !== shown.file;
  shown = here;
  $("panes").dataset.view = here.file ? "preview" : here.session || here.all ? "files" : "sessions";
  $("panes").classList.toggle("looking", Boolean(here.file));
  $("all").toggleAttribute("aria-current", here.all);
  document.title = here.file ? last(here.file) : here.session ?? (here.all ? "All files" : "Sessions");
  if (other) await showRoot();
  if (other || file) await (here.file ? look(here.file) : closePreview());
  sessionList.refresh();
  treeList.refresh();
}

// -- sessions

const usages = new Map(); // of sessions, by id; a promise while it is asked for
let waiting = [];
let counting = 0;
let sessionsAsked = 0;

const sessionList = new List($("session-list"), {
  height: () => 60,
  draw(row, index) {
    if (row.more) {
      row.more();
      return element("div", { className: "waiting", role: "option" }, element("b", {}, "…"));
    }
    const usage = usages.get(row.id);
    if (usage === undefined) countSoon(row.id);
    const node = element("div", { role: "option" }, element("b", {}, row.id), element("span", {}, usageText(usage)));
    node.title = row.id;
    node.setAttribute("aria-selected", String(row.id === shown.session));
    node.setAttribute("aria-posinset", index + 1);
    node.setAttribute("aria-setsize", sessionList.rows.at(-1).more ? -1 : sessionList.rows.length);
    return node;
  },
  open: (row) => row.id && go({ session: row.id }),
  keys: { Delete: (row) => row.id && !state.read_only && tried(deleteSession)(row.id) },
});

function countSoon(id) {
  usages.set(id, null);
  waiting.push(id);
  countNext();
}

function countNext() {
  while (counting < AT_ONCE && waiting.length) {
    const id = waiting.pop(); // what came into sight last
    counting += 1;
    countOne(id).catch(fail).finally(() => ((counting -= 1), countNext()));
  }
}

async function countOne(id) {
  usages.set(id, await askJson(`/api/usage?${query({ prefix: `${SESSIONS}${id}/` })}`));
  const index = sessionList.rows.findIndex((row) => row.id === id);
  const node = sessionList.nodes.get(index);
  if (node) node.lastChild.textContent = usageText(usages.get(id));
  if (id === shown.session) showUsage();
}

async function loadSessions() {
  const prefix = $("session-search").value.trim();
  const asked = ++sessionsAsked;
  const rows = [];
  let loading = false;
  const next = async (cursor) => {
    if (loading) return;
    loading = true;
    const page = await askJson(`/api/sessions?${query({ prefix, cursor })}`).finally(() => (loading = false));
    if (asked !== sessionsAsked) return;
    if (rows.at(-1)?.more) rows.pop();
    rows.push(...page.sessions.map((id) => ({ id })));
    if (page.cursor) rows.push({ more: tried(() => next(page.cursor)) });
    showSessions(rows, prefix);
  };
  await next();
}

function showSessions(rows, prefix) {
  const [box, list] = [$("no-sessions"), $("session-list")];
  if (rows.length) [box.hidden, list.hidden] = [true, false];
  else if (prefix) showEmpty(box, list, "search", "No such session", `No id begins with “${prefix}”.`);
  else showEmpty(box, list, "mark", "No sessions yet", "A session is here as soon as a file is stored in it.", ...newSessionButton());
  sessionList.set(rows);
}

function newSessionButton() {
  if (state.read_only) return [];
  const button = element("button", { type: "button" }, icon("plus"), "New session");
  button.addEventListener("click", nameSession);
  return [button];
}

function nameSession() {
  $("session-id").value = `${new Date().toISOString().slice(0, 10)}-${Math.random().toString(36).slice(2, 6)}`;
  $("naming").showModal();
  $("session-id").select();
}

async function deleteSession(id) {
  const usage = await askJson(`/api/usage?${query({ prefix: `${SESSIONS}${id}/` })}`);
  const what = `${usage.more ? "More than " : ""}${count(usage.files, "file")}, ${size(usage.bytes)}`;
  const text = `${what}, its metadata and its events among them. This cannot be undone.`;
  if (!(await confirmed(`Delete session ${id}?`, text))) return;
  await removeBelow(`${SESSIONS}${id}/`);
  usages.delete(id);
  sessionList.set(sessionList.rows.filter((row) => row.id !== id));
  if (!sessionList.rows.length) await loadSessions();
  if (shown.session === id) go({});
  say(`Session ${id} is deleted`);
}

// -- the files of a session, or of all the storage, as a tree

const ICONS = { image: "image", audio: "media", video: "media", text: "text" };
const KINDS = {
  image: /\.(png|jpe?g|gif|webp|avif|svg|ico|bmp|tiff?)$/i,
  audio: /\.(mp3|wav|ogg|oga|flac|m4a|aac|opus)$/i,
  video: /\.(mp4|m4v|webm|mov|mkv|ogv)$/i,
  text: /\.(txt|md|rst|log|csv|tsv|json|jsonl|ya?ml|toml|ini|cfg|xml|html?|css|m?[jt]sx?|py|exs?|rb|rs|go|c|h|cpp|java|sh|sql)$/i,
};
const kindOf = (name) => Object.keys(KINDS).find((kind) => KINDS[kind].test(name));

let top_ = null; // the directory at the root of what is shown
let filesAsked = 0;

class Directory {
  constructor(prefix, depth) {
    Object.assign(this, { prefix, depth, cursor: undefined, loading: false, skipped: 0 });
  }

  // One page more, in place of the row that asked for it.
  async load(row) {
    if (this.loading) return;
    this.loading = true;
    const asked = filesAsked;
    try {
      const page = await askJson(`/api/tree?${query({ prefix: this.prefix, cursor: this.cursor })}`);
      if (asked !== filesAsked) return;
      this.cursor = page.cursor ?? undefined;
      this.skipped += page.skipped;
      const base = this.prefix.slice(0, this.prefix.lastIndexOf("/") + 1);
      const rows = page.lines.map((line) => ({ ...line, key: base + line.name, depth: this.depth, folder: line.name.endsWith("/") }));
      if (page.cursor) rows.push({ waits: this, depth: this.depth });
      const index = treeList.rows.indexOf(row);
      if (index < 0) return;
      treeList.set(treeList.rows.slice(0, index).concat(rows, treeList.rows.slice(index + 1)));
    } finally {
      this.loading = false;
    }
    if (this === top_) showTreeOrEmpty();
    for (const again of treeList.rows.filter((one) => one.folder && !one.open && opened.has(one.key))) unfold(again);
  }
}

const opened = new Set(); // directories that are open, by prefix

const treeList = new List($("tree"), {
  height: () => (matchMedia("(max-width: 720px)").matches ? 44 : 36),
  draw: drawRow,
  open: (row) => (row.folder ? turn(row) : row.key && go({ ...place(), file: row.key })),
  keys: {
    ArrowRight: (row, index) => row.folder && (row.open ? treeList.move(index + 1) : unfold(row)),
    ArrowLeft: (row, index) => (row.open ? fold(row) : treeList.move(parentOf(index))),
    Delete: (row) => row.key && !state.read_only && tried(deleteRow)(row),
    d: (row) => row.key && save(row),
    D: (row) => row.key && save(row),
  },
});

function drawRow(row, index) {
  const node = element("div", { role: "row" });
  node.style.setProperty("--depth", row.depth);
  node.setAttribute("aria-level", row.depth + 1);
  node.setAttribute("aria-rowindex", index + 1);
  if (row.waits) {
    tried(() => row.waits.load(row))();
    node.classList.add("waiting");
    node.append(cell("name", element("i", { className: "nothing" }), element("span", {}, "…")));
    return node;
  }
  node.setAttribute("aria-selected", String(row.key === shown.file));
  const name = element("span", { title: row.name }, row.folder ? last(row.name) : row.name);
  if (row.folder) {
    node.classList.add("directory");
    node.setAttribute("aria-expanded", String(Boolean(row.open)));
    node.append(cell("name", icon("chevron", "turn"), icon("folder"), name), cell("number"), cell("age"));
  } else {
    const when = element("time", { dateTime: row.modified, title: exact.format(new Date(row.modified)) }, age(row.modified));
    const bytes = element("span", { title: `${plain.format(row.size)} bytes` }, size(row.size));
    node.append(cell("name", element("i", { className: "nothing" }), icon(ICONS[kindOf(row.name)] ?? "file"), name));
    node.append(cell("number", bytes), cell("age", when));
  }
  node.append(cell("doing", ...buttonsOf(row)));
  return node;
}

const cell = (kind, ...children) => element("div", { className: kind, role: "gridcell" }, ...children);

function buttonsOf(row) {
  const label = row.folder ? `Download ${row.name} as a zip` : `Download ${row.name}`;
  const link = element("a", { className: "button quiet", href: urlOf(row), download: "", tabIndex: -1, title: label }, icon("download"));
  link.setAttribute("aria-label", label);
  return state.read_only ? [link] : [link, iconButton("delete", `Delete ${row.name}`, tried(() => deleteRow(row)))];
}

const urlOf = (row) => `/objects/${inUrl(row.key)}${row.folder ? "?archive=zip" : ""}`;
const save = (row) => element("a", { href: urlOf(row), download: "" }).click();
const turn = (row) => (row.open ? fold(row) : unfold(row));

function unfold(row) {
  row.open = true;
  opened.add(row.key);
  const index = treeList.rows.indexOf(row);
  const inside = { waits: new Directory(row.key, row.depth + 1), depth: row.depth + 1 };
  treeList.set(treeList.rows.slice(0, index + 1).concat([inside], treeList.rows.slice(index + 1)));
}

function fold(row) {
  row.open = false;
  opened.delete(row.key);
  const index = treeList.rows.indexOf(row);
  treeList.set(treeList.rows.slice(0, index + 1).concat(treeList.rows.slice(behind(index))));
}

// The index behind all that is inside of a row.
function behind(index) {
  let end = index + 1;
  while (end < treeList.rows.length && treeList.rows[end].depth > treeList.rows[index].depth) end += 1;
  return end;
}

function parentOf(index) {
  const depth = treeList.rows[index].depth;
  let at = index;
  while (at > 0 && treeList.rows[at].depth >= depth) at -= 1;
  return depth ? at : index;
}

async function showRoot() {
  opened.clear();
  $("file-search").value = "";
  $("files-title").textContent = shown.session ?? (shown.all ? "All files" : "");
  $("upload").hidden = !shown.session && !shown.all;
  $("file-search").parentElement.parentElement.hidden = !shown.session && !shown.all;
  if (shown.session) $("zip").href = `/objects/${inUrl(`${SESSIONS}${shown.session}/`)}?archive=zip`;
  showUsage();
  await loadTree();
}

function showUsage() {
  const usage = shown.session ? usages.get(shown.session) : null;
  $("files-usage").textContent = usageText(usage);
  if (shown.session && usage === undefined) countSoon(shown.session);
  $("zip").hidden = $("delete-session").hidden = !shown.session || !usage?.files;
}

async function loadTree() {
  filesAsked += 1;
  if (!shown.session && !shown.all) {
    top_ = null;
    treeList.set([]);
    return showTreeOrEmpty();
  }
  top_ = new Directory(shown.root + $("file-search").value, 0);
  const row = { waits: top_, depth: 0 };
  treeList.rows = [row];
  $("tree").setAttribute("aria-label", shown.session ? `Files of ${shown.session}` : "All files");
  await top_.load(row);
}

function showTreeOrEmpty() {
  const [box, list] = [$("no-files"), $("tree")];
  $("columns").hidden = $("keys").hidden = !treeList.rows.length;
  if (treeList.rows.length) {
    [box.hidden, list.hidden] = [true, false];
    return treeList.refresh();
  }
  if (!shown.session && !shown.all) return showEmpty(box, list, "folder", "No session is chosen", "Choose one to see its files.");
  const searched = $("file-search").value;
  if (searched) return showEmpty(box, list, "search", "Nothing found", `No path begins with “${searched}”. Letters have their case.`);
  if (state.read_only) return showEmpty(box, list, "folder", "Nothing is here yet", "Files appear when they are stored.");
  const choose = element("button", { type: "button", className: "primary" }, "Choose files");
  choose.addEventListener("click", () => $("chosen").click());
  showEmpty(box, list, "upload", "Nothing is here yet", "Drop files or folders here, or choose some.", choose);
}

// Look again, as something was changed; what is open stays so.
async function reload() {
  const [at, active] = [$("tree").scrollTop, treeList.active];
  if (shown.session) countSoon(shown.session);
  await loadTree();
  $("tree").scrollTop = at;
  treeList.move(active, false);
}

async function deleteRow(row) {
  let what = row.modified ? `${size(row.size)}, ${age(row.modified)}.` : "";
  if (row.folder) {
    const usage = await askJson(`/api/usage?${query({ prefix: row.key })}`);
    what = `All that is in it: ${usage.more ? "more than " : ""}${count(usage.files, "file")}, ${size(usage.bytes)}.`;
  }
  if (!(await confirmed(`Delete ${row.folder ? "folder " : ""}${last(row.key)}?`, `${what} This cannot be undone.`))) return;
  await (row.folder ? removeBelow(row.key) : ask(`/objects/${inUrl(row.key)}`, { method: "DELETE" }));
  const index = treeList.rows.findIndex((other) => other.key === row.key);
  const next = index < 0 ? treeList.rows : treeList.rows.slice(0, index).concat(treeList.rows.slice(behind(index)));
  treeList.set(next);
  treeList.move(Math.min(index, next.length - 1));
  if (!next.length) showTreeOrEmpty();
  if (shown.session) countSoon(shown.session);
  if (shown.file && (shown.file === row.key || (row.folder && shown.file.startsWith(row.key)))) go({ ...place(), file: null });
  say(`${last(row.key)} is deleted`);
}

const rowOf = (key) => treeList.rows.find((row) => row.key === key) ?? { key };

async function removeBelow(prefix) {
  const { skipped } = await askJson(`/api/tree?${query({ prefix })}`, { method: "DELETE" });
  if (skipped) fail(new Refusal(`${count(skipped, "file")} with names that are not keys of this storage stayed.`));
}

function confirmed(title, text) {
  $("question-title").textContent = title;
  $("question-text").textContent = text;
  const dialog = $("question");
  dialog.returnValue = "";
  dialog.showModal();
  $("no").focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

// -- the preview of a file

let looking = new AbortController();

function closePreview() {
  looking.abort();
  $("preview").hidden = true;
  $("stage").replaceChildren(); // a video stops, and a frame is gone
}

async function look(key) {
  closePreview();
  const { signal } = (looking = new AbortController());
  $("preview-title").textContent = last(key);
  $("preview-title").title = key;
  $("preview-facts").textContent = "";
  $("download").href = `/objects/${inUrl(key)}`;
  $("choices").hidden = true;
  $("preview").hidden = false;
  try {
    const { headers } = await ask(`/objects/${inUrl(key)}`, { method: "HEAD", signal });
    const file = {
      key,
      signal,
      etag: headers.get("etag"),
      size: Number(headers.get("content-length")),
      modified: headers.get("last-modified"),
      type: headers.get("content-type").split(";")[0].trim().toLowerCase(),
    };
    $("preview-facts").textContent = `${size(file.size)} · ${file.type} · ${age(file.modified)}`;
    $("preview-facts").title = `${plain.format(file.size)} bytes, ${exact.format(new Date(file.modified))}`;
    await present(file);
  } catch (error) {
    if (error.name === "AbortError") return;
    showNone("file", "It cannot be shown", error.status === 404 ? "There is no such file any more." : error.message);
  }
}

async function present(file) {
  const [kind] = file.type.split("/");
  if (!file.size) return showNone("file", "The file is empty", "It has no bytes.");
  if (kind === "image") return showMedia(file, element("img", { alt: last(file.key) }));
  if (kind === "video") return showMedia(file, element("video", { controls: true, preload: "metadata" }));
  if (kind === "audio") return showMedia(file, element("audio", { controls: true, preload: "metadata" }));
  if (file.type === "text/html" || file.type === "application/xhtml+xml") return showDocument(file, "preview");
  await showText(file);
}

function showNone(symbol, title, text) {
  const box = element("div", { className: "empty" });
  $("stage").replaceChildren(box);
  showEmpty(box, {}, symbol, title, text);
}

function showMedia(file, media) {
  const instead = `This browser does not show ${file.type}. Download it instead.`;
  media.addEventListener("error", () => showNone("file", "It cannot be shown", instead));
  media.src = `/preview/${inUrl(file.key)}`;
  if (media.tagName !== "IMG") media.setAttribute("aria-label", last(file.key));
  $("stage").replaceChildren(element("div", { className: "media" }, media));
}

// HTML gets a frame of no origin: it reaches neither this page nor the server. Scripts run only for who asks for them.
function showDocument(file, mount) {
  const frame = element("iframe", { title: last(file.key), src: `/${mount}/${inUrl(file.key)}` });
  frame.setAttribute("sandbox", mount === "running" ? "allow-scripts" : "");
  $("stage").replaceChildren(frame);
  const choose = (label, wanted, act) => {
    const button = element("button", { type: "button" }, label);
    button.setAttribute("aria-pressed", String(wanted === mount));
    button.addEventListener("click", tried(act));
    return button;
  };
  $("choices").hidden = false;
  $("choices").replaceChildren(
    choose("Page", "preview", () => showDocument(file, "preview")),
    choose("With scripts", "running", () => showDocument(file, "running")),
    choose("Source", "source", async () => {
      await showText(file);
      for (const button of $("choices").children) button.ariaPressed = String(button.textContent === "Source");
    }),
    element("span", {}, mount === "running" ? "Sandboxed: no network, no cookies" : "Sandboxed: scripts are off"),
  );
}

async function showText(file) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const text = element("div", { className: "text" });
  const numbers = { line: 0, open: null };
  let at = 0;
  const more = async () => {
    const end = Math.min(at + TEXT_CHUNK, file.size);
    const headers = { Range: `bytes=${at}-${end - 1}`, "If-Match": file.etag };
    const bytes = new Uint8Array(await (await ask(`/objects/${inUrl(file.key)}`, { headers, signal: file.signal })).arrayBuffer());
    const piece = decoder.decode(bytes, { stream: end < file.size });
    if (piece.includes("\0")) throw new TypeError("a zero byte is no text");
    at = end;
    addLines(text, piece, numbers);
    if (at === file.size && numbers.line > 1 && numbers.open.textContent === "\n") numbers.open.remove(); // behind the last break
    if (at < file.size) text.append(moreButton(`${size(at)} of ${size(file.size)} are shown. Show more`, more));
  };
  try {
    await more();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return showNone("file", "There is no preview", `${file.type} is not shown here. Download it instead.`);
  }
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", `Text of ${last(file.key)}`);
  $("stage").replaceChildren(text);
  $("stage").scrollTop = 0;
}

function moreButton(label, act) {
  const button = element("button", { type: "button" }, label);
  const box = element("div", { className: "more" }, button);
  button.addEventListener("click", tried(async () => (await act(), box.remove())));
  return box;
}

// Lines go into boxes that the browser lays out when they come into sight. One that was cut goes on.
function addLines(text, piece, numbers) {
  const lines = piece.split(/\r\n|\n/);
  if (numbers.open) numbers.open.textContent += lines.shift();
  if (numbers.open && lines.length && numbers.open.textContent === "") numbers.open.textContent = "\n";
  let box = null;
  for (const line of lines) {
    if (!box || box.childElementCount >= LINES_APART) text.append((box = element("div", { className: "lines" })));
    numbers.line += 1;
    numbers.open = element("span", { className: "line", "data-n": numbers.line }, line === "" ? "\n" : line);
    box.append(numbers.open);
  }
}

// -- uploads

const uploads = [];

function upload(files, into) {
  for (const [path, file] of files) {
    const item = { path, file, key: into + path, state: "waiting", sent: 0, replace: false, node: element("li") };
    uploads.push(item);
    $("upload-list").append(item.node);
    drawUpload(item);
  }
  $("uploads").hidden = !uploads.length;
  sendNext();
}

function sendNext() {
  while (uploads.filter((item) => item.state === "sending").length < AT_ONCE) {
    const item = uploads.find((one) => one.state === "waiting");
    if (!item) break;
    send(item).finally(sendNext);
  }
  const [done, all] = [uploads.filter((item) => item.state === "done").length, uploads.length];
  const under = uploads.some((item) => item.state === "waiting" || item.state === "sending");
  const label = under ? "Stop all uploads" : "Close the list of uploads";
  $("close-uploads").title = label;
  $("close-uploads").setAttribute("aria-label", label);
  const title = done === all ? `${count(all, "file")} uploaded` : `Uploading ${plain.format(done)} of ${plain.format(all)}`;
  $("uploads-title").textContent = title;
}

async function send(item) {
  item.state = "sending";
  item.error = "";
  drawUpload(item);
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        await put(item);
        break;
      } catch (error) {
        if (!mayGoOn(error) || item.stopped || attempt === TRIES) throw error;
        item.error = "The connection broke. Trying again";
        drawUpload(item);
        await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
      }
    }
    item.state = "done";
    say(`${item.path} is uploaded`);
    arrived();
  } catch (error) {
    item.state = item.stopped ? "stopped" : error.status === 412 ? "there" : "failed";
    item.error = error.message;
    if (error.status === 401) lock();
  }
  drawUpload(item);
}

// A line that broke, a server that is not there for a moment, a part that was stored though nobody heard of it.
const mayGoOn = (error) => [0, 409, 503].includes(error.status);

// Look again at what is there, once for files that come in quick succession.
const arrived = later(async () => {
  await loadSessions();
  await reload();
});

// One request whose progress is shown; rejects with a `Refusal`, of status 0 where the connection broke.
function request(method, url, headers, body, item, before = 0) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    item.request = sending;
    sending.open(method, url);
    for (const [name, value] of Object.entries(headers)) sending.setRequestHeader(name, value);
    sending.upload.onprogress = (event) => ((item.sent = before + event.loaded), drawProgress(item));
    sending.onload = () =>
      sending.status < 300 ? resolve(sending) : reject(new Refusal(sentence(sending.responseText, sending.status), sending.status));
    sending.onerror = () => reject(new Refusal("The connection broke."));
    sending.onabort = () => reject(new Refusal("Stopped."));
    sending.send(body);
  });
}

// The type is left to the server, which knows extensions by a table that is the same everywhere.
async function put(item) {
  if (state.resumable && item.file.size > RESUMABLE) return resume(item);
  const headers = item.replace ? {} : { "If-None-Match": "*" };
  await request("PUT", `/objects/${inUrl(item.key)}`, headers, item.file.slice(0, item.file.size, ""), item);
}

// Large files go by tus 1.0. Where an upload is kept is remembered, so that it goes on after the page was closed, too.
const TUS = { "Tus-Resumable": "1.0.0" };
const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

async function resume(item) {
  const name = `upload ${item.file.size} ${item.file.lastModified} ${item.replace} ${item.key}`;
  let { url, offset } = await begun(name, item);
  if (url === null) [url, offset] = [await begin(name, item), 0];
  item.sent = offset;
  try {
    const headers = { ...TUS, "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream" };
    if (offset < item.file.size) await request("PATCH", url, headers, item.file.slice(offset), item, offset);
  } catch (error) {
    if (error.status && !mayGoOn(error)) localStorage.removeItem(name); // it will never be what it was to be
    throw error;
  }
  localStorage.removeItem(name);
}

async function begun(name, item) {
  const url = localStorage.getItem(name);
  if (!url) return { url: null };
  try {
    const state = await request("HEAD", url, TUS, null, item);
    return { url, offset: Number(state.getResponseHeader("Upload-Offset")) };
  } catch (error) {
    if (error.status !== 404 && error.status !== 410) throw error;
    localStorage.removeItem(name); // it has expired
    return { url: null };
  }
}

async function begin(name, item) {
  const headers = { ...TUS, "Upload-Length": item.file.size, "Upload-Metadata": `key ${base64(item.key)}` };
  if (!item.replace) headers["If-None-Match"] = "*";
  const made = await request("POST", "/uploads/", headers, null, item);
  const url = new URL(made.getResponseHeader("Location"), made.responseURL).pathname;
  localStorage.setItem(name, url);
  return url;
}

function drawUpload(item) {
  const words = {
    waiting: () => `${size(item.file.size)}, waiting`,
    sending: () => item.error || progressText(item),
    done: () => `${size(item.file.size)}, uploaded`,
    there: () => "A file of this name is there already",
    stopped: () => "Stopped",
    failed: () => item.error,
  };
  const name = element("b", { title: item.key }, item.path);
  const bar = element("progress", { max: Math.max(1, item.file.size), value: item.sent });
  bar.setAttribute("aria-label", `Progress of ${item.path}`);
  const buttons = element("div", { className: "doing" }, ...uploadButtons(item));
  item.node.className = item.state;
  item.node.replaceChildren(name, element("p", {}, words[item.state]()), ...(item.state === "sending" ? [bar] : []), buttons);
}

function uploadButtons(item) {
  const again = (label, changes) => {
    const button = element("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      Object.assign(item, { state: "waiting", sent: 0, stopped: false }, changes);
      drawUpload(item);
      sendNext();
    });
    return button;
  };
  const stop = iconButton("close", `Stop ${item.path}`, () => ((item.stopped = true), item.request?.abort()));
  stop.tabIndex = 0;
  if (item.state === "sending") return [stop];
  if (item.state === "there") return [again("Replace", { replace: true })];
  if (item.state === "failed" || item.state === "stopped") return [again("Try again", {})];
  return item.state === "done" ? [icon("check")] : [];
}

const progressText = (item) => `${size(item.sent)} of ${size(item.file.size)}`;

function drawProgress(item) {
  const bar = item.node.querySelector("progress");
  if (!bar) return;
  bar.value = item.sent;
  item.node.querySelector("p").textContent = progressText(item);
}

// What was dropped: files, and folders with all that is in them.
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => [file.name, file]);
  return (await Promise.all(entries.map((entry) => filesIn(entry)))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) return [[entry.fullPath.slice(1), await new Promise((found, failed) => entry.file(found, failed))]];
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((found, failed) => reader.readEntries(found, failed));
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map((one) => filesIn(one)))).flat();
}

// -- what happens when

function dropTarget(event) {
  const index = event.target.closest?.(".row")?.dataset.index;
  const row = index === undefined ? null : treeList.rows[index];
  if (!row?.key) return shown.root;
  return row.folder ? row.key : row.key.slice(0, row.key.lastIndexOf("/") + 1);
}

function listenForDrops(pane) {
  const may = (event) => !state.read_only && (shown.session || shown.all) && event.dataTransfer?.types.includes("Files");
  pane.addEventListener("dragover", (event) => {
    if (!may(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    const target = dropTarget(event);
    pane.dataset.drop = target === shown.root ? "Drop to upload" : `Drop to upload into ${target.slice(shown.root.length)}`;
    pane.classList.add("dropping");
  });
  pane.addEventListener("dragleave", (event) => pane.contains(event.relatedTarget) || pane.classList.remove("dropping"));
  pane.addEventListener("drop", (event) => {
    if (!may(event)) return;
    event.preventDefault();
    pane.classList.remove("dropping");
    const into = dropTarget(event);
    tried(async () => upload(await filesOf(event.dataTransfer), into))();
  });
}

function listen() {
  addEventListener("hashchange", tried(arrive));
  $("session-search").addEventListener("input", later(loadSessions));
  $("file-search").addEventListener("input", later(loadTree));
  $("new-session").addEventListener("click", nameSession);
  $("no-name").addEventListener("click", () => $("naming").close());
  $("naming").querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    $("naming").close();
    go({ session: $("session-id").value });
  });
  for (const id of ["yes", "no"]) $(id).addEventListener("click", () => $("question").close(id));
  $("upload").addEventListener("click", () => $("chosen").click());
  $("chosen").addEventListener("change", () => {
    upload([...$("chosen").files].map((file) => [file.name, file]), shown.root);
    $("chosen").value = "";
  });
  $("delete-session").addEventListener("click", tried(() => deleteSession(shown.session)));
  $("delete-file").addEventListener("click", tried(() => deleteRow(rowOf(shown.file))));
  $("close").addEventListener("click", () => go({ ...place(), file: null }));
  $("close-uploads").addEventListener("click", () => {
    for (const item of uploads.splice(0)) ((item.stopped = true), item.request?.abort());
    $("upload-list").replaceChildren();
    $("uploads").hidden = true;
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !shown.file || document.querySelector("dialog[open]")) return;
    go({ ...place(), file: null });
    $("tree").focus();
  });
  listenForDrops($("files"));
  addEventListener("beforeunload", (event) => uploads.some((item) => item.state === "sending") && event.preventDefault());
  setInterval(() => (sessionList.refresh(), treeList.refresh(), showUsage()), 60_000); // ages grow
}

async function start() {
  state = await askJson("/api/state");
  $("place").textContent = $("place").title = state.place;
  $("read-only").hidden = !state.read_only;
  document.body.classList.toggle("read-only", state.read_only);
  $("panes").hidden = false;
  listen();
  await Promise.all([loadSessions(), arrive()]);
}

tried(start)();
