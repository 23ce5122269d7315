/** The client library against a real socket: `node --test web/tests/client.test.mjs`. */

import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { afterEach, test } from 'node:test';
import { FRAME_BYTES_MAX, FanoutAPI, FanoutClient, FanoutError, afterClose, deviceID, memoryStore, newID } from '../fanout.js';
import { ClientSocket, Server } from './websocket.js';

// Node 18 has it and does not show it.
globalThis.crypto ??= webcrypto;

const me = newID();
const you = newID();
const chat = newID();
const cleanups = [];
afterEach(() => { for (const cleanup of cleanups.splice(0)) cleanup(); });

async function start(options = {}) {
    const server = await Server.start();
    const client = new FanoutClient({
        url: server.url, token: 'a.b.c', device: newID(), WebSocket: ClientSocket,
        backoff: { minMs: 5, maxMs: 20 }, ackEveryMs: 20, readEveryMs: 20, deliveredEveryMs: -1, ...options,
    });
    cleanups.push(() => client.close(), () => server.stop());
    return { server, client };
}

/** Answers the next connection's hello; the rest is the test's. */
async function greet(server, { heartbeat_ms = 10_000 } = {}) {
    const peer = await server.peer();
    const hello = await peer.take('hello');
    peer.send({ type: 'hello', session: 's', instance: 'chat-1', user: me, device: 'd', heartbeat_ms });
    return { peer, hello };
}

async function live(server, client, options) {
    const caughtUp = client.once('caught_up');
    client.connect();
    const { peer, hello } = await greet(server, options);
    peer.send({ type: 'caught_up', cursor: 'c0' });
    await caughtUp;
    return { peer, hello };
}

const message = (seq, extra = {}) =>
    ({ type: 'message', chat, seq, id: newID(), from: you, ts: 1, kind: 'text', text: `#${seq}`, cursor: `c${seq}`, ...extra });

/** Lets the test wait for the state it needs. */
async function until(client, name) {
    while (client.state.name !== name) await client.once('state');
    return client.state;
}

test('the handshake offers the subprotocol, the token and the device', async () => {
    const { server, client } = await start();
    const { peer, hello } = await live(server, client);
    assert.deepEqual(peer.protocols, ['fanout.v1', 'bearer.a.b.c']);
    assert.equal(peer.url.pathname, '/v1/ws');
    assert.equal(peer.url.searchParams.get('device'), client.device);
    assert.deepEqual(hello, { type: 'hello' });
    assert.equal(client.user, me);
    assert.equal(client.state.name, 'live');
});

test('a lost connection resumes at the last cursor, and repeats are dropped', async () => {
    const { server, client } = await start();
    const got = [];
    client.on('message', ({ seq }) => got.push(seq));
    const { peer } = await live(server, client);
    peer.send(message(1));
    peer.send(message(2));
    await client.once('message');
    while (client.cursor !== 'c2') await client.once('frame');
    peer.cut();
    const { peer: second, hello } = await greet(server);
    assert.deepEqual(hello, { type: 'hello', cursor: 'c2' });
    const caughtUp = client.once('caught_up');
    for (const seq of [2, 3, 3, 4]) second.send(message(seq));
    second.send({ type: 'caught_up', cursor: 'c4' });
    assert.deepEqual({ ...await caughtUp, ms: 0 },
        { cursor: 'c4', reset: false, events: 4, ms: 0, resumed: true });
    assert.deepEqual(got, [1, 2, 3, 4]);
});

test('a reset forgets what has been seen, since seqs may start over', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    peer.send(message(9));
    await client.once('message');
    peer.cut();
    const { peer: second } = await greet(server);
    second.send({ type: 'caught_up', cursor: 'n0', reset: true });
    assert.equal((await client.once('caught_up')).reset, true);
    second.send(message(1));
    assert.equal((await client.once('message')).seq, 1);
});

test('the cursor survives in the store, a new device has none, and one may ask for the server\'s', async () => {
    const store = memoryStore();
    const device = deviceID(store);
    assert.equal(deviceID(store), device);
    const first = await start({ store, device });
    const { peer } = await live(first.server, first.client);
    peer.send(message(5));
    await first.client.once('message');
    first.client.close();
    const second = await start({ store, device });
    assert.deepEqual((await live(second.server, second.client)).hello, { type: 'hello', cursor: 'c5' });
    const third = await start({ resumeFromServer: true });
    assert.deepEqual((await live(third.server, third.client)).hello, { type: 'hello', cursor: 'server' });
});

