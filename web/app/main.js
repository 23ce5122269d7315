/** Logs in, wires the client, the model and the views, and keeps the address in step with what is open. */

import { FanoutAPI, FanoutClient, deviceID } from '../fanout.js';
import { $, avatar, h, paintAvatar, toast } from './dom.js';
import { Model } from './model.js';
import { ConversationList } from './list.js';
import { ChatView } from './chat.js';
import { Inspector } from './inspector.js';
import { groupDialog, newChatDialog } from './dialogs.js';
import { popupMenu } from './menu.js';

/** Each tab is a device: what is kept here survives a reload and is not shared with other tabs. */
const tab = sessionStorage;

main();

async function main() {
    setTheme(localStorage.getItem('fanout:theme'));
    const people = await demoUsers();
    const wanted = new URLSearchParams(location.search).get('user');
    const named = people.find(({ user, name }) => wanted && (user === wanted || name.toLowerCase() === wanted.toLowerCase()));
    const kept = JSON.parse(tab.getItem('fanout:login') ?? 'null');
    // The server may have been made anew since this tab logged in: then the demo's tokens are newer.
    const fresh = people.find(({ user }) => user === kept?.user);
    const login = named ?? fresh ?? kept ?? await askWhoYouAre(people);
    tab.setItem('fanout:login', JSON.stringify(login));
    start(login, people);
}

async function demoUsers() {
    try {
        const answer = await fetch('/demo/users');
        return answer.ok ? await answer.json() : [];
    } catch {
        return [];
    }
}

function askWhoYouAre(people) {
    $('login').hidden = false;
    return new Promise((resolve) => {
        const choose = (login) => {
            $('login').hidden = true;
            resolve(login);
        };
        $('login-users').replaceChildren(...people.map((person) => h('li', {},
            h('button.person', { onclick: () => choose(person), 'data-user': person.user },
                avatar(person.user, person.name),
                h('span.grow', {}, h('span.name', {}, person.name), h('div.muted', {}, 'demo user'))))));
        $('login-token').onsubmit = async (event) => {
            event.preventDefault();
            const token = $('token').value.trim();
            try {
                const user = subject(token);
                const { name } = await new FanoutAPI({ url: location.origin, token }).user(user);
                choose({ user, name, token });
            } catch (error) {
                $('login-error').textContent = error.status === 401 ? 'The server does not accept this token.' : error.message;
            }
        };
        ($('login-users').querySelector('button') ?? $('token')).focus();
    });
}

/** Whose token it is. Only read, never trusted: the server checks it. */
function subject(token) {
    try {
        return JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))).sub;
    } catch {
        throw new Error('That is not a token: expected three parts with dots between.');
    }
}

