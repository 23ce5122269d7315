/** The operations page: asks `GET /v1/ops` each second (docs/ops-api.md) and shows rates made of two answers. */

import { FanoutAPI } from '../fanout.js';
import { $, h } from './dom.js';
import { complete } from './metrics.js';
import { Picture } from './picture.js';

const EVERY_MS = 1000;
/** Rates are taken over some answers, so that a count that moves in steps does not flicker. */
const WINDOW = 5;
const STAGES = ['ingest', 'cdc', 'join', 'delivery', 'history', 'push'];
const HOPS = {
    socket_log: 'device → log', log_join: 'log → join', join_delivery: 'join → delivery',
    delivery_socket: 'join → device', end_to_end: 'log → device',
};

const history = [];
const sparks = new Map();
let api;
let timer;

const picture = new Picture($('picture'));
$('theme').onclick = () => {
    const dark = (document.documentElement.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
    document.documentElement.dataset.theme = dark ? 'light' : 'dark';
    localStorage.setItem('fanout:theme', document.documentElement.dataset.theme);
};
const theme = localStorage.getItem('fanout:theme');
if (theme) document.documentElement.dataset.theme = theme;
$('forget').onclick = () => { sessionStorage.removeItem('fanout:ops'); location.hash = ''; location.reload(); };
$('token-form').onsubmit = (event) => {
    event.preventDefault();
    begin($('token').value.trim());
};
begin(tokenOfAddress() ?? sessionStorage.getItem('fanout:ops'));

/** `/ops#token=…`, for bookmarks and scripts: what stands after # is never sent to a server. It is taken out of the address. */
function tokenOfAddress() {
    const token = /^#token=(.+)$/.exec(location.hash)?.[1];
    if (token) window.history.replaceState(null, '', location.pathname);
    return token;
}

function begin(token) {
    clearTimeout(timer);
    $('ask').hidden = Boolean(token);
    $('page').hidden = !token;
    $('forget').hidden = !token;
    if (!token) return $('token').focus();
    api = new FanoutAPI({ url: location.origin, token });
    poll(token);
}

async function poll(token) {
    try {
        const answer = complete(await api.ops());
        sessionStorage.setItem('fanout:ops', token);
        // A process that started anew counts from zero: rates start over with it.
        const last = history.at(-1);
        if (last && (answer.ts <= last.ts || shrank(last, answer))) history.length = 0;
        history.push(answer);
        if (history.length > WINDOW) history.shift();
        show(answer);
        link('good', 'live');
    } catch (error) {
        if (error.status === 401 || error.status === 403) {
            sessionStorage.removeItem('fanout:ops');
            $('ask-error').textContent = error.status === 403 ? 'This token has no admin scope.' : 'The server does not accept this token.';
            return begin(undefined);
        }
        link('bad', error.code === 'unreachable' ? 'the server cannot be reached' : error.message);
    }
    timer = setTimeout(() => poll(token), EVERY_MS);
}

function link(tone, text) {
    $('link').dataset.tone = tone;
    $('link-text').textContent = text;
}

const at = (value, path) => path.split('/').reduce((inner, name) => inner?.[name], value);
const shrank = (before, now) => STAGES.some((stage) => (at(now, `stages/${stage}/in`) ?? 0) < (at(before, `stages/${stage}/in`) ?? 0));

/** Per second, over the answers that are kept; undefined until there are two. */
function rate(path) {
    const [first, last] = [history[0], history.at(-1)];
    const [from, to] = [at(first, path), at(last, path)];
    if (history.length < 2 || from === undefined || to === undefined || from === null || to === null) return undefined;
    return Math.max(0, (to - from) * 1000 / (last.ts - first.ts));
}

// MARK: Figures for people

export function short(number) {
    if (number === undefined || number === null || Number.isNaN(number)) return '–';
    if (number >= 1e6) return `${(number / 1e6).toFixed(number >= 1e7 ? 1 : 2)}M`;
    if (number >= 10_000) return `${(number / 1000).toFixed(number >= 1e5 ? 0 : 1)}k`;
    return number >= 100 || Number.isInteger(number) ? String(Math.round(number)) : number.toFixed(number < 10 ? 1 : 0);
}
const ms = (value) => value === undefined || value === null ? '–' : value < 10 ? `${value.toFixed(2)} ms` : value < 1000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;
const seconds = (value) => value === undefined || value === null ? '–' : value < 1 ? `${Math.round(value * 1000)} ms` : value < 90 ? `${value.toFixed(1)} s` : `${Math.round(value / 60)} min`;
const bytes = (value) => value === undefined || value === null ? '–' : value < 1 << 20 ? `${Math.round(value / 1024)} KiB` : value < 1 << 30 ? `${(value / (1 << 20)).toFixed(value < 10 << 20 ? 1 : 0)} MiB` : `${(value / (1 << 30)).toFixed(1)} GiB`;

const TONES = { ok: 'good', OK: 'good', starting: 'warn', restarting: 'warn', BEHIND: 'warn', EMPTY: 'warn', down: 'bad', STALLED: 'bad', DANGER: 'bad' };
const tone = (state) => TONES[state] ?? '';
const state = (text) => text ? h('span.state', { 'data-tone': tone(text) }, text) : '–';

/** The worse of how a stage runs and how far it is behind. */
function stageTone(answer, stage) {
    const tones = [tone(at(answer, `stages/${stage}/state`)), tone(at(answer, `lag/${stage}/state`))];
    return ['bad', 'warn', 'good'].find((one) => tones.includes(one)) ?? '';
}

function show(answer) {
    $('version').textContent = answer.version ?? '';
    tiles(answer);
    picture.draw({
        tone: (stage) => stageTone(answer, stage),
        in: (stage) => rate(`stages/${stage}/in`), out: (stage) => rate(`stages/${stage}/out`),
        topic: (name) => rate(`topics/${name}/records`),
        lag: (stage) => answer.lag?.[stage] && `${short(answer.lag[stage].messages)} behind · ${seconds(answer.lag[stage].seconds)}`,
        hop: (name) => answer.hops?.[name] && `p99 ${ms(answer.hops[name].p99_ms)}`,
        sessions: at(answer, 'stages/ingest/sessions'), short,
        slot: answer.cdc && `slot ${answer.cdc.active ? 'active' : 'idle'} · ${bytes(answer.cdc.retained_bytes)} WAL`,
    });
    table('hops', ['hop', 'per second', 'p50', 'p99'], Object.entries(HOPS).filter(([name]) => answer.hops?.[name])
        .map(([name, label]) => [label, short(rate(`hops/${name}/count`)), ms(answer.hops[name].p50_ms), ms(answer.hops[name].p99_ms)]));
    table('lag', ['stage', 'messages', 'time', 'state'], Object.entries(answer.lag ?? {})
        .map(([stage, lag]) => [stage, short(lag.messages), seconds(lag.seconds), state(lag.state)])
        .concat(answer.cdc ? [['cdc slot', bytes(answer.cdc.retained_bytes), seconds(answer.cdc.seconds), answer.cdc.wal_status ?? '–']] : []));
    table('stages', ['stage', 'in /s', 'out /s', 'cores', 'memory', 'state'], STAGES.filter((stage) => answer.stages?.[stage])
        .map((stage) => [stage, short(rate(`stages/${stage}/in`)), short(rate(`stages/${stage}/out`)),
            rate(`stages/${stage}/cpu_seconds`)?.toFixed(2) ?? '–', bytes(answer.stages[stage].memory_bytes), state(answer.stages[stage].state)]));
    table('instances', ['instance', 'connections', 'heard', 'state'], (answer.instances ?? []).map((instance) =>
        [instance.instance, short(instance.connections), `${seconds((instance.heartbeat_age_ms ?? 0) / 1000)} ago`,
            h('span.state', { 'data-tone': instance.heartbeat_age_ms > 5000 ? 'bad' : instance.draining ? 'warn' : 'good' },
                instance.heartbeat_age_ms > 5000 ? 'silent' : instance.draining ? 'draining' : 'serving')]));
}

function table(id, head, rows) {
    $(id).replaceChildren(
        h('thead', {}, h('tr', {}, head.map((text) => h('th', { scope: 'col' }, text)))),
        h('tbody', {}, rows.length ? rows.map((row) => h('tr', {}, row.map((cell) => h('td', {}, cell))))
            : h('tr', {}, h('td', { colspan: head.length }, 'not known to this server'))));
}

function tiles(answer) {
    const worst = Object.values(answer.lag ?? {}).reduce((most, lag) => Math.max(most, lag.seconds ?? 0), 0);
    const p99 = answer.hops?.end_to_end?.p99_ms;
    const all = [
        ['Sessions', at(answer, 'stages/ingest/sessions'), short, ''],
        ['Messages in', rate('stages/ingest/in'), short, '/s'],
        ['Deliveries out', rate('stages/ingest/out'), short, '/s'],
        ['Log to device p99', p99, (value) => ms(value).split(' ')[0], ms(p99).split(' ')[1] ?? '', p99 > 100 ? 'warn' : ''],
        ['Farthest behind', answer.lag ? worst : undefined, (value) => seconds(value).split(' ')[0], seconds(worst).split(' ')[1] ?? '', worst > 30 ? 'bad' : worst > 5 ? 'warn' : ''],
        ['Refused', rate('stages/ingest/refused'), short, '/s'],
    ];
    $('tiles').replaceChildren(...all.map(([label, value, format, unit, mood]) => {
        const line = sparks.get(label) ?? [];
        sparks.set(label, line);
        if (value !== undefined && value !== null) line.push(value);
        if (line.length > 60) line.shift();
        return h('div.tile', { 'data-tone': mood }, h('div.label', {}, label),
            h('div', {}, h('span.value', {}, value === undefined || value === null ? '–' : format(value)), h('span.unit', {}, unit)), spark(line));
    }));
}

/** The last minute as a line. */
function spark(values) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', '0 0 120 28');
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('aria-hidden', 'true');
    if (values.length < 2) return svg;
    const top = Math.max(...values, 1e-9);
    const step = 120 / (values.length - 1);
    const points = values.map((value, index) => `${(index * step).toFixed(1)} ${(26 - 23 * value / top).toFixed(1)}`).join('L');
    for (const [name, path] of [['area', `M0 28L${points}L120 28Z`], ['line', `M${points}`]]) {
        const element = document.createElementNS('http://www.w3.org/2000/svg', 'path');
        element.setAttribute('class', name);
        element.setAttribute('d', path);
        element.setAttribute('vector-effect', 'non-scaling-stroke');
        svg.append(element);
    }
    return svg;
}
