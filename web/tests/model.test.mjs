/** What the demo page knows, brought about by events and answers in any order: `node --test web/tests/model.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Emitter } from '../fanout-base.js';
import { Model } from '../app/model.js';

const [me, you, chat] = ['me', 'you', 'chat'];

/** A model on a client that says what the test wants and notes what it is asked to send. */
function begin(row = {}) {
    const client = new Emitter();
    Object.assign(client, {
        outbox: [], reads: [], sawMetaVersion: () => {}, watch: () => {}, unwatch: () => {},
        read: (id, seq) => client.reads.push([id, seq]),
        send: () => ({ id: 'mine', sent: new Promise(() => {}) }),
    });
    const answers = { row: { chat, kind: 'group', title: 'Crew', meta_version: 1, last_seq: 4, last_ts: 4, unread: 0, read_seq: 4, ...row } };
    const api = {
        chats: async () => ({ chats: [answers.row], next: null }), chat: async () => answers.row,
        history: async () => ({ messages: [], more: false }), user: async (user) => ({ user, name: user }),
    };
    return { client, answers, model: new Model({ user: me, name: 'Me' }, client, api, []) };
}

const message = (seq, extra = {}) => ({ chat, seq, id: `m${seq}`, from: you, ts: seq, kind: 'text', text: `#${seq}`, ...extra });

test('what is read while catching up stays read, though the server has not heard of it yet', async () => {
    const { client, answers, model } = begin();
    await model.load();
    await model.openChat(chat);
    // Reconnected with the chat in front: three missed messages come, and are read as they are shown.
    for (const seq of [5, 6, 7]) {
        client.emit('message', message(seq));
        model.read(chat);
    }
    answers.row = { ...answers.row, last_seq: 7, last_ts: 7, unread: 3 };
    await model.load();
    assert.equal(model.chats.get(chat).unread, 0);
    assert.deepEqual(client.reads.at(-1), [chat, 7]);
});

test('what came after the last read message counts as unread, also when the server counts more', async () => {
    const { client, answers, model } = begin();
    await model.load();
    await model.openChat(chat);
    client.emit('message', message(5));
    model.read(chat);
    answers.row = { ...answers.row, last_seq: 6, last_ts: 6, unread: 2 };
    await model.load();
    assert.equal(model.chats.get(chat).unread, 1);
    model.read(chat);
    assert.equal(model.chats.get(chat).unread, 0);
});

test('a message of one\'s own whose acknowledgement told a repeat\'s place moves to its own, and shows once', async () => {
    const { client, model } = begin();
    await model.load();
    await model.openChat(chat);
    model.send(chat, 'hello');
    client.emit('sent', { id: 'mine', chat, seq: 9, ts: 9 });
    client.emit('message', message(7));
    client.emit('message', message(6, { id: 'mine', from: me, text: 'hello' }));
    const { messages, pending } = model.chats.get(chat);
    assert.deepEqual(messages.map(({ id, seq }) => [id, seq]), [['mine', 6], ['m7', 7]]);
    assert.equal(pending.size, 0);
});
