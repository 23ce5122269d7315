/**
 * The client library against a real server, as bots use it: `fanout up` has to run, and EndToEndTests say where.
 *
 *     FANOUT_URL=http://127.0.0.1:8080 FANOUT_TOKEN_KEY=… FANOUT_CHAT_PID=… node --test web/tests/real.test.mjs
 *
 * Each story is told with Node's usual `ws`, and where Node has a WebSocket of its own with that as well.
 */

import assert from 'node:assert/strict';
import { createHmac, webcrypto } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { afterEach, test } from 'node:test';
import { FanoutAPI, FanoutClient, newID } from '../fanout.js';

globalThis.crypto ??= webcrypto;

const { FANOUT_URL: url, FANOUT_TOKEN_KEY: key, FANOUT_CHAT_PID: chatPid } = process.env;
/** Debian keeps it where only its own programs look. */
const require = createRequire(import.meta.url);
const { WebSocket: ws } = (() => {
    try { return require('ws'); } catch { return require('/usr/share/nodejs/ws'); }
})();
const sockets = [['ws', ws], ['Node\'s own', globalThis.WebSocket]].filter(([, socket]) => socket);
/** What the server allows clocks to differ: so long is a token good after its end. */
const SKEW_S = 30;

const clients = [];
afterEach(() => { for (const client of clients.splice(0)) client.destroy(); });

/** A token that the server takes for so many seconds from now. */
function token(user, seconds = 3600, scope = undefined) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const now = Date.now() / 1000;
    const text = `${part({ alg: 'HS256' })}.${part({ sub: user, iat: now, exp: now + seconds - SKEW_S, scope })}`;
    return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`;
}

function client(user, WebSocket, options = {}) {
    const made = new FanoutClient({ url, token: () => token(user), device: newID(), WebSocket, ...options });
    clients.push(made);
    return made;
}

async function until(client, name) {
    while (client.state.name !== name) await client.once('state');
}

/** Two people in a group that the first has made. */
async function group() {
    const api = new FanoutAPI({ url, token: token(newID(), 3600, 'admin') });
    const [{ user: ann }, { user: bob }] = [await api.createUser('Ann'), await api.createUser('Bob')];
    const { chat } = await new FanoutAPI({ url, token: token(ann) }).createGroup('Real', [bob]);
    return { ann, bob, chat };
}

test('a refused edit and a refused deletion are rejected, an allowed one stands', async () => {
    for (const [, socket] of sockets) {
        const { ann, bob, chat } = await group();
        const [anns, bobs] = [client(ann, socket), client(bob, socket)];
        for (const one of [anns, bobs]) {
            one.connect();
            await until(one, 'live');
        }
        const { seq } = await anns.send(chat, 'mine').sent;
        const { seq: second } = await anns.send(chat, 'mine too').sent;
        await assert.rejects(bobs.edit(chat, seq, 'his').sent, { code: 'not_allowed' });
        await assert.rejects(bobs.delete(chat, seq).sent, { code: 'not_allowed' });
        await assert.rejects(anns.edit(chat, second + 1000, 'nothing').sent, { code: 'unknown_message' });
        const edited = await anns.edit(chat, seq, 'better').sent;
        const deleted = await anns.delete(chat, second).sent;
        assert.ok(deleted.seq > edited.seq && edited.seq > second);
        assert.deepEqual([anns.outbox, bobs.outbox], [[], []]);
        await checkHistory(new FanoutAPI({ url, token: token(bob) }), chat, seq, edited.seq, second, deleted.seq);
    }
});

/** History says what has become of the two messages, and in no fields that the types do not know. */
async function checkHistory(api, chat, seq, editedAt, second, deletedAt) {
    let messages = [];
    while (messages.find((message) => message.seq === second)?.kind !== 'deleted') {
        ({ messages } = await api.history(chat));
        await new Promise((go) => setTimeout(go, 20));
    }
    const facts = messages.map(({ seq, kind, text, changed_seq }) => [seq, kind, text, changed_seq]);
    assert.deepEqual(facts, [[seq, 'text', 'better', editedAt], [second, 'deleted', undefined, deletedAt]]);
    const types = readFileSync(new URL('../fanout.d.ts', import.meta.url), 'utf8');
    const fields = (name) =>
        [...new RegExp(`^export interface ${name}\\b[^{]*\\{\\n(.*?)^\\}`, 'ms').exec(types)[1].matchAll(/^ {4}(\w+)\??:/gm)]
            .map((match) => match[1]);
    const known = new Set([...fields('Message'), ...fields('HistoryMessage')]);
    for (const message of messages) {
        assert.deepEqual(Object.keys(message).filter((name) => !known.has(name)), [], JSON.stringify(message));
    }
}

test('a group whose only admin leaves has another one, and its members see it', async () => {
    const { ann, bob, chat } = await group();
    const bobs = client(bob, sockets[0][1]);
    const changes = [];
    bobs.on('member', ({ user, change, meta_version }) => changes.push([user, change, meta_version]));
    bobs.connect();
    await until(bobs, 'live');
    const { meta_version } = await new FanoutAPI({ url, token: token(ann) }).removeMember(chat, ann);
    while (!changes.some(([user, change]) => user === bob && change === 'role')) await bobs.once('member');
    // Whoever has seen the answer's version has seen both changes; what was told before (`added`) is not of interest.
    assert.deepEqual(changes.slice(-2).map(([user, change]) => [user, change]), [[ann, 'removed'], [bob, 'role']]);
    assert.equal(changes.at(-1)[2], meta_version);
    const api = new FanoutAPI({ url, token: token(bob) });
    assert.equal((await api.chat(chat)).role, 'admin');
    await api.deleteChat(chat);
});

test('a client whose tokens last a few seconds goes on with new ones', async () => {
    const { ann, bob, chat } = await group();
    await Promise.all(sockets.map(async ([, socket]) => {
        let made = 0;
        const renewing = client(ann, socket, { token: () => token(ann, (made += 1) === 3 ? 3600 : 3) });
        renewing.connect();
        // Twice the token runs out under a session.
        for (let round = 0; round < 2; round += 1) {
            await until(renewing, 'live');
            await until(renewing, 'waiting');
            assert.equal(renewing.state.code, 4001);
        }
        await until(renewing, 'live');
        assert.equal(made, 3);
        assert.ok((await renewing.send(chat, 'still here').sent).seq >= 0);
        // One that never changes is not tried again.
        const fixed = client(bob, socket, { token: token(bob, 3) });
        fixed.connect();
        await until(fixed, 'closed');
        assert.equal(fixed.state.code, 4001);
    }));
});

test('a bot lives through the death of its server, and what it says meanwhile is sent', async () => {
    const { ann, chat } = await group();
    const bots = sockets.map(([, socket]) => client(ann, socket, { backoff: { minMs: 20, maxMs: 100 } }));
    for (const bot of bots) bot.connect();
    for (const bot of bots) await until(bot, 'live');
    process.kill(Number(chatPid), 'SIGKILL');
    await Promise.all(bots.map(async (bot) => {
        await until(bot, 'waiting');
        const { sent } = bot.send(chat, 'said while nobody was there');
        await until(bot, 'live');
        assert.ok((await sent).seq >= 0);
    }));
});
