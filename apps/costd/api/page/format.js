/* format.js - numbers, money, times and sizes as text.  Three significant digits are enough to compare by, and a
 * figure that costd could not give is shown as a dash, never as a zero. */
const NONE = "–";
const known = (x) => x != null && isFinite(x);

export function number(x) {
    if (!known(x)) return NONE;
    if (Math.abs(x) >= 1000) return Math.round(x).toLocaleString("en-US");
    return x.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

export const count = (x) => x.toLocaleString("en-US");

/* Below a dollar there are three significant digits, so that an amount is never shown as "$0.00". */
function moneyDigits(x) {
    if (x >= 1000) return { maximumFractionDigits: 0 };
    if (x >= 1) return { minimumFractionDigits: 2, maximumFractionDigits: 2 };
    return { minimumSignificantDigits: 3, maximumSignificantDigits: 3 };
}

export function money(x) {
    if (!known(x)) return NONE;
    return x === 0 ? "$0" : "$" + x.toLocaleString("en-US", moneyDigits(x));
}

export function percent(x) {
    if (!known(x)) return NONE;
    if (x === 0) return "0 %";
    if (x < 0.001) return "< 0.1 %";
    const whole = (x >= 0.0995 && x < 0.995) || x >= 0.9995;
    return (100 * x).toFixed(whole ? 0 : 1).replace(/\.0$/, "") + " %";
}

/* A length of time in days, hours, minutes and whole seconds: the two largest units that it has. */
export function span(s) {
    const whole = Math.floor(s),
        hours = Math.floor(whole / 3600),
        minutes = Math.floor(whole / 60) % 60;
    if (hours >= 48) return Math.floor(hours / 24) + " d " + (hours % 24) + " h";
    if (hours) return hours + " h " + minutes + " min";
    if (minutes) return minutes + " min " + (whole % 60) + " s";
    return whole + " s";
}

export function seconds(s) {
    if (!known(s)) return NONE;
    if (s === 0) return "0 s";
    if (s < 1e-3) return number(s * 1e6) + " µs";
    if (s < 1) return number(s * 1e3) + " ms";
    return s < 120 ? number(s) + " s" : span(s);
}

/* costd's last histogram bound is 100 s: a quantile beyond it is known to be at least that. */
export const quantile = (s) => (s >= 99.99 ? "≥ 100 s" : seconds(s));

export const bytes = (n) => (n >= 2 ** 30 ? number(n / 2 ** 30) + " GiB" : number(n / 2 ** 20) + " MiB");

export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour12: false });
