// A page stays true while it is open: told that something happened, it asks for itself again and takes over what differs.
//
// Only whole elements of our own page are taken, parsed by the browser as a document (no script in it runs), and what
// is said of the connection is set as text. Without this file a page is as good, until the next reload.

const SETTLE = 300; // ms of quiet before a page asks again, and up to as many more, so that not all pages ask at once
const PATIENCE = 4000; // ms that a stream may take to come back before anything is said: most ends are no news
const AGAIN = 15000; // ms until another stream is tried where the site refused one
const SILENCE = 45000; // ms without a word, of which the site has one every 15 s: the connection is dead
const ANSWER = 10000; // ms that an answer may take
const OFTEN = 60000; // ms after which a page asks though nothing happened: what is stale becomes so by time alone
const GONE = "load the page again"; // signed out, or there is no such page any more
const KEPT = "input:not([type=hidden]), textarea, select"; // nobody's typing is taken away

const status = document.getElementById("live");
const told = document.getElementById("told");
const here = document.getElementById("main")?.dataset.at ?? location.href; // the address that shows this page
let source = null; // the stream; none while nobody looks: a browser has six connections to a site, for all of its tabs
let stream = null; // what is the matter with the stream: "" nothing, null it has not said yet
let lost = false; // something may have happened that the stream did not bring
let refusal = ""; // what is the matter with asking again
let made = 0; // when what is shown was asked for
let worry = 0; // the timer of saying that the stream is gone
let silence = 0; // the timer of not having heard anything
let due = 0; // the timer of the next refresh
let asking = false;
let stale = false; // something happened while nobody looked, or while the answer was on its way
let failures = 0; // of asking, one after another

function say() {
  const words = refusal || stream;
  if (!status || words === null) return;
  const text = words ? `not live: ${words}` : "live";
  if (status.textContent === text) return; // a status that repeats itself would be read out again
  status.className = words ? "live away" : "live on";
  status.textContent = text;
}

function streamIs(words) {
  stream = words;
  say();
}

function listen() {
  hush();
  source = new EventSource(`/live?age=${Math.round(performance.now() - made)}`);
  for (const kind of ["here", "away", "missed", "happened"]) source.addEventListener(kind, hear);
  source.addEventListener("here", () => {
    clearTimeout(worry);
    worry = 0;
    if (lost) refreshSoon();
    lost = false;
    streamIs("");
  });
  source.addEventListener("away", () => {
    lost = true;
    streamIs("the database is away");
  });
  source.addEventListener("missed", refreshSoon);
  source.addEventListener("happened", (event) => {
    tell(JSON.parse(event.data).sentences);
    refreshSoon();
  });
  source.addEventListener("error", () => {
    lost = true;
    if (source?.readyState === EventSource.CLOSED) { // refused: the browser gives up, and we do not
      streamIs("load the page again");
      worry = setTimeout(listen, AGAIN);
    } else {
      worry ||= setTimeout(streamIs, PATIENCE, "trying again");
    }
  });
  hear();
}

function hear() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    lost = true;
    streamIs("trying again");
    listen();
  }, SILENCE);
}

function hush() {
  source?.close();
  source = null;
  clearTimeout(silence);
  clearTimeout(worry);
  worry = 0;
}

// The newest sentences, on a page that has a place for them; what was read is not moved by what comes after it
function tell(sentences) {
  if (!told) return;
  const atEnd = told.scrollTop + told.clientHeight >= told.scrollHeight - 4;
  for (const sentence of sentences) {
    const line = document.createElement("li");
    line.textContent = sentence.trim();
    if (sentence.startsWith("  ")) line.className = "of-run";
    told.append(line);
    document.getElementById("told-last").textContent = line.textContent;
  }
  while (told.childElementCount > 200) told.firstElementChild.remove();
  if (atEnd) told.scrollTop = told.scrollHeight;
}

