/* dom.js - elements of the document: found, made and given a text.  Every text is set as text and never parsed as
 * HTML, because names of models come from outside. */
export const $ = (id) => document.getElementById(id);

/* An attribute that begins with "on" is a listener; null and false leave an attribute out. */
export function el(tag, attributes, ...children) {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attributes || {}))
        if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
        else if (k === "style") Object.assign(e.style, v);
        else if (v !== null && v !== false) e.setAttribute(k, v === true ? "" : v);
    e.append(...children.filter((c) => c !== null));
    return e;
}

/* An unchanged text is left alone, so that screen readers do not read it again. */
export function put(e, text) {
    if (e.textContent !== text) e.textContent = text;
}

/* Copies a text to the clipboard and says so on the button that was pressed. */
export async function copy(text, button) {
    try {
        await navigator.clipboard.writeText(text);
    } catch {
        /* The clipboard's API exists only on pages from localhost or over https. */
        const area = el("textarea", { class: "hidden" });
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
        button.focus();
    }
    const label = button.textContent;
    if (label === "Copied") return;
    button.textContent = "Copied";
    setTimeout(() => {
        button.textContent = label;
    }, 1500);
}
