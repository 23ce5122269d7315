/** The frames of this device's connection, as they are, with what the client library made of them between. */

import { $, h } from './dom.js';

const KEPT = 400;

export class Inspector {
    constructor(client) {
        this.client = client;
        this.list = $('frames');
        client.on('frame', (frame) => this.#add(frame));
        client.on('state', () => this.#facts());
        client.on('caught_up', () => this.#facts());
        $('inspector-clear').onclick = () => this.list.replaceChildren();
        $('inspector-close').onclick = () => this.toggle(false);
        $('quiet').onchange = () => this.#filter();
        $('cut').onclick = () => (client.state.name === 'closed' ? client.connect() : client.close());
        this.#facts();
    }

    toggle(shown = $('inspector').hidden) {
        $('inspector').hidden = !shown;
        $('show-inspector').setAttribute('aria-pressed', String(shown));
        this.#facts();
        this.list.scrollTop = this.list.scrollHeight;
    }

    #facts() {
        const { client } = this;
        const rows = { state: client.state.name, instance: client.instance ?? '–', device: client.device, cursor: client.cursor ?? '–', unsent: client.outbox.length };
        $('facts').replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, String(value))]));
        const isOffline = client.state.name === 'closed';
        $('cut').textContent = isOffline ? 'Go online' : 'Go offline';
        $('cut').setAttribute('aria-pressed', String(isOffline));
    }

    #add({ direction, text, at }) {
        const isAtEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
        this.list.append(direction === 'note' ? h('li.note', {}, text) : this.#frame(direction, text, at));
        while (this.list.children.length > KEPT) this.list.firstElementChild.remove();
        if ($('inspector').hidden) return;
        this.#facts();
        if (isAtEnd) this.list.scrollTop = this.list.scrollHeight;
    }

    #frame(direction, text, at) {
        let frame = {};
        try {
            frame = JSON.parse(text);
        } catch { /* shown as it is */ }
        const { type = '?', cursor: _, ...rest } = frame;
        const time = new Date(at).toISOString().slice(11, 23);
        const isQuiet = ['ping', 'pong', 'ack'].includes(type);
        const gist = rest.text ?? rest.status ?? rest.code ?? rest.kind ?? rest.change ?? '';
        const seq = rest.seq === undefined ? '' : `#${rest.seq} `;
        // The whole is only made when it is looked at.
        const details = h('details', {
            ontoggle: () => details.open && details.children.length === 1 && details.append(h('pre', {}, JSON.stringify(frame, null, 2))),
        }, h('summary', {}, h('time', {}, time), h(`span.${direction}`, {}, direction === 'in' ? '↓' : '↑'), h('b', {}, type), h('span', {}, `${seq}${gist}`)));
        return h('li', { 'data-quiet': isQuiet, hidden: isQuiet && $('quiet').checked }, details);
    }

    #filter() {
        for (const row of this.list.querySelectorAll('[data-quiet]')) row.hidden = $('quiet').checked;
    }
}
