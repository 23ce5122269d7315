// @ts-check
/**
 * A client of Fanout's protocol (docs/protocol.md) in one module without dependencies, for browsers and for Node (before
 * Node 22 a WebSocket has to be given: the package `ws` has one).
 *
 *     const client = new FanoutClient({ url: 'wss://chat.example', token, device: deviceID(localStorage) });
 *     client.on('message', (message) => show(message));
 *     client.connect();
 *     const { seq } = await client.send(chat, 'hello').sent;
 *
 * What it takes off one's hands:
 * - a lost connection is resumed at the cursor, with back-off that honours close codes and the delays they carry;
 * - what was sent and not acknowledged is sent again under its old id, also after a reload of the page;
 * - a token that was refused, or has run out, is asked for again when `token` is a function;
 * - events arrive once and in order: repeats around a reconnect are dropped by (chat, seq);
 * - cursors, marks of what was delivered and read, and typing are coalesced, watched users are watched again after a reconnect.
 *
 * Listeners run before the cursor moves past their event. What they throw is reported and stops nothing.
 */

import { Emitter, FanoutError, deviceID, memoryStore, newID } from './fanout-base.js';
export { FanoutAPI } from './fanout-api.js';
export { FanoutError, deviceID, memoryStore, newID };

/**
 * @typedef {object} Message
 * @property {string} chat
 * @property {number} seq its place in the chat
 * @property {string} id
 * @property {string} from
 * @property {number} ts
 * @property {'text'|'edit'|'delete'} kind
 * @property {string} [text]
 * @property {object[]} [attachments]
 * @property {number} [reply_to]
 * @property {number} [target] the seq that an edit or delete is about
 *
 * @typedef {Omit<Message, 'kind'|'target'> & {type: 'message', kind: 'text'|'deleted', changed_seq?: number}} HistoryMessage
 *   a message as it is now: `changed_seq` is the seq of its last edit, or of its deletion
 *
 * @typedef {{id: string, chat: string, seq: number, ts: number}} Sent
 * @typedef {{chat: string, from: string, kind: 'delivered'|'read', seq: number}} Receipt
 * @typedef {{chat: string, user: string, change: 'added'|'removed'|'role', meta_version: number}} MemberChange
 * @typedef {{chat: string, added: number, removed: number, roles: number, meta_version: number}} MembersChange
 * @typedef {{user: string, status: 'online'|'offline', last_seen: number|null}} Presence
 * @typedef {{mark: number, sent: number, at: number}} Mark what was reached, and what the server was told, when
 * @typedef {{direction: 'in'|'out'|'note', text: string, at: number}} Frame
 *
 * @typedef {object} State
 * @property {'idle'|'connecting'|'syncing'|'live'|'waiting'|'closed'} name
 *   connecting: until `hello` is answered; syncing: missed events are coming; live: all are here;
 *   waiting: for the next attempt; closed: for good, by `close()` or by a final close code
 * @property {number} [retryAt] waiting: when, in milliseconds since the epoch
 * @property {number} [code] waiting and closed: why
 * @property {string} [reason]
 *
 * @typedef {object} CaughtUp
 * @property {string} cursor
 * @property {boolean} reset the place was lost: load conversations anew
 * @property {number} events how many events had been missed
 * @property {number} ms how long the catching up took
 * @property {boolean} resumed whether there was a cursor to resume from
 *
 * @typedef {object} Options
 * @property {string|(() => string|Promise<string>)} url of a chat server; a function is asked before each attempt
 * @property {string|(() => string|Promise<string>)} token a function is asked before each attempt, also after a token of
 *   its was refused; one that is not a function is never tried again
 * @property {string} device this device's id, the same for each of its sessions and for no other's
 * @property {Pick<Storage, 'getItem'|'setItem'>} [store] where cursor and outbox survive; memory if not given
 * @property {string} [storeKey] the prefix of the keys in the store
 * @property {boolean} [resumeFromServer] a device without a cursor of its own asks for the one the server stored
 * @property {new (url: string, protocols: string[]) => WebSocket} [WebSocket] where there is no global one
 * @property {{minMs?: number, maxMs?: number}} [backoff]
 * @property {number} [ackEveryMs]
 * @property {number} [readEveryMs]
 * @property {number} [deliveredEveryMs] how long to gather `delivered` marks; -1 sends none
 * @property {number} [typingEveryMs]
 * @property {() => number} [random]
 */

