/**
 * What the page knows: people, conversations and their messages, brought about by HTTP answers and by the client's
 * events alike, whichever comes first. It owns no element; views listen to `change`.
 */

import { Emitter } from '../fanout-base.js';

const PAGE = 40;

export class Model extends Emitter {
    constructor(me, client, api, people) {
        super();
        this.me = me;
        this.client = client;
        this.api = api;
        /** user → name */
        this.names = new Map(people.map(({ user, name }) => [user, name]));
        this.names.set(me.user, me.name);
        this.people = people.filter(({ user }) => user !== me.user);
        /** user → presence */
        this.presence = new Map();
        /** chat → Chat */
        this.chats = new Map();
        this.open = undefined;
        this.asked = new Set();
        /** chat → timer */
        this.refreshes = new Map();
        this.#follow();
    }

    #changed(what, chat) { this.emit('change', { what, chat }); }

    // MARK: Lists

    async load() {
        let page;
        do {
            const answer = await this.api.chats({ limit: 100, page });
            for (const row of answer.chats) this.#merge(row);
            page = answer.next ?? undefined;
        } while (page && this.chats.size < 1000);
        for (const frame of this.client.outbox) this.#chat(frame.chat).addPending(frame);
        this.#changed('list');
    }

    /** Conversations, the one with the newest message first. */
    get list() {
        return [...this.chats.values()].filter((chat) => chat.isKnown).sort((a, b) => b.lastTs - a.lastTs);
    }

    get unread() {
        return this.list.reduce((sum, chat) => sum + chat.unread, 0);
    }