function refreshSoon() {
  stale = true;
  if (document.visibilityState !== "visible" || asking || !document.querySelector("main [data-live]")) return;
  clearTimeout(due);
  due = setTimeout(refresh, (SETTLE + Math.random() * SETTLE) * 2 ** Math.min(failures * 2, 7));
}

async function refresh() {
  const begun = performance.now();
  asking = true;
  stale = false;
  try {
    refusal = await ask();
  } finally {
    asking = false;
  }
  if (!refusal) made = begun;
  failures = refusal ? failures + 1 : 0;
  say();
  if (refusal === GONE) clearTimeout(due); // to load it again tells why
  else if (stale || refusal) refreshSoon();
}

// Ask for this page and take over what differs; in words what was the matter, "" where nothing was
async function ask() {
  try {
    const answer = await fetch(here, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(ANSWER) });
    if (answer.redirected || (answer.status >= 400 && answer.status < 500)) return GONE;
    if (!answer.ok) return "trying again";
    take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    return "";
  } catch (error) {
    if (error instanceof DOMException || error instanceof TypeError) return "trying again"; // no answer
    throw error;
  }
}

function take(page) {
  const above = anchor();
  document.title = page.title;
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const now = page.getElementById(old.id);
    if (!now || inUse(old)) continue;
    keepOpen(old, now);
    if (now.outerHTML === old.outerHTML) continue;
    const focused = old.contains(document.activeElement) ? place(document.activeElement) : null;
    old.replaceWith(document.adoptNode(now));
    if (focused) find(focused)?.focus({ preventScroll: true });
  }
  for (const form of document.querySelectorAll("form[data-seen]")) {
    const changed = page.getElementById(form.id)?.dataset.seen !== form.dataset.seen;
    form.querySelector(".changed").hidden = !changed; // the form itself is never renewed: what is decided was seen
  }
  const moved = above && find(above.place)?.getBoundingClientRect().top - above.top;
  if (moved) scrollBy({ top: moved, behavior: "instant" });
}

// Who has scrolled down keeps what they read in its place while rows come in above it
function anchor() {
  if (scrollY < 80) return null;
  for (const one of document.querySelectorAll("[data-live] [id]")) {
    const top = one.getBoundingClientRect().top;
    if (top >= 0) return { place: place(one), top };
  }
  return null;
}

function inUse(part) {
  for (const field of part.querySelectorAll(KEPT)) {
    const typed = "defaultValue" in field && !["checkbox", "radio"].includes(field.type) && field.value !== field.defaultValue;
    if (typed || field === document.activeElement) return true;
  }
  return false;
}

// What somebody opened or closed stays so: details are known by their own id, else by their place in the part
function keepOpen(old, now) {
  const before = [...old.querySelectorAll("details")];
  [...now.querySelectorAll("details")].forEach((one, index) => {
    const same = one.id ? before.find((other) => other.id === one.id) : before[index];
    if (same) one.open = same.open;
  });
}

// An element by its id, else a link by where it leads
function place(element) {
  return { id: element.id, href: element.getAttribute("href") };
}

function find({ id, href }) {
  if (id) return document.getElementById(id);
  return href && document.querySelector(`[data-live] a[href="${CSS.escape(href)}"]`);
}

function lookedAt() {
  if (document.visibilityState !== "visible") {
    clearTimeout(due); // it is asked when somebody looks again
    return hush();
  }
  if (!source) listen(); // what happened meanwhile, the stream says: it knows how old this page is
  if (stale) refreshSoon();
}

told?.closest("[hidden]")?.removeAttribute("hidden");
if (status && !location.pathname.startsWith("/sign-in")) {
  document.addEventListener("visibilitychange", lookedAt);
  addEventListener("pagehide", hush);
  addEventListener("pageshow", (event) => { // come back to by the browser's own cache
    if (event.persisted) lookedAt();
  });
  setInterval(refreshSoon, OFTEN);
  lookedAt();
}
