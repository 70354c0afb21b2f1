/* The page as its readers meet it: every width and theme, every state, the keyboard alone.
 *
 *   node check_page.mjs COSTD MODELS CHROMIUM
 *   ONLY=live node check_page.mjs ...          one test alone */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import assert from "node:assert/strict";
import {
    browser,
    costd,
    end,
    EVERY_MS,
    everywhere,
    geometry,
    noViolations,
    open,
    PRICE,
    shot,
    sleep,
    TWO,
} from "./harness.mjs";
import { HOSTILE, syntheticDay } from "./synthetic_day.mjs";

async function noTrafficYet() {
    const server = await costd(...TWO, ...PRICE);
    await everywhere(server, "empty");
    const page = await open(server, { permissions: ["clipboard-read", "clipboard-write"] });
    assert.match(await page.textContent("#welcome"), /No traffic yet/);
    await page.click("#copy-curl");
    const line = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(await page.textContent("#copy-curl"), "Copied");
    /* The command that it shows works, and ends this state. */
    const shell = spawn("sh", ["-c", line], { stdio: ["ignore", "pipe", "ignore"] });
    let answer = "";
    for await (const part of shell.stdout) answer += part;
    assert.equal(JSON.parse(answer).output_tokens, 50);
    await page.waitForFunction(() => document.getElementById("welcome").hidden, null, { timeout: 15000 });
    assert.match(await page.textContent("#headline"), /^small used/);
    await page.end();
    await server.stop();
}

async function loading() {
    const server = await costd(...TWO, ...PRICE);
    const context = await browser.newContext();
    const page = await context.newPage();
    let go;
    const gate = new Promise((d) => {
        go = d;
    });
    await page.route("**/api/*", async (route) => {
        await gate;
        await route.continue();
    });
    await page.goto(server.url);
    assert.equal(await page.textContent("#headline"), "Loading…");
    go();
    await page.waitForFunction(() => !/Loading/.test(document.getElementById("headline").textContent));
    await context.close();
    await server.stop();
}

async function aWorkload(server, n = 40) {
    for (let i = 0; i < n; i++) await server.generate(i % 5 ? "large" : "small", { max_tokens: 24 });
    await server.generate("large", { max_tokens: -1 });
}

async function live() {
    const server = await costd(...TWO, ...PRICE, "--daily-budget", "5");
    const began = Date.now();
    await aWorkload(server);
    await sleep(Math.max(0, 21000 - (Date.now() - began)));
    await everywhere(server, "live");

    /* The page says what /metrics says. */
    const page = await open(server, { axe: false });
    const h = await server.history(),
        metrics = await server.metrics();
    const served = Number(metrics.match(/^model_estimated_cost_dollars_total\{model_name="large"\} (\S+)/m)[1]);
    const bill = [...metrics.matchAll(/^costinfer_device_cost_dollars_total\{.*\} (\S+)/gm)].reduce(
        (s, m) => s + Number(m[1]),
        0,
    );
    const rows = await page.$$eval("#shares tbody tr, #shares tfoot tr", (trs) =>
        trs.map((tr) => [...tr.cells].map((c) => c.textContent)),
    );
    const shown = rows.find((r) => r[0] === "large");
    assert.ok(
        Math.abs(parseFloat(shown[2].replace("< ", "")) - (100 * served) / bill) <= 1,
        shown + " " + served / bill,
    );
    assert.ok(Math.abs(Number(shown[1].slice(1)) / served - 1) < 0.01, shown + " " + served);
    assert.equal(rows[rows.length - 1][2], "100 %");
    assert.ok(
        Math.abs(
            rows.slice(0, -1).reduce((s, r) => s + Number(r[1].slice(1)), 0) /
                Number(rows[rows.length - 1][1].slice(1)) -
                1,
        ) < 0.01,
        "adds to the bill",
    );
    assert.equal((await page.$$("#recent tbody tr")).length, 40);
    assert.equal(
        h.models.reduce((s, m) => s + m.since_start.requests, 0),
        40,
    );
    assert.match(await page.textContent("#tiles"), /1 error/);
    await page.end();
    await theKeyboardAlone(server);
    await exports(server);
    await ranges(server);
    await themes(server);
    await lostAndRestarted(server);
}