    #chat(id) {
        let chat = this.chats.get(id);
        if (!chat) this.chats.set(id, chat = new Chat(id));
        return chat;
    }

    #merge(row) {
        const chat = this.#chat(row.chat);
        chat.merge(row, this.me.user);
        if (row.peer) this.names.set(row.peer.user, row.peer.name ?? this.names.get(row.peer.user));
        for (const { user, name } of row.members ?? []) if (name) this.names.set(user, name);
        this.client.sawMetaVersion(chat.id, row.meta_version ?? 0);
        return chat;
    }

    /** Asks the server about a conversation: a new one, or one whose members have changed. */
    async refresh(id, tries = 4) {
        try {
            this.#merge(await this.api.chat(id));
        } catch (error) {
            // News of a new conversation travels by the database's log and may overtake its own commit by a moment.
            if (error.status === 404 && tries > 1) {
                await new Promise((resolve) => setTimeout(resolve, 200));
                return this.refresh(id, tries - 1);
            }
            if (error.status === 404 || error.status === 403) this.#chat(id).isGone = true;
        }
        this.#changed('chat', id);
    }

    /** Several changes at once are one question. */
    #refreshSoon(id) {
        clearTimeout(this.refreshes.get(id));
        this.refreshes.set(id, setTimeout(() => {
            this.refreshes.delete(id);
            this.refresh(id);
        }, 60));
    }

    name(user) {
        const known = this.names.get(user);
        if (known) return known;
        if (user && !this.asked.has(user)) {
            this.asked.add(user);
            this.api.user(user).then(({ name }) => {
                this.names.set(user, name);
                this.#changed('list');
            }, () => {});
        }
        return user ? `user ${user.slice(0, 8)}` : 'somebody';
    }

    title(chat) {
        return chat.kind === 'direct' ? this.name(chat.peer) : chat.title || 'Group';
    }

    // MARK: One conversation

    async openChat(id) {
        if (this.open) this.#unwatch(this.open);
        this.open = id;
        if (!id) return this.#changed('open');
        const chat = this.#chat(id);
        chat.mark = chat.unread > 0 ? chat.readSeq : undefined;
        this.#changed('open', id);
        if (!chat.members.size) this.refresh(id).then(() => this.open === id && this.#watch(id));
        this.#watch(id);
        if (!chat.isLoaded) await this.older(id);
    }

    #watch(id) {
        const { peer } = this.#chat(id);
        if (peer) this.client.watch(peer);
    }

    #unwatch(id) {
        const { peer } = this.#chat(id);
        if (peer) this.client.unwatch(peer);
    }

    /** The page of messages before those that are here. */
    async older(id) {
        const chat = this.#chat(id);
        if (chat.isLoading || chat.isComplete) return;
        chat.isLoading = true;
        this.#changed('chat', id);
        try {
            const before = chat.isLoaded ? chat.messages[0]?.seq : undefined;
            const { messages, more } = await this.api.history(id, { before, limit: PAGE });
            for (const message of messages) chat.add(message);
            chat.isComplete = !more || messages.length === 0;
            chat.isLoaded = true;
            chat.problem = undefined;
        } catch (error) {
            chat.problem = error.message;
        }
        chat.isLoading = false;
        this.#changed('chat', id);
    }

    send(id, text, replyTo) {
        const extra = replyTo === undefined ? {} : { reply_to: replyTo };
        const post = this.client.send(id, text, extra);
        const chat = this.#chat(id);
        chat.addPending({ id: post.id, chat: id, text, reply_to: replyTo });
        chat.mark = undefined;
        this.#changed('chat', id);
        post.sent.catch((error) => {
            const pending = chat.pending.get(post.id);
            if (pending) pending.problem = error.message;
            this.#changed('chat', id);
        });
    }

    discard(id, pending) {
        this.#chat(id).pending.delete(pending);
        this.#changed('chat', id);
    }

    /** Everything in it has been seen by the user. */
    read(id) {
        const chat = this.#chat(id);
        if (chat.lastSeq <= chat.readSeq || !chat.isLoaded) return;
        chat.readSeq = chat.lastSeq;
        chat.unread = 0;
        this.client.read(id, chat.lastSeq);
        this.#changed('list', id);
    }

    // MARK: Events

    #follow() {
        const { client } = this;
        client.on('message', (message) => {
            const chat = this.#chat(message.chat);
            const isNew = message.seq > chat.lastSeq;
            chat.add(message);
            chat.typing.delete(message.from);
            if (message.from === this.me.user) chat.readSeq = Math.max(chat.readSeq, message.seq);
            if (isNew && message.kind === 'text') {
                chat.unread = message.from === this.me.user ? 0 : chat.unread + 1;
            }
            if (!chat.isKnown) this.#refreshSoon(message.chat);
            this.emit('arrived', { chat, message, isNew });
            this.#changed('chat', message.chat);
        });
        client.on('sent', ({ id, chat: chatID, seq, ts }) => {
            const chat = this.#chat(chatID);
            const pending = chat.pending.get(id);
            if (pending?.text !== undefined && pending.type !== 'edit') {
                chat.add({ ...pending, type: undefined, chat: chatID, seq, ts, from: this.me.user, kind: 'text' });
            }
            chat.pending.delete(id);
            this.#changed('chat', chatID);
        });
        client.on('receipt', ({ chat: id, from, kind, seq }) => {
            const chat = this.#chat(id);
            if (from === this.me.user) {
                // Read on another of one's devices.
                if (kind === 'read' && seq > chat.readSeq) {
                    chat.readSeq = seq;
                    if (seq >= chat.lastSeq) chat.unread = 0;
                }
            } else {
                chat.receipt(from, kind, seq);
            }
            this.#changed('chat', id);
        });
        client.on('typing', ({ chat: id, from }) => {
            if (from === this.me.user) return;
            const chat = this.#chat(id);
            clearTimeout(chat.typing.get(from));
            chat.typing.set(from, setTimeout(() => {
                chat.typing.delete(from);
                this.#changed('chat', id);
            }, 5000));
            this.#changed('chat', id);
        });
        client.on('member', ({ chat: id, user, change }) => {
            const chat = this.#chat(id);
            const verb = { added: 'was added', removed: 'left or was removed', role: 'has a new role' }[change] ?? change;
            if (chat.kind === 'group' && chat.isKnown) chat.note(`${this.name(user)} ${verb}`);
            if (user === this.me.user && change === 'removed') chat.isGone = true;
            else this.#refreshSoon(id);
            this.#changed('chat', id);
        });
        client.on('members_changed', ({ chat: id, added, removed }) => {
            const chat = this.#chat(id);
            const parts = [added && `${added} were added`, removed && `${removed} left or were removed`].filter(Boolean);
            if (chat.kind === 'group' && chat.isKnown && parts.length) chat.note(parts.join(', '));
            this.#refreshSoon(id);
            this.#changed('chat', id);
        });
        client.on('presence', (presence) => {
            this.presence.set(presence.user, presence);
            this.#changed('presence');
        });
        client.on('caught_up', async ({ reset }) => {
            if (reset) for (const chat of this.chats.values()) chat.forget();
            await this.load().catch(() => {});
            if (reset && this.open) await this.older(this.open);
        });
    }
}

/** One conversation. */
export class Chat {
    kind = 'group';
    title = '';
    peer = undefined;
    role = 'member';
    isKnown = false;
    isGone = false;
    isLoaded = false;
    isLoading = false;
    isComplete = false;
    problem = undefined;
    lastSeq = -1;
    lastTs = 0;
    preview = '';
    unread = 0;
    readSeq = -1;
    /** Where the line "new messages" stands. */
    mark = undefined;
    membersCount = 0;
    /** user → {role, delivered, read} */
    members = new Map();
    /** By seq. */
    messages = [];
    bySeq = new Map();
    /** id → seq */
    seqs = new Map();
    /** id → the frame as sent, in order */
    pending = new Map();
    /** user → timer */
    typing = new Map();
    notes = [];