test('what is not acknowledged is sent again with the same id, in order', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    const one = client.send(chat, 'one');
    const two = client.send(chat, 'two');
    assert.equal((await peer.take('send')).id, one.id);
    assert.equal((await peer.take('send')).id, two.id);
    peer.send({ type: 'sent', id: one.id, chat, seq: 7, ts: 70 });
    assert.deepEqual(await one.sent, { id: one.id, chat, seq: 7, ts: 70 });
    const three = client.send(chat, 'three');
    await peer.take('send');
    peer.cut();
    const { peer: second } = await greet(server);
    assert.deepEqual([(await second.take('send')).id, (await second.take('send')).id], [two.id, three.id]);
    // The stream may tell first: one's own message acknowledges as `sent` does.
    second.send(message(8, { id: two.id, from: me }));
    assert.equal((await two.sent).seq, 8);
    second.send({ type: 'sent', id: three.id, chat, seq: 9, ts: 90 });
    assert.equal((await three.sent).seq, 9);
    assert.deepEqual(client.outbox, []);
});

test('the outbox survives a reload', async () => {
    const store = memoryStore();
    const first = await start({ store, storeKey: 'k' });
    const { id } = first.client.send(chat, 'written offline');
    const second = await start({ store, storeKey: 'k' });
    assert.equal(second.client.outbox[0].text, 'written offline');
    second.client.connect();
    const { peer } = await greet(second.server);
    assert.equal((await peer.take('send')).id, id);
    peer.send({ type: 'sent', id, chat, seq: 1, ts: 1 });
    await second.client.once('sent');
    assert.equal(store.getItem('k:outbox'), '[]');
});

test('a refusal with a delay is tried again, one without is final', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    const slow = client.send(chat, 'slow');
    await peer.take('send');
    const slowed = client.once('slowed');
    peer.send({ type: 'error', id: slow.id, code: 'rate_limited', message: 'wait', retry_after_ms: 30 });
    const { retryAt } = await slowed;
    const next = client.send(chat, 'next');
    assert.equal((await peer.take('send')).id, slow.id);
    assert.ok(Date.now() >= retryAt - 2);
    assert.equal((await peer.take('send')).id, next.id);
    peer.send({ type: 'error', id: slow.id, code: 'not_member', message: 'no' });
    await assert.rejects(slow.sent, (error) => error instanceof FanoutError && error.code === 'not_member');
    assert.equal(client.outbox.length, 1);
});

test('no more than sixteen messages are on their way, and the outbox is bounded', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    const posts = Array.from({ length: 500 }, (_, index) => client.send(chat, `${index}`));
    await assert.rejects(client.send(chat, 'too many').sent, { code: 'outbox_full' });
    for (let index = 0; index < 16; index += 1) await peer.take('send');
    peer.send({ type: 'pong', n: 0 });
    await client.once('frame');
    assert.equal(peer.frames.filter(({ type }) => type === 'send').length, 0);
    peer.send({ type: 'sent', id: posts[0].id, chat, seq: 1, ts: 1 });
    assert.equal((await peer.take('send')).id, posts[16].id);
});

test('a message that no frame can carry is refused at once and holds up none after it', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    const wide = 'é'.repeat(FRAME_BYTES_MAX / 2);
    await assert.rejects(client.send(chat, wide).sent, { code: 'too_large' });
    await assert.rejects(client.edit(chat, 1, wide).sent, { code: 'too_large' });
    client.sawMetaVersion(chat, Number.MAX_SAFE_INTEGER);
    const room = FRAME_BYTES_MAX - JSON.stringify({ type: 'send', id: newID(), chat, text: '' }).length;
    client.send(chat, 'x'.repeat(room));
    const largest = await peer.take('send');
    assert.equal(largest.text.length, room);
    assert.ok(JSON.stringify(largest).length <= 64 * 1024);
});

test('membership versions that HTTP told go with the next send', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    client.sawMetaVersion(chat, 12);
    client.sawMetaVersion(chat, 11);
    client.send(chat, 'after the change');
    assert.equal((await peer.take('send')).meta_version, 12);
});

test('cursors are acknowledged together', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    for (let seq = 1; seq <= 20; seq += 1) peer.send(message(seq));
    assert.deepEqual(await peer.take('ack'), { type: 'ack', cursor: 'c20' });
    assert.equal(peer.frames.length, 0);
});

