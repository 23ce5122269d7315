/** The pipeline as a picture: drawn once, then only its words, colours and paces change. */

const SVG = 'http://www.w3.org/2000/svg';

/** Boxes: middle x, middle y, width, height. */
const PLACES = { devices: [75, 150, 110, 64, 'devices'], postgres: [1100, 400, 120, 60, 'Postgres'], webhook: [75, 400, 110, 60, 'webhook'] };
const STAGES = {
    ingest: [290, 150, 160, 96, 'chat servers'], join: [690, 70, 150, 96, 'join'], delivery: [690, 250, 150, 96, 'delivery'],
    history: [1090, 70, 150, 96, 'history'], cdc: [890, 400, 150, 84, 'cdc'], push: [290, 400, 150, 84, 'push'],
};

/** Where things flow: path, what tells the rate, the label's place and text. */
const FLOWS = [
    { d: 'M130 140H210', rate: 'in ingest', at: [172, 124] },
    { d: 'M210 162H130', rate: 'out ingest', at: [172, 190] },
    { d: 'M370 130C450 130 490 70 615 70', rate: 'topic chat.incoming', at: [478, 76], topic: 'chat.incoming', hop: 'log_join' },
    { d: 'M765 70H1015', rate: 'topic chat.messages', at: [890, 56], topic: 'chat.messages' },
    { d: 'M690 118V202', rate: 'topic chat.deliveries', at: [776, 158], topic: 'chat.deliveries', hop: 'join_delivery' },
    { d: 'M615 250C500 250 460 170 370 170', rate: 'out delivery', at: [478, 246], topic: 'push link', hop: 'delivery_socket' },
    { d: 'M640 298C600 400 480 400 365 400', rate: 'topic chat.push', at: [524, 402], topic: 'chat.push' },
    { d: 'M215 400H130', rate: 'out push', at: [172, 384] },
    { d: 'M1090 118V370', rate: 'out history', at: [1130, 250] },
    { d: 'M1040 400H965', rate: 'in cdc', at: [1003, 384] },
    { d: 'M890 358C890 170 850 110 765 92', rate: 'topic chat.members', at: [896, 232], topic: 'chat.members' },
];

function make(parent, tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
}

export class Picture {
    constructor(svg) {
        this.flows = FLOWS.map((flow) => {
            make(svg, 'path', { d: flow.d, class: 'flow' });
            return { ...flow, moving: make(svg, 'path', { d: flow.d, class: 'moving still' }) };
        });
        for (const flow of this.flows) {
            const [x, y] = flow.at;
            const lines = 1 + (flow.topic ? 1 : 0) + (flow.hop ? 1 : 0);
            const width = flow.topic ? 118 : 46;
            make(svg, 'rect', { class: 'chip', x: x - width / 2, y: y - 13, width, height: lines * 16 + 4, rx: 7 });
            flow.text = make(svg, 'text', { class: 'rate', x, y, 'text-anchor': 'middle' }, '–');
            if (flow.topic) make(svg, 'text', { class: 'topic', x, y: y + 16, 'text-anchor': 'middle' }, flow.topic);
            if (flow.hop) flow.latency = make(svg, 'text', { class: 'soft', x, y: y + 32, 'text-anchor': 'middle' }, '');
        }
        this.boxes = {};
        for (const [name, box] of Object.entries(PLACES)) this.boxes[name] = this.#box(svg, 'place', box);
        for (const [name, box] of Object.entries(STAGES)) this.boxes[name] = this.#box(svg, 'stage', box);
    }

    #box(svg, kind, [x, y, width, height, name]) {
        const group = make(svg, 'g', { class: kind });
        make(group, 'rect', { x: x - width / 2, y: y - height / 2, width, height, rx: 14 });
        const left = x - width / 2 + 16;
        if (kind === 'stage') {
            make(group, 'circle', { class: 'lamp', cx: x + width / 2 - 18, cy: y - height / 2 + 20, r: 5 });
            make(group, 'text', { class: 'name', x: left, y: y - height / 2 + 25 }, name);
            return { group, lines: [46, 64, 82].map((down) => make(group, 'text', { class: 'soft', x: left, y: y - height / 2 + down }, '')) };
        }
        make(group, 'text', { class: 'name', x, y: y - 2, 'text-anchor': 'middle' }, name);
        return { group, lines: [make(group, 'text', { class: 'soft', x, y: y + 17, 'text-anchor': 'middle' }, '')] };
    }

    draw(now) {
        for (const flow of this.flows) {
            const [kind, name] = flow.rate.split(' ');
            const rate = now[kind](name);
            flow.text.textContent = rate === undefined ? '–' : `${now.short(rate)}/s`;
            if (flow.latency) flow.latency.textContent = now.hop(flow.hop) ?? '';
            const moves = rate > 0.05;
            flow.moving.classList.toggle('still', !moves);
            // Ten times the rate goes about twice as fast; it is a picture, the number stands beside it. Set only when it
            // changes visibly, since setting it makes the dots jump.
            const pace = moves ? (2.4 / (1 + Math.log10(1 + rate))).toFixed(1) : '';
            if (pace !== flow.pace) flow.moving.style.setProperty('--pace', `${flow.pace = pace}s`);
        }
        for (const stage of Object.keys(STAGES)) {
            const { group, lines } = this.boxes[stage];
            group.dataset.tone = now.tone(stage);
            const words = stage === 'ingest' ? [`${now.short(now.sessions)} session${now.sessions === 1 ? '' : 's'}`, now.hop('socket_log') && `to log ${now.hop('socket_log')}`]
                : stage === 'cdc' ? (now.slot ?? '–').split(' · ') : (now.lag(stage) ?? '–').split(' · ');
            lines.forEach((line, index) => { line.textContent = words[index] ?? ''; });
        }
        this.boxes.devices.lines[0].textContent = now.hop('end_to_end') ?? '';
    }
}