/** A device may have so many unacknowledged messages; `send` beyond that is refused. */
export const OUTBOX_MAX = 500;
/** A message, as the frame that it becomes, has at most so many bytes. The server takes 64 KiB and closes above that;
 * the rest is for the `meta_version` that a message may get when it goes. */
export const FRAME_BYTES_MAX = 64 * 1024 - 64;
/** So many of them are on their way at once: enough to hide a round trip, few enough to be sent again cheaply. */
const IN_FLIGHT_MAX = 16;
/** So many tokens may be refused in a row until the client believes that it is not the token: a function that answers from
 * memory needs a while, a user who was disabled needs no more. */
const REFUSED_TOKENS_MAX = 5;

/**
 * What to do after a close: nothing more, or try again after a delay.
 *
 * Codes are read by range, so that one this client does not know still has the meaning its author gave it.
 * @param {number} code @param {string} reason @param {number} attempt how many attempts have failed in a row
 * @param {{minMs?: number, maxMs?: number}} backoff @param {() => number} [random]
 * @returns {{final: true} | {final: false, delayMs: number}}
 */
export function afterClose(code, reason, attempt, { minMs = 500, maxMs = 30_000 } = {}, random = Math.random) {
    if (code >= 4000 && code <= 4007) return { final: true };
    const exponential = random() * Math.min(maxMs, minMs * 2 ** Math.min(attempt, 16));
    if (code === 4008) return { final: false, delayMs: attempt === 0 ? random() * minMs : exponential };
    if (code === 1012 || code === 1013) {
        const told = /\d+/.exec(reason);
        // Told delays are spread by the server; they are believed up to five minutes.
        if (told) return { final: false, delayMs: Math.min(Number(told[0]), 300_000) };
    }
    return { final: false, delayMs: exponential };
}

export class FanoutClient extends Emitter {
    /** @type {State} */ #state = { name: 'idle' };
    /** @type {WebSocket|undefined} */ #socket;
    /** Rises with each attempt, so that what a former one still calls is told apart. */
    #epoch = 0;
    #attempt = 0;
    /** How many tokens have been refused since one was accepted. */
    #refused = 0;
    #wanted = false;
    /** @type {Record<string, ReturnType<typeof setTimeout>|undefined>} */ #timers = {};

    /** @type {string|undefined} */ #cursor;
    /** @type {string|undefined} */ #ackedCursor;
    /** @type {Map<string, number>} the highest seq seen of each chat */ #seen = new Map();
    /** @type {Map<string, number>} the highest receipt of each chat, user and kind */ #receipts = new Map();
    /** @type {Map<string, number>} */ #metaVersions = new Map();
    /** @type {Set<string>} */ #watched = new Set();
    /** @type {Map<string, Mark>} */ #reads = new Map();
    /** @type {Map<string, Mark>} */ #delivered = new Map();
    /** @type {Map<string, number>} */ #typed = new Map();

    /** @type {Map<string, Pending>} unacknowledged, oldest first */ #outbox = new Map();
    #inFlight = 0;
    #pausedUntil = 0;

    #heartbeatMs = 10_000;
    #heardAt = 0;
    #askedAt = 0;
    #catchUp = { since: 0, events: 0, resumed: false };

    /** Ends what the client hears of the page. */
    #ears = new AbortController();