async function theKeyboardAlone(server) {
    const page = await open(server, { permissions: ["clipboard-read", "clipboard-write"] });
    const wanted = await page.$$eval(
        'a[href], button, select, input, summary, [tabindex="0"]',
        (all) =>
            all
                .filter((e) => e.offsetParent || e.matches(".skip"))
                .filter((e) => e.checkVisibility({ contentVisibilityAuto: true })).length,
    );
    const seen = new Set();
    for (let i = 0; i < wanted + 5; i++) {
        await page.keyboard.press("Tab");
        const at = await page.evaluate(() => {
            const e = document.activeElement;
            if (e === document.body) return null;
            window.walk = window.walk || [];
            if (!window.walk.includes(e)) window.walk.push(e);
            const s = getComputedStyle(e),
                r = e.getBoundingClientRect();
            return {
                n: window.walk.indexOf(e),
                visible: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 && r.width > 0,
                what: e.textContent.slice(0, 40) || e.id,
            };
        });
        if (!at) break;
        assert.ok(at.visible, "the focus cannot be seen on " + at.what);
        seen.add(at.n);
    }
    assert.ok(seen.size >= wanted, seen.size + " of " + wanted + " can be reached");

    const press = async (selector, key = "Enter") => {
        await page.focus(selector);
        await page.keyboard.press(key);
    };
    await press("#ranges button:nth-child(3)");
    assert.match(page.url(), /range=6h/);
    await page.waitForFunction(() => /6 hours/.test(document.getElementById("headline").textContent));
    await press("#models th[data-key=name] button");
    assert.equal(await page.getAttribute("#models th[data-key=name]", "aria-sort"), "ascending");
    const names = () => page.$$eval("#models tbody th", (cells) => cells.map((c) => c.textContent));
    assert.deepEqual(await names(), ["large", "small"]);
    await press("#models th[data-key=name] button", "Space");
    assert.deepEqual(await names(), ["small", "large"]);
    await press("#charts .legend button", "Space");
    assert.equal(await page.getAttribute("#charts .legend button", "aria-pressed"), "false");
    await press("#charts summary");
    await page.waitForFunction(() => document.querySelector("#charts details table").rows.length > 1);
    await noViolations(page, "with a table open");
    await geometry(page, "with a table open");
    await press("#pause", "Space");
    assert.equal(await page.getAttribute("#pause", "aria-pressed"), "true");
    await press("#charts .head button");
    assert.match(
        await page.evaluate(() => navigator.clipboard.readText()),
        /^sum by \(model_name\) \(rate\(model_estimated_cost_dollars_total/,
    );
    await page.fill("#reference", "0.5");
    assert.match(await page.textContent("#tiles"), /the reference \$0\.500/);
    await page.end();
}

async function exports(server) {
    const page = await open(server, { path: "?range=15m" });
    const take = async (id) => {
        const [download] = await Promise.all([page.waitForEvent("download"), page.click(id)]);
        return [download.suggestedFilename(), readFileSync(await download.path(), "utf8")];
    };
    const [csvName, csv] = await take("#csv");
    const [jsonName, json] = await take("#json");
    assert.deepEqual([csvName, jsonName], ["costd-15m.csv", "costd-15m.json"]);
    const lines = csv.trim().split("\r\n"),
        data = JSON.parse(json);
    assert.equal(lines.length, 1 + data.times.length * (data.models.length + 2));
    assert.match(lines[0], /^time,model,device_seconds,cost,input_tokens,/);
    for (const line of lines) assert.equal(line.split(",").length, 13, line);
    const cells = lines.slice(1).map((line) => line.split(","));
    for (const name of ['"(load)"', '"(idle)"'])
        for (const row of cells.filter((c) => c[1] === name)) {
            assert.ok(row[2] !== "" && row[3] !== "" && row[2] >= 0 && row[3] >= 0, row.join());
            assert.deepEqual(row.slice(4), Array(9).fill(""));
        }
    const covered = cells.reduce((s, c) => s + Number(c[2]), 0);
    assert.ok(Math.abs(covered - 10 * data.times.length) < 1, "device time of all rows: " + covered);
    assert.equal(data.requests.length, 40);
    await page.end();
}

async function ranges(server) {
    const page = await open(server, { path: "?range=24h" });
    assert.match(await page.textContent("#headline"), /24 hours/);
    await page.click('text="15m"');
    await page.waitForFunction(() => /15 minutes/.test(document.getElementById("headline").textContent));
    await page.goBack();
    await page.waitForFunction(() => /24 hours/.test(document.getElementById("headline").textContent));
    await page.goto(server.url + "?range=bogus");
    await page.waitForFunction(() => /last hour/.test(document.getElementById("headline").textContent));
    await page.end();
}

async function themes(server) {
    const page = await open(server, { theme: "light" });
    const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await back();
    await page.selectOption("#theme", "dark");
    const dark = await back();
    assert.notEqual(light, dark);
    await page.reload();
    await page.waitForFunction(() => document.querySelector("#tiles .tile"));
    assert.equal(await back(), dark);
    await page.selectOption("#theme", "");
    assert.equal(await back(), light);
    await page.emulateMedia({ colorScheme: "dark", reducedMotion: "reduce" });
    assert.equal(await back(), dark);
    assert.equal(await page.$eval("#bar div", (e) => getComputedStyle(e).transitionDuration), "0s");
    await page.end();
}

async function lostAndRestarted(server) {
    const page = await open(server, { expected: /ERR_CONNECTION_REFUSED|Failed to load resource/ });
    await server.stop();
    await page.waitForSelector(".banner.bad", { timeout: 15000 });
    assert.match(await page.textContent(".banner.bad"), /Connection lost\. The figures are from .* ago/);
    assert.equal(await page.textContent("#status"), "Connection lost");
    assert.ok(await page.$("#tiles .tile"), "the last figures stay");
    await geometry(page, "lost");
    await noViolations(page, "lost");
    await shot(page, "lost-1440-light");
    const again = await costd(...TWO, ...PRICE, "--listen", "127.0.0.1:" + server.port);
    await page.click('text="Try now"');
    await page.waitForFunction(() => /costd restarted/.test(document.getElementById("banners").textContent), null, {
        timeout: 15000,
    });
    assert.equal((await page.$$(".banner.bad")).length, 0);
    await geometry(page, "restarted");
    await noViolations(page, "restarted");
    await shot(page, "restarted-1440-light");
    await page.click('text="Dismiss"');
    assert.equal((await page.$$(".banner")).length, 0);
    await page.end();
    await again.stop();
}

/* The page is public and its figures are not: it asks for a key, tries it, keeps it for the tab, and sends it to costd
 * alone. */
async function withKeys() {
    const folder = mkdtempSync(tmpdir() + "/costd-page-"),
        file = folder + "/keys",
        key = "sk-page";
    const line = (name, key, right) => `${name} ${createHash("sha256").update(key).digest("hex")}${right}\n`;
    writeFileSync(file, line("me", key, " admin") + line("other", "sk-other", ""));
    const server = await costd(...TWO, ...PRICE, "--keys", file);
    const page = await open(server, {
        width: 360,
        expected: /401|403/,
        until: () => !document.getElementById("locked").hidden,
    });
    assert.match(await page.textContent("#headline"), /need an API key/);
    assert.equal((await page.$$(".banner")).length, 0);
    await geometry(page, "locked");
    await noViolations(page, "locked");
    await shot(page, "locked-360-light");
    await page.fill("#key", "wrong");
    await page.press("#key", "Enter");
    await page.waitForFunction(() => /does not know/.test(document.getElementById("key-note").textContent));
    await sleep(EVERY_MS + 500);
    assert.equal(await page.inputValue("#key"), "wrong"); /* asking has paused, and what was typed stays */
    await page.fill("#key", "sk-other");
    await page.press("#key", "Enter");
    await page.waitForFunction(() => /an admin key/.test(document.getElementById("key-note").textContent));
    await page.fill("#key", key);
    await page.press("#key", "Enter");
    await page.waitForFunction(() => document.querySelector("#tiles .tile"));
    assert.equal(await page.isVisible("#locked"), false);
    assert.equal(await page.evaluate(() => sessionStorage.getItem("costd-key")), key);
    assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("sk-")), false);
    assert.equal(await page.evaluate(() => location.href.includes("sk-") || document.cookie !== ""), false);
    await page.reload();
    await page.waitForFunction(() => document.querySelector("#tiles .tile"));
    await page.end();
    await server.stop();
    rmSync(folder, { recursive: true });
}