function start(me, people) {
    const client = new FanoutClient({
        url: location.origin, token: me.token, store: tab,
        device: deviceID(tab, `fanout:device:${me.user}`), storeKey: `fanout:${me.user}`,
    });
    const api = new FanoutAPI({ url: location.origin, token: me.token });
    const model = new Model(me, client, api, people);

    $('app').hidden = false;
    $('me-name').textContent = me.name;
    paintAvatar($('me-avatar'), me.user, me.name);

    const go = (chat) => { location.hash = chat ? `#/chat/${chat}` : '#/'; };
    const list = new ConversationList(model, go);
    const view = new ChatView(model);
    const inspector = new Inspector(client);
    view.onDetails = () => groupDialog(model, model.open, go);

    // MARK: what is open
    const route = () => {
        const chat = /^#\/chat\/([0-9a-f-]{36})$/.exec(location.hash)?.[1];
        $('app').dataset.view = chat ? 'chat' : 'list';
        model.openChat(chat);
    };
    window.addEventListener('hashchange', route);
    $('back').onclick = () => go(undefined);
    $('new-chat').onclick = $('first-chat').onclick = () => newChatDialog(model, go);

    model.on('change', ({ what, chat }) => {
        list.draw();
        if (what !== 'chat' || chat === model.open) view.draw(what);
        document.title = model.unread ? `(${model.unread}) Fanout` : 'Fanout';
    });

    // MARK: the connection
    showConnection(client, model, view);

    // MARK: menu
    const closeMenu = popupMenu($('menu'), $('menu-items'), {
        theme: () => setTheme(isDark() ? 'light' : 'dark', true),
        tab: () => window.open(`/?user=${me.user}`, '_blank', 'noopener'),
        inspector: () => inspector.toggle(true),
        logout: () => { client.destroy(); tab.removeItem('fanout:login'); location.href = '/'; },
    });
    $('connection').onclick = $('show-inspector').onclick = () => inspector.toggle();

    // MARK: keys
    // Followed as a link it would change the address, and with it what is open.
    $('skip').onclick = (event) => {
        event.preventDefault();
        $(model.open ? 'composer-text' : 'search').focus();
    };
    document.addEventListener('keydown', (event) => {
        if (event.key === 'Escape') {
            if (!closeMenu() && !$('dialog').open && !view.cancel() && model.open) go(undefined);
        } else if ((event.ctrlKey || event.metaKey) && event.key === 'k') {
            event.preventDefault();
            $('search').focus();
        } else if (event.altKey && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
            event.preventDefault();
            const chats = model.list;
            const at = chats.findIndex(({ id }) => id === model.open);
            const next = chats[Math.max(0, Math.min(chats.length - 1, at + (event.key === 'ArrowDown' ? 1 : -1)))];
            if (next) go(next.id);
        }
    });

    route();
    client.connect();
    // For those who look at it from the browser's console.
    window.fanout = { client, api, model };
}

function showConnection(client, model, view) {
    const pill = $('connection');
    let timer;
    let wasLost = false;
    const show = () => {
        clearInterval(timer);
        const { name, retryAt = 0, code, reason } = client.state;
        const seconds = () => Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
        const [tone, text] = {
            idle: ['', 'not connected'], connecting: ['warn', 'connecting…'], syncing: ['warn', 'catching up…'],
            live: ['good', 'live'], waiting: ['warn', 'reconnecting'], closed: ['bad', 'offline'],
        }[name];
        pill.dataset.tone = tone;
        pill.dataset.state = name;
        $('connection-text').textContent = text;
        if (name === 'waiting') {
            wasLost = true;
            const tick = () => view.notice('warn', `Connection lost${code === 1012 ? ': the server restarts' : ''}. Next try ${seconds() ? `in ${seconds()} s` : 'now'}; messages are kept.`,
                ['Try now', () => client.retryNow()]);
            tick();
            timer = setInterval(tick, 1000);
        } else if (name === 'closed') {
            wasLost = true;
            const why = {
                4001: 'The token is no longer accepted.', 4002: 'The server did not understand this client.',
                4003: 'This device is open in another tab.', 1000: 'You are offline. Messages are kept until you are back.',
            }[code] ?? reason;
            const act = code === 4001
                ? ['Log in again', () => { tab.removeItem('fanout:login'); location.href = '/'; }]
                : code === 4003
                    ? ['Go on here as a new device', () => { tab.removeItem(`fanout:device:${model.me.user}`); tab.removeItem(`fanout:${model.me.user}:cursor`); location.reload(); }]
                    : ['Go online', () => client.connect()];
            view.notice(code === 1000 ? 'warn' : 'bad', why, act);
        } else if (name === 'live') {
            view.notice();
        }
    };
    client.on('state', show);
    client.on('caught_up', ({ events, ms, resumed, reset }) => {
        if (reset) toast('Away for too long to resume: conversations are loaded anew');
        else if (wasLost && resumed) toast(`Resumed: ${events} missed event${events === 1 ? '' : 's'} in ${ms} ms`);
        wasLost = false;
    });
    client.on('slowed', ({ retryAt }) => toast(`Slowed down by the server; going on in ${Math.ceil((retryAt - Date.now()) / 1000)} s`));
    client.on('error', (error) => toast(error.message));
    show();
}

const isDark = () => document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;

function setTheme(theme, keep = false) {
    if (theme) document.documentElement.dataset.theme = theme;
    if (keep) localStorage.setItem('fanout:theme', theme);
}
