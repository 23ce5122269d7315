/** A button's menu, as role=menu promises: walked with the arrow keys, left with Escape or Tab, focus given back. */

/** `acts`: what each item's `data-do` does. Answers how to close it, which says whether it was open. */
export function popupMenu(button, items, acts) {
    const entries = [...items.querySelectorAll('[role=menuitem]')];
    for (const entry of entries) entry.tabIndex = -1;
    const show = (at) => {
        items.hidden = at === undefined;
        button.setAttribute('aria-expanded', String(!items.hidden));
        if (!items.hidden) entries.at(at).focus();
    };
    const close = () => {
        if (items.hidden) return false;
        show(undefined);
        button.focus();
        return true;
    };
    button.onclick = (event) => {
        event.stopPropagation();
        show(items.hidden ? 0 : undefined);
    };
    button.onkeydown = (event) => {
        const at = { ArrowDown: 0, ArrowUp: -1 }[event.key];
        if (at === undefined) return;
        event.preventDefault();
        show(at);
    };
    items.onkeydown = (event) => {
        if (event.key === 'Tab') return close();
        const at = entries.indexOf(document.activeElement);
        const to = { ArrowDown: (at + 1) % entries.length, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        entries.at(to).focus();
    };
    items.onclick = (event) => {
        const act = acts[event.target.dataset.do];
        if (!act) return;
        event.stopPropagation();
        close();
        act();
    };
    document.addEventListener('click', () => show(undefined));
    return close;
}