async function overBudget() {
    const server = await costd(...TWO, ...PRICE, "--daily-budget", "0.000000001");
    await aWorkload(server, 40);
    const page = await open(server, { width: 1024, theme: "dark" });
    assert.match(
        await page.textContent(".banner.bad"),
        /^Over budget: serving cost \$0\.000\d+ in the last 24 hours; the daily budget is \$0\.00000000100\.$/,
    );
    assert.doesNotMatch(await page.textContent("body"), /\$0\.00(?!\d)/);
    await geometry(page, "over budget");
    await noViolations(page, "over budget");
    await shot(page, "over-budget-1024-dark");
    await page.end();
    await server.stop();
}

async function noPrice() {
    const server = await costd(...TWO);
    await aWorkload(server, 10);
    const page = await open(server);
    const text = await page.textContent("main");
    assert.match(text, /no price set/);
    assert.match(await page.textContent("#headline"), /^large used [\d.]+ % of the time/);
    assert.doesNotMatch(text, /\$\d/);
    await geometry(page, "no price");
    await noViolations(page, "no price");
    await shot(page, "no-price-1440-light");
    await page.end();
    await server.stop();
}

/* The headline, the line below it and both tables state shares of the bill; the forecast is of what was served. */
async function oneDenominator(page, day) {
    const share = (name) =>
        page.$$eval(
            "#shares tbody tr",
            (trs, n) => trs.find((tr) => tr.cells[0].textContent === n).cells[2].textContent,
            name,
        );
    const number = (text) => Number(text.match(/[\d.]+/)[0]);
    assert.match(
        await page.textContent("#headline"),
        new RegExp("^gpt2-xl used " + (await share("gpt2-xl")) + " of the bill"),
    );
    const t = day.range_total,
        used = (100 * t.serve_cost) / t.cost;
    const below = await page.textContent("#subline");
    assert.ok(Math.abs(number(below) - used) < 0.6, below + " " + used);
    assert.match(
        below,
        /^The models together used \d+ % of the bill; the rest is loading \(0\.\d %\), idle time \(\d+ %\)/,
    );
    assert.match(below, /, lost time \(\d.*%\), and overhead \(\d.*%\)\.$/);
    for (const name of ["Loading", "Idle time", "Lost time", "Overhead"]) assert.match(await share(name), /%$/);
    const shares = await page.$$eval("#shares tbody tr", (trs) => trs.map((tr) => tr.cells[2].textContent));
    assert.ok(Math.abs(shares.reduce((s, x) => s + number(x), 0) - 100) < 3, "shares add up: " + shares);
    assert.equal(await page.$eval("#models tbody tr td", (td) => td.textContent), await share("gpt2-xl"));
    const forecast = await page.textContent("#money .tile:nth-child(2)");
    assert.match(forecast, /^Serving, at this pace\$[\d.]+ a day/);
    assert.ok(Math.abs(number(forecast) - t.serve_cost) < 0.01, forecast + " " + t.serve_cost);
    const legend = await page.$$eval("#charts > :first-child .legend .label", (all) => all.map((e) => e.textContent));
    assert.deepEqual(legend.slice(-4), ["loading", "idle time", "lost time", "overhead"]);
}

