/* harness.mjs - what the page's tests stand on: costd as a child process, and a headless browser whose every page is
 * held to the same rules (no error, no foreign request, nothing cut off, no finding of axe). */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [, , COSTD, MODELS, CHROMIUM] = process.argv;
const AXE = readFileSync("node_modules/axe-core/axe.min.js", "utf8");
export const TWO = ["--model", "small=" + MODELS + "/stories-small", "--model", "large=" + MODELS + "/stories-large"];
export const PRICE = ["--cpu-cost-per-hour", "0.10"];
export const EVERY_MS = 5000; /* the page's own pace */
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/* ---- costd ----------------------------------------------------------------------------------- */

const daemons = new Set();

export async function costd(...options) {
    const port = options.find((o) => /^127/.test(o)) ? [] : ["--listen", "127.0.0.1:0"];
    const child = spawn(COSTD, [...port, ...options], { stdio: ["ignore", "ignore", "pipe"] });
    daemons.add(child);
    let log = "";
    const server = {
        child,
        stop: async () => {
            daemons.delete(child);
            const over = new Promise((d) => child.once("exit", d));
            child.kill("SIGTERM");
            await over;
        },
    };
    child.stderr.on("data", (text) => {
        log += text;
    });
    for (let i = 0; !/"event":"ready"/.test(log); i++) {
        if (i > 600 || child.exitCode !== null) throw new Error("costd does not start: " + log);
        await sleep(50);
    }
    server.port = JSON.parse(log.split("\n").find((l) => l.includes('"listening"'))).port;
    server.url = "http://127.0.0.1:" + server.port + "/";
    server.generate = async (model, fields) =>
        (
            await fetch(server.url + "v1/generate/" + model, {
                method: "POST",
                headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ prompt: "Once upon a time", ...fields }),
            })
        ).json();
    server.history = async (range = "1h") => (await fetch(server.url + "api/history?range=" + range)).json();
    server.metrics = async () => (await fetch(server.url + "metrics")).text();
    return server;
}

/* ---- The browser ------------------------------------------------------------------------------- */

export const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });

/* A page whose every error and foreign request fails the test; `expected` are messages that a test provokes. */
export async function open(
    server,
    {
        width = 1440,
        theme = "light",
        path = "",
        expected = null,
        mock = null,
        init = null,
        axe = true,
        until = () => document.querySelector("#tiles .tile"),
        ...more
    } = {},
) {
    const context = await browser.newContext({
        viewport: { width, height: 900 },
        colorScheme: theme,
        bypassCSP: axe,
        acceptDownloads: true,
        ...more,
    });
    const page = await context.newPage();
    page.faults = [];
    page.on("console", (m) => {
        if (["error", "warning"].includes(m.type()) && !(expected && expected.test(m.text())))
            page.faults.push(m.text());
    });
    page.on("pageerror", (e) => page.faults.push(e.stack));
    page.on("dialog", (d) => {
        page.faults.push("a dialog: " + d.message());
        d.dismiss();
    });
    page.on("request", (r) => {
        if (!r.url().startsWith(server.url) && !/^(data|blob):/.test(r.url()))
            page.faults.push("a foreign request: " + r.url());
    });
    if (init) await page.addInitScript(init);
    if (mock) await page.route("**/api/history*", async (route) => route.fulfill({ json: await mock() }));
    await page.goto(server.url + path);
    await page.waitForFunction(until);
    page.end = async () => {
        assert.deepEqual(page.faults, []);
        await context.close();
    };
    return page;
}

export async function noViolations(page, what) {
    await page.evaluate(AXE);
    const found = await page.evaluate(async () =>
        (await axe.run()).violations.map(
            (v) => v.id + ": " + v.nodes.map((n) => n.target + " " + n.failureSummary).join(" | "),
        ),
    );
    assert.deepEqual(found, [], what);
}

/* What axe does not see: things that overlap, are cut off, or are wider than the window. */
export async function geometry(page, what) {
    const faults = await page.evaluate(() => {
        const out = [],
            box = (e) => e.getBoundingClientRect();
        if (document.documentElement.scrollWidth !== innerWidth)
            out.push("the page is " + document.documentElement.scrollWidth + " wide");
        const blocks = [
            ...document.querySelectorAll(
                "header, .banner, #welcome, #answer, .tile, #charts > *, main > .card, footer",
            ),
        ].filter((e) => e.offsetParent);
        blocks.forEach((a, i) =>
            blocks.slice(i + 1).forEach((b) => {
                const [p, q] = [box(a), box(b)];
                if (
                    !a.contains(b) &&
                    !b.contains(a) &&
                    p.left < q.right - 0.5 &&
                    q.left < p.right - 0.5 &&
                    p.top < q.bottom - 0.5 &&
                    q.top < p.bottom - 0.5
                )
                    out.push(
                        (a.id || a.className) +
                            " lies over " +
                            (b.id || b.className) +
                            " " +
                            b.textContent.slice(0, 30),
                    );
            }),
        );
        for (const plot of document.querySelectorAll(".plot")) {
            const canvas = plot.querySelector("canvas");
            if (!canvas) {
                if (!plot.querySelector(".empty")) out.push("an empty plot");
                continue;
            }
            const [p, c] = [box(plot), box(canvas)];
            if (Math.abs(p.width - c.width) > 1 || Math.abs(p.height - c.height) > 1)
                out.push("canvas " + c.width + "x" + c.height + " in " + p.width + "x" + p.height);
        }
        for (const e of document.querySelectorAll(
            ".tile, .tile *, .card, .head, #headline, #subline, #shares, .legend, header, footer",
        ))
            if (
                e.offsetParent &&
                e.scrollWidth > e.clientWidth + 1 &&
                getComputedStyle(e).display !== "inline" &&
                getComputedStyle(e).overflowX === "visible"
            )
                out.push("cut off: " + (e.id || e.className || e.tagName) + " " + e.textContent.slice(0, 40));
        if (innerWidth >= 1024)
            for (const table of document.querySelectorAll("#models, #recent"))
                if (table.parentElement.scrollWidth > table.parentElement.clientWidth)
                    out.push(
                        "#" +
                            table.id +
                            " is " +
                            table.parentElement.scrollWidth +
                            " wide in " +
                            table.parentElement.clientWidth,
                    );
        for (const b of document.querySelectorAll("button, select, input, summary"))
            if (b.offsetParent && (box(b).height < 23.5 || box(b).width < 23.5))
                out.push("a small target: " + b.textContent + " " + box(b).width + "x" + box(b).height);
        return out;
    });
    assert.deepEqual(faults, [], what);
}

export const shot = (page, name) => page.screenshot({ path: "shots/" + name + ".png", fullPage: true });

export async function everywhere(server, name, options = {}) {
    for (const theme of ["light", "dark"])
        for (const width of [390, 1024, 1440]) {
            const page = await open(server, { ...options, width, theme });
            await sleep(150);
            await geometry(page, name + " " + width + " " + theme);
            await noViolations(page, name + " " + width + " " + theme);
            await shot(page, name + "-" + width + "-" + theme);
            await page.end();
        }
}

/* Ends what is left: a test that failed leaves its costd running. */
export async function end() {
    for (const child of daemons) child.kill("SIGKILL");
    await browser.close();
}
