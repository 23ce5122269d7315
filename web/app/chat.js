/** The open conversation: its messages with history on scroll, its state line, and the field to write in. */

import { $, avatar, dayLabel, h, hue, icon, isBig, lastSeen, linked, paintAvatar, reconcile, sameDay, timeOf } from './dom.js';

/** Messages of one sender within this time stand together. */
const TOGETHER_MS = 5 * 60_000;

export class ChatView {
    onDetails = () => {};
    /** What the composer is about beside its text: a reply or an edit. */
    #context;
    #drafts = new Map();
    #shown;
    /** Whether the newest message is in sight; then it stays so. */
    #sticks = true;
    #below = 0;

    constructor(model) {
        this.model = model;
        this.scroller = $('messages');
        this.list = $('message-list');
        this.text = $('composer-text');
        this.scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
        new ResizeObserver(() => this.#sticks && this.#toEnd()).observe(this.scroller);
        $('to-bottom').onclick = () => this.#toEnd();
        $('details').onclick = () => this.onDetails();
        $('composer').onsubmit = (event) => { event.preventDefault(); this.#send(); };
        $('context').querySelector('button').onclick = () => this.cancel();
        this.text.oninput = () => {
            this.#grow();
            if (this.text.value.trim() && model.open) model.client.typing(model.open);
        };
        this.text.onkeydown = (event) => this.#key(event);
        model.on('arrived', ({ chat, message, isNew }) => {
            if (chat.id === model.open && isNew && message.from !== model.me.user && !this.#sticks) this.#below += 1;
        });
        for (const name of ['focus', 'visibilitychange']) window.addEventListener(name, () => this.#markRead());
        document.addEventListener('visibilitychange', () => this.#markRead());
    }

    get #chat() { return this.model.chats.get(this.model.open); }

    // MARK: Drawing

    draw(what) {
        const chat = this.#chat;
        $('open').hidden = !chat;
        $('nothing-open').hidden = Boolean(chat);
        const isOther = this.#shown !== chat?.id;
        if (isOther) this.#leave();
        if (!chat) return;
        if (isOther) this.#turnTo(chat);
        this.#drawHead(chat);
        if (what === 'presence') return;
        const { scrollTop, scrollHeight } = this.scroller;
        const oldest = this.list.querySelector('.message')?.dataset.key;
        reconcile(this.list, this.#items(chat), (item) => this.#make(item, chat));
        if (isOther || this.#sticks) this.#toEnd();
        // Older messages came in above: what one was reading stays where it was.
        else if (oldest !== this.list.querySelector('.message')?.dataset.key) {
            this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
        }
        this.#drawBelow();
        this.#markRead();
        this.text.disabled = chat.isGone;
        this.text.placeholder = chat.isGone ? 'You are no longer a member' : 'Message';
        if (!chat.isLoading && !chat.isComplete && chat.isLoaded) this.#scrolled();
    }

    /** What was being written stays with its conversation; an edit that was not sent is no draft. */
    #leave() {
        this.cancel();
        if (this.#shown) this.#drafts.set(this.#shown, this.text.value);
        this.#shown = undefined;
    }

    #turnTo(chat) {
        this.#shown = chat.id;
        this.#sticks = true;
        this.#below = 0;
        this.list.replaceChildren();
        this.text.value = this.#drafts.get(chat.id) ?? '';
        this.#grow();
        if (matchMedia('(hover: hover)').matches) this.text.focus();
    }

    #drawHead(chat) {
        const { model } = this;
        const title = model.title(chat);
        const presence = model.presence.get(chat.peer);
        const isOnline = presence?.status === 'online';
        paintAvatar($('chat-avatar'), chat.peer ?? chat.id, title, { online: isOnline, group: chat.kind === 'group' });
        $('chat-title').textContent = title;
        const line = $('chat-subtitle');
        const typing = [...chat.typing.keys()].map((user) => model.name(user).split(' ')[0]);
        line.className = 'subtitle';
        if (typing.length) {
            line.classList.add('typing');
            line.textContent = chat.kind === 'direct' ? 'typing…'
                : `${typing.slice(0, 2).join(' and ')}${typing.length > 2 ? ' and others' : ''} ${typing.length > 1 ? 'are' : 'is'} typing…`;
        } else if (chat.kind === 'direct') {
            if (isOnline) line.classList.add('good');
            line.textContent = !presence ? '' : isOnline ? 'online' : lastSeen(presence.last_seen);
        } else {
            const names = [...chat.members.keys()].map((user) => user === model.me.user ? 'you' : model.name(user));
            line.textContent = names.length && names.length <= 6 ? names.join(', ') : `${chat.membersCount || '…'} members`;
        }
    }

    #items(chat) {
        const { model } = this;
        const items = [];
        if (chat.problem) items.push({ key: 'problem', version: chat.problem, kind: 'problem', text: chat.problem });
        else if (chat.isLoading) items.push({ key: 'loading', version: '', kind: 'system', text: 'Loading…' });
        else if (chat.isComplete && chat.messages.length) {
            items.push({ key: 'start', version: '', kind: 'system', text: 'The beginning of this conversation' });
        }
        const notes = [...chat.notes];
        const pending = [...chat.pending.values()].map((frame) => ({ ...frame, from: model.me.user, isPending: true }));
        const all = [...chat.messages, ...pending];
        let before;
        let marked = false;
        for (const [index, message] of all.entries()) {
            while (notes.length && !message.isPending && notes[0].after < message.seq) items.push(this.#note(notes.shift()));
            if (!before || !sameDay(before.ts, message.ts)) {
                items.push({ key: `day ${dayLabel(message.ts)}`, version: '', kind: 'day', text: dayLabel(message.ts) });
                before = undefined;
            }
            if (!marked && chat.mark !== undefined && message.seq > chat.mark && message.from !== model.me.user) {
                marked = true;
                items.push({ key: 'mark', version: '', kind: 'mark' });
                before = undefined;
            }
            const after = all[index + 1];
            const joins = (a, b) => a && b && a.from === b.from && Math.abs(b.ts - a.ts) < TOGETHER_MS && sameDay(a.ts, b.ts);
            const isFirst = !joins(before, message);
            const isLast = !joins(message, after);
            const isMine = message.from === model.me.user;
            const status = !isMine ? '' : message.problem ? 'failed' : message.isPending ? 'pending' : chat.statusOf(message, model.me.user);
            const quoted = message.reply_to === undefined ? undefined : chat.bySeq.get(message.reply_to);
            items.push({
                key: `message ${message.id}`, kind: 'message', message, isFirst, isLast, isMine, status, quoted,
                version: [message.seq, message.text, message.isDeleted, isFirst, isLast, status, model.name(message.from), quoted?.text].join('|'),
            });
            before = message;
        }
        for (const note of notes) items.push(this.#note(note));
        return items;
    }

    #note({ text, ts }) { return { key: `note ${ts} ${text}`, version: '', kind: 'system', text }; }

    #make(item, chat) {
        switch (item.kind) {
        case 'day': return h('li.day', {}, item.text);
        case 'system': return h('li.system', {}, item.text);
        case 'mark': return h('li.new-mark', {}, 'New messages');
        case 'problem': return h('li.system', {}, `${item.text} `, h('button.link', { onclick: () => this.model.older(chat.id) }, 'Try again'));
        default: return this.#message(item, chat);
        }
    }

    #message({ message, isFirst, isLast, isMine, status, quoted }, chat) {
        const { model } = this;
        const isGroup = chat.kind === 'group';
        const classes = ['message', isMine && 'mine', isFirst && 'first', isLast && 'last'].filter(Boolean).join('.');
        const body = message.isDeleted ? ['Message deleted'] : linked(message.text ?? '');
        const bubble = h(`div.bubble${message.isDeleted ? '.gone' : ''}`, { tabindex: -1, hue: hue(message.from) },
            isGroup && !isMine && isFirst ? h('span.from', {}, model.name(message.from)) : null,
            message.reply_to !== undefined ? h('button.quote', { onclick: () => this.#jump(message.reply_to) },
                h('b', {}, quoted ? model.name(quoted.from) : 'An earlier message'), h('br'), quoted?.text ?? '') : null,
            h(`span.text${!message.isDeleted && isBig(message.text ?? '') ? '.big' : ''}`, {}, ...body),
            (message.attachments ?? []).map((file) => h('a.attachment', { href: safeURL(file.url), target: '_blank', rel: 'noopener noreferrer' }, `📎 ${file.name ?? 'file'}`)),
            h('span.meta', {}, message.isEdited ? 'edited' : null, message.ts ? h('time', {}, timeOf(message.ts)) : null, isMine ? tick(status) : null));
        const row = h(`li.${classes}`, { 'data-seq': message.seq },
            isGroup && !isMine ? small(avatar(message.from, model.name(message.from))) : null, bubble);
        if (status === 'failed') {
            row.append(h('span.failed', {}, `${message.problem} `, h('button.link', { onclick: () => model.discard(chat.id, message.id) }, 'Discard')));
        } else if (!message.isPending && !message.isDeleted && !chat.isGone) {
            const act = (name, label, run) => h('button.icon', { 'aria-label': `${label} “${(message.text ?? '').slice(0, 30)}”`, title: label, onclick: run }, icon(name));
            row.append(h('span.tools', {},
                act('reply', 'Reply', () => this.#setContext('reply', message)),
                isMine ? act('edit', 'Edit', () => this.#setContext('edit', message)) : null,
                isMine || chat.role === 'admin' && isGroup ? act('delete', 'Delete', () => this.#delete(chat, message)) : null));
        }
        return row;
    }

    // MARK: Scrolling

    #scrolled() {
        const { scrollTop, scrollHeight, clientHeight } = this.scroller;
        this.#sticks = scrollHeight - scrollTop - clientHeight < 60;
        if (this.#sticks) this.#below = 0;
        this.#drawBelow();
        this.#markRead();
        const chat = this.#chat;
        if (chat && scrollTop < 300 && chat.isLoaded && !chat.isComplete && !chat.problem) this.model.older(chat.id);
    }

    #toEnd() {
        this.scroller.scrollTop = this.scroller.scrollHeight;
        this.#sticks = true;
        this.#below = 0;
        this.#drawBelow();
    }

    #drawBelow() {
        $('to-bottom').hidden = this.#sticks;
        const badge = $('to-bottom').querySelector('.badge');
        badge.hidden = this.#below === 0;
        badge.textContent = String(this.#below);
    }

    #jump(seq) {
        const row = this.list.querySelector(`[data-seq="${seq}"]`);
        row?.scrollIntoView({ block: 'center', behavior: 'smooth' });
        row?.querySelector('.bubble').focus({ preventScroll: true });
    }

    /** Read is what is open, in sight and in front. */
    #markRead() {
        const chat = this.#chat;
        if (chat && this.#sticks && document.visibilityState === 'visible' && document.hasFocus() && !$('open').hidden) {
            this.model.read(chat.id);
        }
    }

    // MARK: Writing

    #send() {
        const text = this.text.value.trim();
        const chat = this.#chat;
        if (!text || !chat || chat.isGone) return;
        const context = this.#context;
        this.text.value = '';
        this.cancel();
        if (context?.kind === 'edit') {
            if (text !== context.message.text) this.model.client.edit(chat.id, context.message.seq, text);
        } else {
            this.#sticks = true;
            this.model.send(chat.id, text, context?.message.seq);
        }
        this.text.focus();
    }

    #delete(chat, message) {
        this.model.client.delete(chat.id, message.seq);
        this.text.focus();
    }

    #key(event) {
        if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            this.#send();
        } else if (event.key === 'ArrowUp' && this.text.value === '') {
            const mine = this.#chat?.messages.findLast((message) => message.from === this.model.me.user && !message.isDeleted);
            if (mine) { event.preventDefault(); this.#setContext('edit', mine); }
        }
    }

    #setContext(kind, message) {
        this.cancel();
        // An edit needs the field: what was being written in it waits until the edit is over.
        this.#context = { kind, message, draft: this.text.value };
        const [title, line] = $('context').querySelectorAll('strong, span');
        title.textContent = kind === 'edit' ? 'Edit message' : `Reply to ${this.model.name(message.from)}`;
        line.textContent = message.text;
        $('context').hidden = false;
        if (kind === 'edit') this.text.value = message.text;
        this.#grow();
        this.text.focus();
    }

    /** Leaves a reply or an edit; answers whether there was one. */
    cancel() {
        const was = this.#context;
        this.#context = undefined;
        $('context').hidden = true;
        if (was?.kind === 'edit') this.text.value = was.draft;
        this.#grow();
        return was !== undefined;
    }

    #grow() {
        this.text.style.height = 'auto';
        this.text.style.height = `${this.text.scrollHeight + 2}px`;
    }

    /** The strip above the messages; without a text it goes away. */
    notice(tone, text, [label, act] = []) {
        const strip = $('notice');
        strip.dataset.tone = tone ?? '';
        strip.replaceChildren(...(text ? [h('span', {}, text), h('button.link', { onclick: act }, label)] : []));
    }
}

function tick(status) {
    const [name, label] = {
        pending: ['clock', 'not sent yet'], sent: ['sent', 'sent'], delivered: ['double', 'delivered'],
        read: ['double', 'read'], failed: ['close', 'not sent'],
    }[status];
    return h(`span.${status}`, { role: 'img', 'aria-label': label, title: label, 'data-status': status }, icon(name));
}

function small(element) {
    element.classList.add('small-avatar');
    return element;
}

/** Links that others send open only what is a web address. */
const safeURL = (url) => /^https?:\/\//.test(url ?? '') ? url : undefined;