/* What lines are compared with does not flatten them: a price far above them leaves the scale alone, and the legend
 * says where it is. */
async function referencePrices(server, mock) {
    const page = await open(server, {
        mock,
        path: "?range=24h",
        init: () => {
            /* Keeps every plot that is made, to look at its scales. */
            let made;
            window.plots = new Set();
            Object.defineProperty(window, "uPlot", {
                configurable: true,
                get: () => made,
                set: (Plot) => {
                    made = new Proxy(Plot, {
                        construct: (P, given) => {
                            const u = new P(...given);
                            window.plots.add(u);
                            return u;
                        },
                    });
                },
            });
        },
    });
    const card = page.locator("#charts .card", { hasText: "per 1K output tokens" });
    const top = () =>
        page.evaluate(
            () =>
                [...window.plots].find(
                    (u) => document.contains(u.root) && u.series.some((s) => /reference/.test(s.label)),
                ).scales.y.max,
        );
    const highest = Math.max(
        ...mock()
            .models.slice(0, 6)
            .flatMap((m) => m.points.output_tokens.map((n, i) => (n ? (1000 * m.points.serve_cost[i]) / n : 0))),
    );
    await sleep(300);
    const low = await top();
    assert.ok(low > highest && low < 1.2 * highest, "a low price: " + low + " of " + highest);
    assert.doesNotMatch(await card.textContent(), /above the plot/);
    for (const [price, wanted, above] of [
        ["5", 1.08 * highest, true],
        [String(1.5 * highest), 1.62 * highest, false],
    ]) {
        await page.fill("#reference", price);
        await sleep(300);
        assert.ok(Math.abs((await top()) / wanted - 1) < 0.02, price + ": " + (await top()) + " for " + wanted);
        assert.equal(/reference API price\$[\d.]+ \(above the plot\)/.test(await card.textContent()), above);
    }
    assert.match(
        await page.locator("#charts .card", { hasText: "Output tokens a second" }).textContent(),
        /input, all models\d+ \(above the plot\)/,
    );
    await page.end();
}

