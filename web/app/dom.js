/** Small helpers to make elements and words. */

/** `h('button.small', { onclick }, 'Text', child)`: classes after dots, properties and `data-`/`aria-` attributes by name. */
export function h(spec, attributes = {}, ...children) {
    const [tag, ...classes] = spec.split('.');
    const element = document.createElement(tag || 'div');
    if (classes.length) element.className = classes.join(' ');
    for (const [name, value] of Object.entries(attributes)) {
        if (value === undefined || value === null || value === false) continue;
        if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
        else if (name === 'hue') element.style.setProperty('--hue', value);
        else element.setAttribute(name, value === true ? '' : value);
    }
    element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
    return element;
}

export const $ = (id) => document.getElementById(id);

export function icon(name) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('aria-hidden', 'true');
    const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
    use.setAttribute('href', `#i-${name}`);
    svg.append(use);
    return svg;
}

/**
 * Brings a list's children to what `items` say with the fewest changes: an element stays as it is while its key and
 * its version stay the same, so a scroll position, a focus and a selection survive.
 */
export function reconcile(parent, items, make) {
    const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
    let place = parent.firstElementChild;
    for (const item of items) {
        let element = old.get(item.key);
        old.delete(item.key);
        if (!element || element.dataset.version !== item.version) {
            const fresh = make(item);
            fresh.dataset.key = item.key;
            fresh.dataset.version = item.version;
            if (element === place) place = place?.nextElementSibling ?? null;
            element?.remove();
            element = fresh;
        }
        if (element === place) place = place.nextElementSibling;
        else parent.insertBefore(element, place);
    }
    for (const gone of old.values()) gone.remove();
}

const HUES = [232, 262, 292, 322, 344, 8, 22, 160, 178, 196, 210];

/** The same colour for the same id, everywhere and on each device. */
export function hue(id) {
    let sum = 0;
    for (const letter of id ?? '') sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
    return HUES[sum % HUES.length];
}

export function initials(name) {
    const words = (name ?? '?').trim().split(/\s+/);
    return ((words[0]?.[0] ?? '?') + (words.length > 1 ? words.at(-1)[0] : '')).toUpperCase();
}

/** Fills an avatar's element. */
export function paintAvatar(element, id, name, { online = false, group = false } = {}) {
    element.style.setProperty('--hue', hue(id));
    element.setAttribute('aria-hidden', 'true');
    if (online) element.dataset.online = 'true';
    else delete element.dataset.online;
    element.replaceChildren(group ? icon('group') : initials(name));
    return element;
}

export const avatar = (id, name, options) => paintAvatar(h('span.avatar'), id, name, options);

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'short' });
const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const longDate = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });

const dayOf = (ts) => new Date(ts).setHours(0, 0, 0, 0);
const daysAgo = (ts) => Math.round((dayOf(Date.now()) - dayOf(ts)) / 86_400_000);

export const timeOf = (ts) => clock.format(ts);

/** For lists: a time today, a weekday this week, a date before. */
export function shortWhen(ts) {
    const ago = daysAgo(ts);
    return ago <= 0 ? clock.format(ts) : ago < 7 ? weekday.format(ts) : date.format(ts);
}

export function dayLabel(ts) {
    const ago = daysAgo(ts);
    return ago === 0 ? 'Today' : ago === 1 ? 'Yesterday' : longDate.format(ts);
}

export const sameDay = (a, b) => dayOf(a) === dayOf(b);

export function lastSeen(ts) {
    if (!ts) return 'offline';
    const minutes = Math.floor((Date.now() - ts) / 60_000);
    if (minutes < 1) return 'last seen just now';
    if (minutes < 60) return `last seen ${minutes} min ago`;
    return `last seen ${daysAgo(ts) === 0 ? `at ${clock.format(ts)}` : shortWhen(ts)}`;
}

/** Text with its links made clickable. */
export function linked(text) {
    return text.split(/(https?:\/\/[^\s<>"']+[^\s<>"'.,:;!?)\]])/).map((part, index) => index % 2
        ? h('a', { href: part, target: '_blank', rel: 'noopener noreferrer' }, part)
        : part);
}

/** One to three emoji and nothing else. */
export const isBig = (text) => /^(?:\p{Extended_Pictographic}(?:\uFE0F|\p{Emoji_Modifier}|\u200D\p{Extended_Pictographic})*\s*){1,3}$/u.test(text);

let toastTimer;
export function toast(text) {
    const element = $('toast');
    // Shown anew each time, so that it stands above a dialog that was opened since.
    if (element.matches(':popover-open')) element.hidePopover();
    element.textContent = text;
    element.showPopover();
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => element.hidePopover(), 3500);
}
