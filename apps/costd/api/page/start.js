/* start.js - starts the page: connects the controls, asks costd every five seconds, and shows what it answered.  The
 * page's address names the range, so that a link or the Back button leads to the same figures. */
import { showAnswer } from "./answer.js";
import { refresh, setViews, useKey } from "./ask.js";
import { showCharts } from "./charts.js";
import { $, copy, el } from "./dom.js";
import { saveCsv, saveJson } from "./export.js";
import { showBanners, showLock, showMachine, showWaiting, showWelcome } from "./notices.js";
import { kept, RANGES, rangeOfAddress, state } from "./state.js";
import { showModels, showRecent } from "./tables.js";
import { showTiles } from "./tiles.js";

const EVERY_MS = 5000;

function showAll(fresh) {
    showLock();
    showMachine();
    showWelcome();
    showAnswer();
    showTiles();
    showCharts(fresh);
    showModels();
    showRecent();
    showBanners();
}

function showFailure() {
    showLock();
    if (!state.data) showWaiting();
    showBanners();
}

/* ---- Range ----------------------------------------------------------------------------------------- */

function showRange(range) {
    state.range = range;
    for (const b of $("ranges").children) b.setAttribute("aria-pressed", String(b.textContent === range));
}

function chooseRange(range) {
    const url = new URL(location);
    url.searchParams.set("range", range);
    history.pushState(null, "", url);
    showRange(range);
    refresh();
}

function beginRanges() {
    for (const [range, title] of Object.entries(RANGES))
        $("ranges").append(el("button", { type: "button", title, onclick: () => chooseRange(range) }, range));
    showRange(state.range);
    addEventListener("popstate", () => {
        showRange(rangeOfAddress());
        refresh();
    });
}

/* ---- Other controls -------------------------------------------------------------------------------- */

function setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    $("theme").value = theme;
}

/* A canvas keeps the colours that it was drawn with. */
function redraw() {
    if (state.data) showCharts(true);
}

function beginTheme() {
    setTheme(kept.get("costd-theme") || "");
    $("theme").addEventListener("change", (e) => {
        setTheme(e.target.value);
        kept.set("costd-theme", e.target.value);
        redraw();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function beginReference() {
    $("reference").value = state.reference;
    $("reference").addEventListener("input", (e) => {
        state.reference = Number(e.target.value) || 0;
        kept.set("costd-reference", String(state.reference));
        if (state.data) showAll(false);
    });
}

function beginPause() {
    $("pause").addEventListener("click", (e) => {
        state.paused = !state.paused;
        e.target.setAttribute("aria-pressed", String(state.paused));
        if (!state.paused) refresh();
        else if (state.data) showAll(false);
    });
}

function beginKey() {
    $("locked").addEventListener("submit", (e) => {
        e.preventDefault();
        useKey($("key").value.trim());
        refresh();
    });
}

function beginAsking() {
    setViews(showAll, showFailure);
    setInterval(() => {
        if (!state.paused && !document.hidden && !state.locked) refresh();
    }, EVERY_MS);
    setInterval(() => {
        if (state.lost) showBanners();
    }, 1000);
    document.addEventListener("visibilitychange", () => {
        if (!document.hidden && !state.paused) refresh();
    });
    refresh();
}

beginRanges();
beginTheme();
beginReference();
beginPause();
beginKey();
$("copy-curl").addEventListener("click", (e) => copy($("curl").textContent, e.target));
$("csv").addEventListener("click", saveCsv);
$("json").addEventListener("click", saveJson);
beginAsking();
