// Keep an open page up to date: when the server reports activity, load the page again and replace what differs.
//
// The script replaces whole elements with elements of our own page. The browser parses them as a document, so no script
// in them runs. The connection's state is set as text. Without this script, reload the page to update it.

const SETTLE = 300; // ms of quiet before a refresh, plus a random time as long, so that not all pages refresh at once
const RECONNECT = 4000; // ms that a stream may take to reconnect before the page says so
const RETRY = 15000; // ms until the next attempt after the server refused a stream
const SILENCE = 45000; // ms without a message. The server sends one every 15 s, so the connection is dead
const TIMEOUT = 10000; // ms that a page may take to load
const INTERVAL = 60000; // ms until a refresh without activity, because some states change with time
const RELOAD = "reload the page"; // signed out, or the page does not exist any more
const FIELDS = "input:not([type=hidden]), textarea, select"; // an element with a field in use is not replaced

const status = document.getElementById("live");
const feed = document.getElementById("feed");
const pageUrl = document.getElementById("main")?.dataset.url ?? location.href;
let source = null; // the stream, or null while the page is hidden: a browser allows six connections to a site
let streamProblem = null; // "" if there is none, null before the first message
let missed = false; // the stream may have missed activity
let refreshProblem = "";
let loadedAt = 0; // when the content of the page was requested
let reconnectTimer = 0;
let silenceTimer = 0;
let refreshTimer = 0;
let refreshing = false;
let stale = false; // there was activity while the page was hidden or loading
let failures = 0; // failed refreshes in a row

function showStatus() {
  const problem = refreshProblem || streamProblem;
  if (!status || problem === null) return;
  const text = problem ? `not live: ${problem}` : "live";
  if (status.textContent === text) return; // screen readers would read it again
  status.className = problem ? "live off" : "live on";
  status.textContent = text;
}

function setStreamProblem(problem) {
  streamProblem = problem;
  showStatus();
}

function listen() {
  stopListening();
  source = new EventSource(`/live?age=${Math.round(performance.now() - loadedAt)}`);
  for (const kind of ["connected", "unreachable", "missed", "activity"]) source.addEventListener(kind, restartSilenceTimer);
  source.addEventListener("connected", () => {
    clearTimeout(reconnectTimer);
    reconnectTimer = 0;
    if (missed) refreshSoon();
    missed = false;
    setStreamProblem("");
  });
  source.addEventListener("unreachable", () => {
    missed = true;
    setStreamProblem("the database is unreachable");
  });
  source.addEventListener("missed", refreshSoon);
  source.addEventListener("activity", (event) => {
    addToFeed(JSON.parse(event.data).sentences);
    refreshSoon();
  });
  source.addEventListener("error", () => {
    missed = true;
    if (source?.readyState === EventSource.CLOSED) { // the server refused the stream, so the browser does not retry
      setStreamProblem(RELOAD);
      reconnectTimer = setTimeout(listen, RETRY);
    } else {
      reconnectTimer ||= setTimeout(setStreamProblem, RECONNECT, "reconnecting");
    }
  });
  restartSilenceTimer();
}

function restartSilenceTimer() {
  clearTimeout(silenceTimer);
  silenceTimer = setTimeout(() => {
    missed = true;
    setStreamProblem("reconnecting");
    listen();
  }, SILENCE);
}

function stopListening() {
  source?.close();
  source = null;
  clearTimeout(silenceTimer);
  clearTimeout(reconnectTimer);
  reconnectTimer = 0;
}

// Add the newest sentences to the feed. It scrolls along only if you are at its end
function addToFeed(sentences) {
  if (!feed) return;
  const atEnd = feed.scrollTop + feed.clientHeight >= feed.scrollHeight - 4;
  for (const sentence of sentences) {
    const line = document.createElement("li");
    line.textContent = sentence.trim();
    if (sentence.startsWith("  ")) line.className = "of-run";
    feed.append(line);
    document.getElementById("feed-latest").textContent = line.textContent;
  }
  while (feed.childElementCount > 200) feed.firstElementChild.remove();
  if (atEnd) feed.scrollTop = feed.scrollHeight;
}

