// A page stays true while it is open: told that something happened, it asks for itself again and takes over what differs.
//
// Only whole elements of our own page are taken, parsed by the browser as a document (no script in it runs), and what
// is said of the connection is set as text. Without this file a page is as good, until the next reload.

const SETTLE = 300; // ms of quiet before a page asks again, and up to as many more, so that not all pages ask at once
const PATIENCE = 4000; // ms that a stream may take to come back before anything is said: most ends are no news
const AGAIN = 15000; // ms until another stream is tried where the site refused one
const KEPT = "input:not([type=hidden]), textarea, select"; // nobody's typing is taken away

const status = document.getElementById("live");
const told = document.getElementById("told");
let lost = false; // what is shown may be old: nothing was heard for a while
let worry = 0; // the timer of saying that the stream is gone
let due = 0; // the timer of the next refresh
let asking = false;
let stale = false; // something happened while nobody looked, or while the answer was on its way

function say(state, words) {
  if (!status || status.textContent === words) return; // a status that repeats itself would be read out again
  status.className = `live ${state}`;
  status.textContent = words;
}

function listen() {
  const source = new EventSource(`/live?age=${Math.round(performance.now())}`);
  source.addEventListener("here", () => {
    clearTimeout(worry);
    worry = 0;
    say("on", "live");
    if (lost) refreshSoon();
    lost = false;
  });
  source.addEventListener("away", () => {
    lost = true;
    say("away", "not live: the database is away");
  });
  source.addEventListener("missed", refreshSoon);
  source.addEventListener("happened", (event) => {
    tell(JSON.parse(event.data).sentences);
    refreshSoon();
  });
  source.addEventListener("error", () => {
    lost = true;
    if (source.readyState === EventSource.CLOSED) { // refused: the browser gives up, and we do not
      say("away", "not live: load the page again");
      setTimeout(listen, AGAIN);
    } else {
      worry ||= setTimeout(say, PATIENCE, "away", "not live: trying again");
    }
  });
  addEventListener("pagehide", () => source.close(), { once: true });
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
  due = setTimeout(refresh, SETTLE + Math.random() * SETTLE);
}

async function refresh() {
  asking = true;
  stale = false;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.ok && !answer.redirected) {
      take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
  } catch {
    lost = true; // the stream says so as well, and its return makes up for it
  } finally {
    asking = false;
    if (stale) refreshSoon();
  }
}

function take(page) {
  const above = anchor();
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const now = page.getElementById(old.id);
    if (!now || inUse(old)) continue;
    keepOpen(old, now);
    if (now.outerHTML === old.outerHTML) continue;
    const focused = old.contains(document.activeElement) ? place(document.activeElement) : null;
    old.replaceWith(document.adoptNode(now));
    if (focused) find(focused)?.focus({ preventScroll: true });
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

document.addEventListener("visibilitychange", () => {
  if (stale) refreshSoon();
});
addEventListener("pageshow", (event) => {
  if (!event.persisted) return; // come back to by the browser's own cache: its stream was closed
  lost = true;
  listen();
});
told?.closest("[hidden]")?.removeAttribute("hidden");
if (status && !location.pathname.startsWith("/sign-in")) listen();