test('read marks only advance and go as one frame; typing goes once in a while', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    for (const seq of [3, 5, 4]) client.read(chat, seq);
    for (let key = 0; key < 10; key += 1) client.typing(chat);
    assert.deepEqual(await peer.take('typing'), { type: 'typing', chat });
    assert.deepEqual(await peer.take('read'), { type: 'read', chat, seq: 5 });
    client.read(chat, 2);
    await peer.take('ack');
    assert.equal(peer.frames.length, 0);
});

test('what came is marked as delivered once, unless it has been read or is one\'s own', async () => {
    const { server, client } = await start({ deliveredEveryMs: 100, readEveryMs: 5, ackEveryMs: 60_000 });
    client.connect();
    const { peer } = await greet(server);
    // While it catches up it waits.
    for (const seq of [1, 2, 3]) peer.send(message(seq));
    peer.send({ type: 'caught_up', cursor: 'c3' });
    assert.deepEqual(await peer.take('delivered'), { type: 'delivered', chat, seq: 3 });
    peer.send(message(4, { from: me }));
    peer.send(message(5));
    client.on('message', ({ seq }) => seq === 5 && client.read(chat, 5));
    assert.deepEqual(await peer.take('read'), { type: 'read', chat, seq: 5 });
    peer.send(message(6));
    assert.deepEqual(await peer.take('delivered'), { type: 'delivered', chat, seq: 6 });
});

test('receipts only advance, and typing from before the catch-up is not shown', async () => {
    const { server, client } = await start();
    const got = [];
    client.on('receipt', ({ seq }) => got.push(seq));
    client.on('typing', () => got.push('typing'));
    client.connect();
    const { peer } = await greet(server);
    peer.send({ type: 'typing', chat, from: you, cursor: 'c1' });
    for (const seq of [4, 3, 6]) peer.send({ type: 'receipt', chat, from: you, kind: 'read', seq, cursor: `c${seq}` });
    peer.send({ type: 'caught_up', cursor: 'c7' });
    await client.once('caught_up');
    assert.deepEqual(got, [4, 6]);
});

test('watched users are watched again after a reconnect', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    client.watch(you);
    assert.equal((await peer.take('watch')).user, you);
    const presence = client.once('presence');
    peer.send({ type: 'presence', user: you, status: 'online', last_seen: null });
    assert.equal((await presence).status, 'online');
    peer.cut();
    const { peer: second } = await greet(server);
    assert.equal((await second.take('watch')).user, you);
    client.unwatch(you);
    assert.equal((await second.take('unwatch')).user, you);
});

test('a silent connection is asked, then given up', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client, { heartbeat_ms: 40 });
    await peer.take('ping');
    peer.send({ type: 'pong', n: 1 });
    await peer.take('ping');
    const { hello } = await greet(server);
    assert.equal(hello.cursor, 'c0');
});

test('a final close code ends it, a told delay is kept', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    peer.close(1012, 'restarting, come back in 60 ms');
    const { retryAt } = await until(client, 'waiting');
    assert.ok(retryAt - Date.now() > 30 && retryAt - Date.now() <= 60);
    const { peer: second } = await greet(server);
    assert.ok(Date.now() >= retryAt - 2);
    second.close(4003, 'another session');
    const closed = await until(client, 'closed');
    assert.deepEqual([closed.code, closed.reason], [4003, 'another session']);
    client.connect();
    await greet(server);
});

test('a refused handshake with a refused token is final, otherwise it is tried again', async () => {
    const { server, client } = await start();
    server.refuse = 503;
    client.connect();
    await until(client, 'waiting');
    server.refuse = 401;
    server.answers['GET /v1/chats?limit=1'] = [401, { error: { code: 'unauthorised', message: 'expired' } }];
    assert.equal((await until(client, 'closed')).code, 4001);
});

test('a token that is a function is asked for each attempt', async () => {
    let asked = 0;
    const { server, client } = await start({ token: async () => `t${asked += 1}` });
    (await live(server, client)).peer.cut();
    const { peer } = await greet(server);
    assert.equal(peer.protocols[1], 'bearer.t2');
});

