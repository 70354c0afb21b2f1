/* state.js - what the page knows now: costd's latest answers and the reader's choices.  ask.js writes the answers,
 * start.js the choices; everything else only reads. */
export const RANGES = { "15m": "last 15 minutes", "1h": "last hour", "6h": "last 6 hours", "24h": "last 24 hours" };

/* Browsers refuse storage in private windows; the page then forgets, and works. */
function storage(open) {
    return {
        get: (key) => {
            try {
                return open().getItem(key);
            } catch {
                return null;
            }
        },
        set: (key, value) => {
            try {
                open().setItem(key, value);
            } catch {
                /* forgotten at the end of this visit */
            }
        },
    };
}
export const kept = storage(() => localStorage);
export const keptInTab = storage(() => sessionStorage);

/* The range that the page's address names. */
export function rangeOfAddress() {
    const range = new URLSearchParams(location.search).get("range");
    return range in RANGES ? range : "1h";
}

export const state = {
    range: rangeOfAddress(),
    reference: Number(kept.get("costd-reference") ?? 0.002), // dollars per 1K tokens
    paused: false,

    data: null, // the answer of /api/history
    recent: [], // the requests of /api/recent
    fetchedAt: 0,
    lost: false, // costd did not answer
    locked: false, // costd wants an API key
    forbidden: false, // and not the one it got
    restarted: null, // when costd started anew under this page
};