function refreshSoon() {
  stale = true;
  if (document.visibilityState !== "visible" || refreshing || !document.querySelector("main [data-live]")) return;
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(refresh, (SETTLE + Math.random() * SETTLE) * 2 ** Math.min(failures * 2, 7));
}

async function refresh() {
  const startedAt = performance.now();
  refreshing = true;
  stale = false;
  try {
    refreshProblem = await load();
  } finally {
    refreshing = false;
  }
  if (!refreshProblem) loadedAt = startedAt;
  failures = refreshProblem ? failures + 1 : 0;
  showStatus();
  if (refreshProblem === RELOAD) clearTimeout(refreshTimer); // reloading shows the reason
  else if (stale || refreshProblem) refreshSoon();
}

// Load this page and replace what differs. Returns the problem, or "" if there is none
async function load() {
  try {
    const answer = await fetch(pageUrl, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(TIMEOUT) });
    if (answer.redirected || (answer.status >= 400 && answer.status < 500)) return RELOAD;
    if (!answer.ok) return "reconnecting";
    update(new DOMParser().parseFromString(await answer.text(), "text/html"));
    return "";
  } catch (error) {
    if (error instanceof DOMException || error instanceof TypeError) return "reconnecting"; // no answer
    throw error;
  }
}

function update(page) {
  const anchor = scrollAnchor();
  document.title = page.title;
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const replacement = page.getElementById(old.id);
    if (!replacement || inUse(old)) continue;
    keepDetailsOpen(old, replacement);
    if (replacement.outerHTML === old.outerHTML) continue;
    const focused = old.contains(document.activeElement) ? identify(document.activeElement) : null;
    old.replaceWith(document.adoptNode(replacement));
    if (focused) find(focused)?.focus({ preventScroll: true });
  }
  for (const form of document.querySelectorAll("form[data-seen]")) {
    const changed = page.getElementById(form.id)?.dataset.seen !== form.dataset.seen;
    form.querySelector(".changed").hidden = !changed; // the form is never replaced: you decide on what you saw
  }
  const moved = anchor && find(anchor.element)?.getBoundingClientRect().top - anchor.top;
  if (moved) scrollBy({ top: moved, behavior: "instant" });
}

// The first visible element, which keeps its place while rows appear above it. None at the top of the page
function scrollAnchor() {
  if (scrollY < 80) return null;
  for (const element of document.querySelectorAll("[data-live] [id]")) {
    const top = element.getBoundingClientRect().top;
    if (top >= 0) return { element: identify(element), top };
  }
  return null;
}

function inUse(part) {
  for (const field of part.querySelectorAll(FIELDS)) {
    const typed = "defaultValue" in field && !["checkbox", "radio"].includes(field.type) && field.value !== field.defaultValue;
    if (typed || field === document.activeElement) return true;
  }
  return false;
}

// Details that you opened or closed stay so. They are matched by id, or else by position
function keepDetailsOpen(old, replacement) {
  const before = [...old.querySelectorAll("details")];
  [...replacement.querySelectorAll("details")].forEach((details, index) => {
    const same = details.id ? before.find((other) => other.id === details.id) : before[index];
    if (same) details.open = same.open;
  });
}

// An element is identified by its id, a link without one by its target
function identify(element) {
  return { id: element.id, href: element.getAttribute("href") };
}

function find({ id, href }) {
  if (id) return document.getElementById(id);
  return href && document.querySelector(`[data-live] a[href="${CSS.escape(href)}"]`);
}

function visibilityChanged() {
  if (document.visibilityState !== "visible") {
    clearTimeout(refreshTimer); // the page refreshes when it is visible again
    return stopListening();
  }
  if (!source) listen(); // the server compares the page's age with the last activity
  if (stale) refreshSoon();
}

feed?.closest("[hidden]")?.removeAttribute("hidden");
if (status && !location.pathname.startsWith("/sign-in")) {
  document.addEventListener("visibilitychange", visibilityChanged);
  addEventListener("pagehide", stopListening);
  addEventListener("pageshow", (event) => { // restored from the browser's cache
    if (event.persisted) visibilityChanged();
  });
  setInterval(refreshSoon, INTERVAL);
  visibilityChanged();
}