test('a token that has run out is asked for again, with back-off; a user who gets no good one is told in the end', async () => {
    let asked = 0;
    const { server, client } = await start({ token: () => `t${asked += 1}` });
    const { peer } = await live(server, client);
    peer.close(4001, 'the token has expired');
    assert.equal((await until(client, 'waiting')).code, 4001);
    assert.equal((await greet(server)).peer.protocols[1], 'bearer.t2');
    // A handshake that is refused for its token counts alike, and one that came through starts the count again.
    server.peers.at(-1).send({ type: 'caught_up', cursor: 'c1' });
    await until(client, 'live');
    server.refuse = 401;
    server.answers['GET /v1/chats?limit=1'] = [401, { error: { code: 'unauthorised', message: 'disabled' } }];
    server.peers.at(-1).close(4001, 'the token has been revoked');
    assert.equal((await until(client, 'closed')).code, 4001);
    assert.equal(asked, 6);
    // What was asked about is the token that was refused, not another one.
    assert.deepEqual(server.requests.map(({ headers }) => headers.authorization), [3, 4, 5, 6].map((n) => `Bearer t${n}`));
});

test('an edit or a deletion is sent when it has been judged, not when the log has it', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    const edit = client.edit(chat, 3, 'better');
    const { id } = await peer.take('edit');
    const taken = [];
    client.on('sent', (sent) => taken.push(sent));
    peer.send({ type: 'sent', id, chat, seq: 7, ts: 70 });
    await client.once('frame');
    assert.deepEqual(taken, []);
    assert.equal(client.outbox.length, 1);
    peer.send(message(7, { id, from: me, kind: 'edit', target: 3, ts: 70 }));
    assert.deepEqual(await edit.sent, { id, chat, seq: 7, ts: 70 });

    const deletion = client.delete(chat, 4);
    const { id: refused } = await peer.take('delete');
    peer.send({ type: 'sent', id: refused, chat, seq: 8, ts: 80 });
    peer.send({ type: 'error', id: refused, chat, code: 'not_allowed', message: 'no', cursor: 'c8' });
    await assert.rejects(deletion.sent, { code: 'not_allowed', id: refused });
    assert.deepEqual(client.outbox, []);
});

test('a change whose judgement was lost with the connection is asked about again', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    const edit = client.edit(chat, 3, 'better');
    const { id } = await peer.take('edit');
    peer.send({ type: 'sent', id, chat, seq: 7, ts: 70 });
    await client.once('frame');
    peer.cut();
    const { peer: second } = await greet(server);
    assert.equal((await second.take('edit')).id, id);
    second.send({ type: 'sent', id, chat, seq: 9, ts: 90 });
    second.send({ type: 'sent', id, chat, seq: 7, ts: 70, repeat: true, cursor: 'c9' });
    assert.equal((await edit.sent).seq, 7);
});

test('changes that wait for their judgement do not hold messages up', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    for (let n = 0; n < 16; n += 1) client.edit(chat, n, 'x');
    client.send(chat, 'behind them');
    for (let n = 0; n < 16; n += 1) {
        const { id } = await peer.take('edit');
        peer.send({ type: 'sent', id, chat, seq: 20 + n, ts: 1 });
    }
    assert.equal((await peer.take('send')).text, 'behind them');
});

test('an attempt that ends with an error alone is followed by another', async () => {
    let isFirst = true;
    class Unlucky extends ClientSocket {
        constructor(url, protocols) {
            super(isFirst ? 'ws://127.0.0.1:1' : url, protocols);
            // As Node 20's does when nobody listens at the port.
            if (isFirst) Object.defineProperty(this, 'onclose', { get: () => null, set: () => {} });
            isFirst = false;
        }
    }
    const { server, client } = await start({ WebSocket: Unlucky });
    client.connect();
    assert.equal((await until(client, 'waiting')).code, 1006);
    await greet(server);
});

test('without a WebSocket it says so at once', () => {
    const { WebSocket } = globalThis;
    delete globalThis.WebSocket;
    cleanups.push(() => { if (WebSocket) globalThis.WebSocket = WebSocket; });
    const client = new FanoutClient({ url: 'ws://127.0.0.1:1', token: 't', device: newID() });
    assert.throws(() => client.connect(), { name: 'FanoutError', code: 'no_websocket' });
    assert.equal(client.state.name, 'idle');
});

test('close keeps the place, and connect goes on from it', async () => {
    const { server, client } = await start();
    const { peer } = await live(server, client);
    peer.send(message(3));
    await client.once('message');
    client.close();
    assert.equal(client.state.name, 'closed');
    client.send(chat, 'while away');
    client.connect();
    const { peer: second, hello } = await greet(server);
    assert.equal(hello.cursor, 'c3');
    assert.equal((await second.take('send')).text, 'while away');
});