    constructor(id) { this.id = id; }

    merge(row, me) {
        this.isKnown = true;
        this.isGone = false;
        this.kind = row.kind ?? this.kind;
        this.title = row.title ?? this.title;
        this.role = row.role ?? this.role;
        this.readSeq = Math.max(this.readSeq, row.read_seq ?? -1);
        if ((row.last_seq ?? -1) >= this.lastSeq) {
            this.lastSeq = row.last_seq ?? -1;
            this.lastTs = row.last_ts ?? this.lastTs;
            this.preview = row.last_preview ?? this.preview;
            // The answer may be older than what was read here: then it counts as unread what is not.
            this.unread = Math.min(row.unread ?? this.unread, Math.max(0, this.lastSeq - this.readSeq));
        }
        if (row.created_at && !this.lastTs) this.lastTs = row.created_at;
        if (row.members) {
            const before = this.members;
            this.members = new Map(row.members.map(({ user, role, read_seq, delivered_seq }) => [user, {
                role: role ?? 'member',
                read: Math.max(read_seq ?? -1, before.get(user)?.read ?? -1),
                delivered: Math.max(delivered_seq ?? -1, before.get(user)?.delivered ?? -1),
            }]));
            this.role = this.members.get(me)?.role ?? this.role;
        }
        this.membersCount = row.members_count ?? (this.members.size || this.membersCount);
        this.peer = row.peer?.user ?? this.peer
            ?? (this.kind === 'direct' ? [...this.members.keys()].find((user) => user !== me) : undefined);
    }

    add(message) {
        if (message.kind === 'text') this.pending.delete(message.id);
        if (message.seq > this.lastSeq) {
            this.lastSeq = message.seq;
            this.lastTs = message.ts;
            if (message.kind === 'text') this.preview = message.text ?? '';
        }
        if (this.bySeq.has(message.seq)) return;
        this.#displace(message.id);
        this.seqs.set(message.id, message.seq);
        this.bySeq.set(message.seq, message);
        if (message.kind !== 'text') return this.#amend(message);
        let index = this.messages.length;
        while (index > 0 && this.messages[index - 1].seq > message.seq) index -= 1;
        this.messages.splice(index, 0, message);
        // An edit may have come before what it edits: pages go backwards.
        for (const other of this.bySeq.values()) if (other.target === message.seq) this.#amend(other);
    }

    /** `sent` may have told the place of a repeat; the message itself tells its own. */
    #displace(id) {
        const seq = this.seqs.get(id);
        if (seq === undefined) return;
        this.bySeq.delete(seq);
        this.messages = this.messages.filter((message) => message.seq !== seq);
    }

    #amend({ kind, target, text, seq }) {
        const message = this.bySeq.get(target);
        if (!message || (message.amendedBy ?? -1) > seq) return;
        Object.assign(message, { amendedBy: seq, isEdited: kind === 'edit', isDeleted: kind === 'delete' });
        message.text = kind === 'edit' ? text : '';
        if (this.messages.at(-1) === message) this.preview = kind === 'edit' ? text : 'Message deleted';
    }

    addPending(frame) {
        if (frame.type === 'edit' || frame.type === 'delete') return;
        this.pending.set(frame.id, { ...frame, ts: Date.now() });
    }

    receipt(user, kind, seq) {
        const member = this.members.get(user) ?? { role: 'member', read: -1, delivered: -1 };
        member[kind] = Math.max(member[kind], seq);
        // What is read has been delivered.
        member.delivered = Math.max(member.delivered, member.read);
        this.members.set(user, member);
    }

    /** `sent`, `delivered` or `read`, by the slowest of the others. */
    statusOf(message, me) {
        const others = [...this.members].filter(([user]) => user !== me).map(([, member]) => member);
        if (others.length === 0) return 'sent';
        if (others.every(({ read }) => read >= message.seq)) return 'read';
        return others.every(({ delivered, read }) => Math.max(delivered, read) >= message.seq) ? 'delivered' : 'sent';
    }

    note(text) {
        this.notes.push({ after: this.lastSeq, text, ts: Date.now() });
        if (this.notes.length > 50) this.notes.shift();
    }

    /** The place was lost: what is here may have holes. */
    forget() {
        Object.assign(this, { messages: [], bySeq: new Map(), seqs: new Map(), notes: [], lastSeq: -1, isLoaded: false, isComplete: false });
    }
}