    /** @param {Options} options */
    constructor(options) {
        super();
        this.options = { ackEveryMs: 1000, readEveryMs: 400, deliveredEveryMs: 500, typingEveryMs: 3000, random: Math.random, ...options };
        this.device = options.device;
        /** @type {string|undefined} known from the first `hello` on */
        this.user = undefined;
        /** @type {string|undefined} */ this.instance = undefined;
        this.store = options.store ?? memoryStore();
        this.key = options.storeKey ?? `fanout:${options.device}`;
        this.#cursor = this.store.getItem(`${this.key}:cursor`) ?? undefined;
        this.#loadOutbox();
        const { signal } = this.#ears;
        globalThis.addEventListener?.('online', () => this.retryNow(), { signal });
        globalThis.addEventListener?.('pagehide', (event) => this.#leave(event), { signal });
        globalThis.addEventListener?.('pageshow', (event) => event.persisted && this.retryNow(), { signal });
    }

    get #Socket() { return this.options.WebSocket ?? globalThis.WebSocket; }
    get state() { return this.#state; }
    get cursor() { return this.#cursor; }
    /** Unacknowledged messages, oldest first: what a view shows as pending after a reload. */
    get outbox() { return [...this.#outbox.values()].map((pending) => pending.frame); }

    // MARK: Connecting

    /** Connects, and stays connected until `close()` or a final close code. */
    connect() {
        if (this.#ears.signal.aborted) throw new FanoutError('destroyed', 'this client was destroyed; make a new one');
        if (this.#wanted) return;
        if (!this.#Socket) {
            throw new FanoutError('no_websocket', 'there is no WebSocket here: give one as option WebSocket, such as the '
                + 'package ws, or take Node 22 or newer');
        }
        this.#wanted = true;
        this.#attempt = 0;
        this.#refused = 0;
        this.#open();
    }

    /** Disconnects and stays so until `connect()`. Nothing is lost: the next `connect()` resumes. */
    close() {
        this.#acknowledge();
        this.#wanted = false;
        this.#drop(1000, 'closed by the application');
        this.#enter({ name: 'closed', code: 1000, reason: 'closed by the application' });
    }

    /** Closes for good and lets go of the page: for clients that come and go within one. What is not acknowledged stays in
     * the store, for the next client of this device. */
    destroy() {
        this.close();
        this.#ears.abort();
    }

    /** Ends the waiting for the next attempt. */
    retryNow() {
        if (this.#state.name === 'waiting') this.#open();
    }

    /** The user goes to another page. Browsers may keep this one, silent but connected, for coming back to it: whoever has
     * left is not online, so the connection ends, and resumes when the page is shown again. */
    #leave(/** @type {any} */ { persisted }) {
        this.#acknowledge();
        if (!persisted || !this.#wanted) return;
        this.#drop(1001, 'the page is left');
        this.#enter({ name: 'waiting', code: 1001, reason: 'the page is left', retryAt: Infinity });
    }

    async #open() {
        this.#clear('retry');
        const epoch = ++this.#epoch;
        this.#enter({ name: 'connecting' });
        try {
            const base = await ask(this.options.url);
            const token = await ask(this.options.token);
            if (epoch !== this.#epoch || !this.#wanted) return;
            const url = new URL('/v1/ws', base.replace(/^http/, 'ws'));
            url.searchParams.set('device', this.device);
            const socket = new this.#Socket(url.href, ['fanout.v1', `bearer.${token}`]);
            this.#socket = socket;
            /** @type {Attempt|undefined} what to ask about when no socket comes of it */
            let attempt = { base, token };
            // A server that accepts and then says nothing is as good as gone.
            this.#after('answer', 15_000, () => this.#lost(epoch, 4999, 'no answer', attempt));
            socket.onopen = () => {
                attempt = undefined;
                if (epoch === this.#epoch) this.#hello();
            };
            socket.onmessage = (event) => epoch === this.#epoch && this.#receive(event.data);
            // To Node's `ws` an error that nobody listens for is the end of the process. `onclose` follows and says why, but not
            // always in Node 20.
            socket.onerror = () => {
                if (epoch === this.#epoch) this.#after('error', 100, () => this.#lost(epoch, 1006, 'no connection', attempt));
            };
            socket.onclose = (event) => this.#lost(epoch, event.code, event.reason, attempt);
        } catch (error) {
            this.#lost(epoch, 1006, String(error));
        }
    }

    #hello() {
        const cursor = this.#cursor ?? (this.options.resumeFromServer ? 'server' : undefined);
        this.#catchUp = { since: Date.now(), events: 0, resumed: cursor !== undefined };
        this.#transmit({ type: 'hello', ...(cursor === undefined ? {} : { cursor }) });
    }

    /** @param {number} epoch @param {number} code @param {string} reason @param {Attempt} [attempt] that opened no socket */
    async #lost(epoch, code, reason, attempt) {
        if (epoch !== this.#epoch || !this.#wanted) return;
        this.#drop(code, reason);
        const lost = this.#epoch;
        // A refused token must not be tried for ever.
        if (attempt && await isRefused(attempt)) {
            code = 4001;
            reason = 'the token is not accepted';
        }
        if (lost !== this.#epoch || !this.#wanted) return;
        const { backoff, random } = this.options;
        let next = afterClose(code, reason, this.#attempt, backoff, random);
        if (code === 4001 && typeof this.options.token === 'function') {
            this.#refused += 1;
            // With back-off, as after any loss: whoever makes the tokens may need a while.
            if (this.#refused < REFUSED_TOKENS_MAX) next = afterClose(1006, reason, this.#attempt, backoff, random);
        }
        if (next.final) {
            this.#wanted = false;
            this.#enter({ name: 'closed', code, reason });
            return;
        }
        this.#attempt += 1;
        this.#enter({ name: 'waiting', code, reason, retryAt: Date.now() + next.delayMs });
        this.#after('retry', next.delayMs, () => this.#open());
    }

    /** Leaves the socket behind, whatever it is still going to say. */
    #drop(/** @type {number} */ code, /** @type {string} */ reason) {
        this.#epoch += 1;
        for (const name of Object.keys(this.#timers)) this.#clear(name);
        const socket = this.#socket;
        this.#socket = undefined;
        this.#inFlight = 0;
        for (const pending of this.#outbox.values()) pending.place = 'here';
        // A mark sent just now may have been lost with the connection.
        for (const mark of [...this.#reads.values(), ...this.#delivered.values()]) {
            if (Date.now() - mark.at < 10_000) mark.sent = -1;
        }
        if (socket) {
            this.#note(`closed ${code} ${reason}`.trim());
            // Not `onerror`: closing a socket that is still connecting is an error to `ws`.
            socket.onopen = socket.onmessage = socket.onclose = null;
            if (socket.readyState < 2) socket.close(1000);
        }
    }

    #enter(/** @type {State} */ state) {
        this.#state = state;
        this.emit('state', state);
    }

    // MARK: Receiving

    #receive(/** @type {unknown} */ data) {
        this.#heardAt = Date.now();
        if (typeof data !== 'string') return;
        this.emit('frame', { direction: 'in', text: data, at: this.#heardAt });
        /** @type {any} */ let frame;
        try {
            frame = JSON.parse(data);
        } catch {
            return this.emit('error', new FanoutError('bad_frame', 'the server sent what is not JSON'));
        }
        this.#dispatch(frame);
        if (typeof frame.cursor === 'string' && frame.cursor !== this.#cursor) {
            this.#cursor = frame.cursor;
            this.#save('cursor', frame.cursor);
            if (!this.#timers.ack) this.#after('ack', this.options.ackEveryMs, () => this.#acknowledge());
        }
    }

    #dispatch(/** @type {any} */ frame) {
        const { type, cursor: _, ...event } = frame;
        if (this.#state.name === 'syncing' && typeof frame.cursor === 'string') this.#catchUp.events += 1;
        switch (type) {
        case 'hello': return this.#greeted(frame);
        case 'caught_up': return this.#caughtUp(frame);
        case 'message': return this.#message(event);
        case 'sent': return this.#sent(event, frame.repeat === true);
        case 'error': return this.#error(event);
        case 'receipt': {
            const key = `${event.chat} ${event.from} ${event.kind}`;
            if (event.seq <= (this.#receipts.get(key) ?? -1)) return;
            this.#receipts.set(key, event.seq);
            return this.emit('receipt', event);
        }
        case 'member':
            this.sawMetaVersion(event.chat, event.meta_version);
            return this.emit('member', event);
        case 'members_changed':
            this.sawMetaVersion(event.chat, event.meta_version);
            return this.emit('members_changed', event);
        case 'typing':
            // Who typed while this device was away has stopped since.
            return this.#state.name === 'live' ? this.emit('typing', event) : undefined;
        case 'presence': return this.emit('presence', event);
        case 'pong': return;
        default: return this.emit('unknown', frame);
        }
    }

    #greeted(/** @type {any} */ { user, instance, session, heartbeat_ms }) {
        this.user = user;
        this.instance = instance;
        this.#heartbeatMs = heartbeat_ms > 0 ? heartbeat_ms : 10_000;
        this.#clear('answer');
        this.#enter({ name: 'syncing' });
        this.emit('hello', { user, instance, session });
        for (const watched of this.#watched) this.#transmit({ type: 'watch', user: watched });
        this.#flush();
        this.#listen();
    }

    #caughtUp(/** @type {any} */ { cursor, reset = false }) {
        this.#attempt = 0;
        this.#refused = 0;
        if (reset) {
            // The log may have been made anew, with seqs that start over.
            this.#seen.clear();
            this.#receipts.clear();
        }
        const { since, resumed } = this.#catchUp;
        const events = Math.max(0, this.#catchUp.events - 1);
        const ms = Date.now() - since;
        this.#enter({ name: 'live' });
        if (resumed) this.#note(`resumed: ${events} missed event${events === 1 ? '' : 's'} in ${ms} ms`);
        this.emit('caught_up', { cursor, reset, events, ms, resumed });
        for (const chat of this.#reads.keys()) this.#sendMark('read', chat);
        for (const chat of this.#delivered.keys()) this.#sendMark('delivered', chat);
    }

    #message(/** @type {Message} */ message) {
        if (message.seq <= (this.#seen.get(message.chat) ?? -1)) return;
        this.#seen.set(message.chat, message.seq);
        // One's own message in the stream is as good an acknowledgement as `sent`, which a broken connection may swallow.
        if (message.from === this.user) this.#sent(message, true);
        else if (this.options.deliveredEveryMs >= 0) this.#mark('delivered', message.chat, message.seq);
        this.emit('message', message);
    }

    /** Keeps the connection honest: silence is asked about once, then the connection is given up. */
    #listen() {
        const now = Date.now();
        if (this.#askedAt > this.#heardAt) {
            // Counted from the question, not from the last word: a computer that slept has heard nothing for long.
            if (now - this.#askedAt >= this.#heartbeatMs) return this.#lost(this.#epoch, 4999, 'silent');
        } else if (now - this.#heardAt >= this.#heartbeatMs) {
            this.#askedAt = now;
            this.#transmit({ type: 'ping', n: now });
        }
        this.#after('heartbeat', this.#heartbeatMs / 2, () => this.#listen());
    }

    // MARK: Sending

    /**
     * Sends a message. It is kept until the server has acknowledged it, over reconnects and, with a store, reloads.
     * @param {string} chat @param {string} text
     * @param {{attachments?: object[], reply_to?: number, id?: string}} extra
     * @returns {{id: string, sent: Promise<Sent>}} `sent` is rejected with a FanoutError when the server refuses
     */
    send(chat, text, { id = newID(), ...extra } = {}) {
        return this.#post({ type: 'send', id, chat, text, ...extra });
    }

    /**
     * Replaces the text of one's own message. `sent` is resolved when the change has been judged and stands, and rejected
     * when it is not allowed.
     * @param {string} chat @param {number} seq @param {string} text
     */
    edit(chat, seq, text) {
        return this.#post({ type: 'edit', id: newID(), chat, seq, text });
    }

    /**
     * Takes a message back; `sent` is as with `edit`.
     * @param {string} chat @param {number} seq
     */
    delete(chat, seq) {
        return this.#post({ type: 'delete', id: newID(), chat, seq });
    }

    /**
     * Everything up to `seq` has been read. Only advances; several calls become one frame.
     * @param {string} chat @param {number} seq
     */
    read(chat, seq) {
        this.#mark('read', chat, seq);
    }

    /** @param {'read'|'delivered'} kind @param {string} chat @param {number} seq */
    #mark(kind, chat, seq) {
        const marks = kind === 'read' ? this.#reads : this.#delivered;
        const mark = marks.get(chat) ?? { mark: -1, sent: -1, at: 0 };
        if (seq <= mark.mark) return;
        mark.mark = seq;
        marks.set(chat, mark);
        const name = `${kind} ${chat}`;
        const { readEveryMs, deliveredEveryMs } = this.options;
        if (!this.#timers[name]) {
            this.#after(name, kind === 'read' ? readEveryMs : deliveredEveryMs, () => this.#sendMark(kind, chat));
        }
    }

    #sendMark(/** @type {'read'|'delivered'} */ kind, /** @type {string} */ chat) {
        const read = this.#reads.get(chat);
        const mark = kind === 'read' ? read : this.#delivered.get(chat);
        // Before it has caught up, every message would be told of; and what is read has been delivered.
        if (!mark || mark.mark <= mark.sent || this.#state.name !== 'live') return;
        if (kind === 'delivered' && read && read.sent >= mark.mark) return;
        mark.sent = mark.mark;
        mark.at = Date.now();
        this.#transmit({ type: kind, chat, seq: mark.mark });
    }

    /**
     * The user is typing: call it on every key, it sends one frame in a few seconds.
     * @param {string} chat
     */
    typing(chat) {
        const now = Date.now();
        if (!this.#isOpen || now - (this.#typed.get(chat) ?? 0) < this.options.typingEveryMs) return;
        this.#typed.set(chat, now);
        this.#transmit({ type: 'typing', chat });
    }

    /**
     * Asks for `presence` of a user, now and on each change, until `unwatch`.
     * @param {string} user
     */
    watch(user) {
        if (this.#watched.has(user)) return;
        this.#watched.add(user);
        if (this.#isOpen) this.#transmit({ type: 'watch', user });
    }

    /** @param {string} user */
    unwatch(user) {
        if (this.#watched.delete(user) && this.#isOpen) this.#transmit({ type: 'unwatch', user });
    }

    /** What an HTTP answer told of a chat's membership: messages sent from now on are joined against it or a later one.
     * @param {string} chat @param {number} version */
    sawMetaVersion(chat, version) {
        if (version > (this.#metaVersions.get(chat) ?? 0)) this.#metaVersions.set(chat, version);
    }

    get #isOpen() { return this.#state.name === 'syncing' || this.#state.name === 'live'; }

    /** @param {OutFrame} frame */
    #post(frame) {
        const pending = new Pending(frame);
        if (this.#outbox.size >= OUTBOX_MAX) {
            pending.reject(new FanoutError('outbox_full', 'too many unsent messages', { id: frame.id }));
            return { id: frame.id, sent: pending.sent };
        }
        // It would end the connection, and the next one, each time that it went again.
        if (new TextEncoder().encode(JSON.stringify(frame)).length > FRAME_BYTES_MAX) {
            pending.reject(new FanoutError('too_large', `a message has at most ${FRAME_BYTES_MAX} bytes`, { id: frame.id }));
            return { id: frame.id, sent: pending.sent };
        }
        this.#outbox.set(frame.id, pending);
        this.#saveOutbox();
        this.#flush();
        return { id: frame.id, sent: pending.sent };
    }

    /**
     * Sends what is in the outbox and not on its way, in order.
     * @returns {void}
     */
    #flush() {
        if (!this.#isOpen) return;
        const pause = this.#pausedUntil - Date.now();
        if (pause > 0) return this.#after('flush', pause, () => this.#flush());
        for (const pending of this.#outbox.values()) {
            if (this.#inFlight >= IN_FLIGHT_MAX) return;
            if (pending.place !== 'here') continue;
            pending.place = 'under way';
            this.#inFlight += 1;
            const version = this.#metaVersions.get(pending.frame.chat);
            this.#transmit(version === undefined ? pending.frame : { ...pending.frame, meta_version: version });
        }
    }

    #settle(/** @type {string} */ id) {
        const pending = this.#outbox.get(id);
        if (!pending) return undefined;
        this.#outbox.delete(id);
        this.#move(pending, 'here');
        this.#saveOutbox();
        return pending;
    }

    #move(/** @type {Pending} */ pending, /** @type {'here'|'in the log'} */ place) {
        if (pending.place === 'under way') this.#inFlight -= 1;
        pending.place = place;
    }

    /**
     * The log has it. Whether an edit or a deletion is allowed is judged behind the log, so that it is settled only by what
     * comes from there: its own event, the answer to a repeat, or an error.
     * @param {Sent} sent @param {boolean} isJudged
     */
    #sent({ id, chat, seq, ts }, isJudged) {
        const known = this.#outbox.get(id);
        if (known && known.frame.type !== 'send' && !isJudged) {
            this.#move(known, 'in the log');
            return this.#flush();
        }
        const pending = this.#settle(id);
        if (!pending) return;
        pending.resolve({ id, chat, seq, ts });
        this.emit('sent', { id, chat, seq, ts });
        this.#flush();
    }

    #error(/** @type {any} */ { id, code, message, retry_after_ms }) {
        const error = new FanoutError(code, message, { id });
        const pending = id === undefined ? undefined : this.#outbox.get(id);
        if (pending && retry_after_ms !== undefined) {
            // Not refused, only not now: it goes again under its id, and nothing newer goes before it.
            this.#move(pending, 'here');
            this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + retry_after_ms);
            this.emit('slowed', { code, retryAt: this.#pausedUntil });
            return this.#flush();
        }
        if (pending) {
            this.#settle(id);
            pending.reject(error);
            this.#flush();
        }
        this.emit('error', error);
    }

    #acknowledge() {
        this.#clear('ack');
        if (!this.#isOpen || this.#cursor === undefined || this.#cursor === this.#ackedCursor) return;
        this.#ackedCursor = this.#cursor;
        this.#transmit({ type: 'ack', cursor: this.#cursor });
    }

    #transmit(/** @type {object} */ frame) {
        const text = JSON.stringify(frame);
        this.emit('frame', { direction: 'out', text, at: Date.now() });
        this.#socket?.send(text);
    }

    /** A remark between the frames, for inspectors. */
    #note(/** @type {string} */ text) {
        this.emit('frame', { direction: 'note', text, at: Date.now() });
    }

    // MARK: What survives

    #save(/** @type {string} */ name, /** @type {string} */ value) {
        try {
            this.store.setItem(`${this.key}:${name}`, value);
        } catch {
            // A full or forbidden store costs a longer catch-up after the next reload, nothing else.
        }
    }

    #saveOutbox() {
        this.#save('outbox', JSON.stringify(this.outbox));
    }

    #loadOutbox() {
        try {
            for (const frame of JSON.parse(this.store.getItem(`${this.key}:outbox`) ?? '[]')) {
                this.#outbox.set(frame.id, new Pending(frame));
            }
        } catch {
            this.#outbox.clear();
        }
    }

    #after(/** @type {string} */ name, /** @type {number} */ ms, /** @type {() => void} */ run) {
        this.#clear(name);
        this.#timers[name] = setTimeout(() => {
            this.#timers[name] = undefined;
            run();
        }, ms);
    }

    #clear(/** @type {string} */ name) {
        clearTimeout(this.#timers[name]);
        this.#timers[name] = undefined;
    }
}

/** @typedef {{base: string, token: string}} Attempt */

/** Browsers hide the status of a refused handshake: whether the token was the reason, a call tells. */
async function isRefused(/** @type {Attempt} */ { base, token }) {
    try {
        const headers = { authorization: `Bearer ${token}` };
        const url = new URL('/v1/chats?limit=1', base.replace(/^ws/, 'http'));
        const answer = await fetch(url, { headers, signal: AbortSignal.timeout(3000) });
        return answer.status === 401;
    } catch {
        return false;
    }
}

/** @typedef {{type: 'send'|'edit'|'delete', id: string, chat: string, text?: string, seq?: number, reply_to?: number, attachments?: object[]}} OutFrame */

class Pending {
    /** @type {'here'|'under way'|'in the log'} */ place = 'here';
    /** @type {(sent: Sent) => void} */ resolve = () => {};
    /** @type {(error: Error) => void} */ reject = () => {};

    constructor(/** @type {OutFrame} */ frame) {
        this.frame = frame;
        /** @type {Promise<Sent>} */
        this.sent = new Promise((resolve, reject) => {
            this.resolve = resolve;
            this.reject = reject;
        });
        // Who does not ask is told by the `error` event.
        this.sent.catch(() => {});
    }
}

/** @param {string|(() => string|Promise<string>)} value */
function ask(value) {
    return typeof value === 'function' ? value() : value;
}