test('what a listener throws stops neither the stream nor the cursor', async (context) => {
    context.mock.method(console, 'error', () => {});
    const { server, client } = await start();
    const { peer } = await live(server, client);
    client.on('message', () => { throw new Error('a view broke'); });
    peer.send(message(1));
    assert.deepEqual(await peer.take('ack'), { type: 'ack', cursor: 'c1' });
    assert.equal(console.error.mock.callCount(), 1);
});

test('close codes are read by range', () => {
    const delay = (...values) => afterClose(...values, { minMs: 500, maxMs: 30_000 }, () => 1);
    for (const code of [4000, 4001, 4002, 4003, 4007]) assert.deepEqual(delay(code, '', 0), { final: true });
    assert.deepEqual(delay(4008, '', 0), { final: false, delayMs: 500 });
    assert.deepEqual(delay(1012, '1234', 3), { final: false, delayMs: 1234 });
    assert.deepEqual(delay(1013, 'retry after 99 ms', 3), { final: false, delayMs: 99 });
    assert.deepEqual(delay(1013, '99999999999', 0), { final: false, delayMs: 300_000 });
    assert.deepEqual(delay(1012, '', 1), { final: false, delayMs: 1000 });
    for (const code of [1000, 1001, 1006, 1011, 4009, 4999]) assert.equal(delay(code, '', 2).delayMs, 2000);
    assert.equal(delay(1006, '', 60).delayMs, 30_000);
    assert.equal(afterClose(1006, '', 9, {}, () => 0.5).delayMs, 15_000);
});

test('HTTP calls carry the token, and errors their code and status', async () => {
    const { server } = await start();
    const api = new FanoutAPI({ url: server.url, token: () => 'tok' });
    server.answers['GET /v1/chats?limit=2'] = [200, { chats: [], next: null }];
    assert.deepEqual(await api.chats({ limit: 2 }), { chats: [], next: null });
    assert.equal(server.requests[0].headers.authorization, 'Bearer tok');
    server.answers[`PUT /v1/chats/${chat}/members/${you}`] = [200, { meta_version: 4 }];
    assert.equal((await api.addMember(chat, you, 'admin')).meta_version, 4);
    assert.equal(server.requests[1].body, '{"role":"admin"}');
    server.answers[`DELETE /v1/chats/${chat}`] = [204, undefined];
    assert.deepEqual(await api.deleteChat(chat), {});
    server.answers['GET /v1/endpoint'] = [200, { url: 'ws://other:1' }];
    assert.equal(await api.endpoint(), 'ws://other:1');
    server.answers[`GET /v1/chats/${chat}`] = [404, { error: { code: 'unknown_chat', message: 'no such chat' } }];
    await assert.rejects(api.chat(chat), { code: 'unknown_chat', status: 404, message: 'no such chat' });
    await assert.rejects(new FanoutAPI({ url: 'http://127.0.0.1:1', token: '' }).chats(), { code: 'unreachable' });
});

test('history pages go back to the beginning', async () => {
    const { server } = await start();
    const api = new FanoutAPI({ url: server.url, token: 't' });
    const path = `GET /v1/chats/${chat}/messages`;
    server.answers[`${path}?limit=2`] = [200, { messages: [{ seq: 3 }, { seq: 4 }], more: true }];
    server.answers[`${path}?before=3&limit=2`] = [200, { messages: [{ seq: 1 }], more: false }];
    const seqs = [];
    for await (const page of api.pages(chat, 2)) seqs.push(page.map(({ seq }) => seq));
    assert.deepEqual(seqs, [[3, 4], [1]]);
});

test('ids are UUIDs, also where the browser keeps randomUUID back', (context) => {
    const shape = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
    assert.match(newID(), shape);
    context.mock.method(crypto, 'randomUUID', undefined);
    Object.defineProperty(crypto, 'randomUUID', { value: undefined, configurable: true });
    assert.match(newID(), shape);
    delete crypto.randomUUID;
});

test('a client that was destroyed lets go of the page and does not come back', async () => {
    const page = new EventTarget();
    let listening = 0;
    globalThis.addEventListener = (type, listener, options) => {
        listening += 1;
        options.signal.addEventListener('abort', () => { listening -= 1; });
        page.addEventListener(type, listener, options);
    };
    cleanups.push(() => { delete globalThis.addEventListener; });
    const { server, client } = await start();
    await live(server, client);
    assert.ok(listening > 0);
    client.destroy();
    assert.equal(listening, 0);
    assert.equal(client.state.name, 'closed');
    assert.throws(() => client.connect(), { code: 'destroyed' });
});