/* Nine models, one of them with markup for a name, and a gap. */
async function aBusyDay() {
    const server = await costd(...TWO, ...PRICE);
    const real = await server.history();
    const mock = () => syntheticDay(real);
    await referencePrices(server, mock);
    await everywhere(server, "day", { mock, path: "?range=24h" });
    const page = await open(server, { mock, path: "?range=24h" });
    assert.ok((await page.textContent("#shares")).includes(HOSTILE), "the name is text");
    assert.match(
        await page.textContent("#headline"),
        /^gpt2-xl used 1\d % of the bill: \$\d+\.\d\d of \$60\.00 in the last 24 hours\.$/,
    );
    assert.match(await page.textContent(".banner.bad"), /Over budget: serving cost \$\d\d\.\d\d in/);
    assert.match(await page.textContent("#shares"), /3 other models/);
    await oneDenominator(page, mock());
    assert.match(await page.textContent("#models"), /≥ 100 s/);
    assert.equal((await page.$$("#models tbody tr")).length, 9);
    const dashes = await page.$$eval("#charts > :first-child .legend line", (l) =>
        l.map((e) => e.getAttribute("stroke-dasharray")),
    );
    assert.equal(new Set(dashes).size, dashes.length, "lines of one dash: " + dashes);
    await page.end();
    await server.stop();
}

let failed = 0;
for (const test of process.env.ONLY
    ? [eval(process.env.ONLY)]
    : [noTrafficYet, loading, live, withKeys, overBudget, noPrice, aBusyDay]) {
    const start = Date.now();
    try {
        await test();
        console.log(test.name.padEnd(24) + ((Date.now() - start) / 1000).toFixed(1) + " s");
    } catch (error) {
        failed = 1;
        console.log(test.name + " FAILED: " + error.stack);
    }
}
await end();
process.exit(failed);
