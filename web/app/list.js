/** The conversations: newest first, with unread counts, filtered as one types, walked with the arrow keys. */

import { $, avatar, h, reconcile, shortWhen } from './dom.js';

export class ConversationList {
    constructor(model, go) {
        this.model = model;
        this.go = go;
        this.element = $('conversations');
        $('search').oninput = () => this.draw();
        this.element.onkeydown = (event) => this.#walk(event);
        $('search').onkeydown = (event) => {
            if (event.key === 'ArrowDown') this.element.querySelector('button')?.focus();
            if (event.key === 'Enter') this.element.querySelector('button')?.click();
            if (event.key === 'Escape') { $('search').value = ''; this.draw(); event.stopPropagation(); }
        };
    }

    draw() {
        const { model } = this;
        const wanted = $('search').value.trim().toLowerCase();
        const items = model.list
            .map((chat) => ({ key: chat.id, chat, title: model.title(chat) }))
            .filter(({ title }) => title.toLowerCase().includes(wanted))
            .map((item) => ({ ...item, version: this.#version(item) }));
        // Drawing a row anew must not take the focus away.
        const focused = document.activeElement?.closest?.('#conversations li')?.dataset.key;
        reconcile(this.element, items, (item) => this.#row(item));
        if (focused && !this.element.contains(document.activeElement)) {
            this.element.querySelector(`[data-key="${focused}"] button`)?.focus();
        }
        $('no-conversations').hidden = items.length > 0 || wanted !== '' || model.client.state.name !== 'live';
    }

    #version({ chat, title }) {
        const online = chat.peer && this.model.presence.get(chat.peer)?.status;
        return [title, chat.preview, chat.lastTs, chat.unread, chat.typing.size, online, chat.id === this.model.open, chat.isGone].join('|');
    }

    #row({ chat, title }) {
        const { model } = this;
        const isOnline = model.presence.get(chat.peer)?.status === 'online';
        const typing = [...chat.typing.keys()][0];
        const preview = typing ? chat.kind === 'direct' ? 'typing…' : `${model.name(typing)} is typing…`
            : chat.isGone ? 'You are no longer a member' : chat.preview || (chat.kind === 'group' ? 'New group' : 'Say hello');
        const when = chat.lastTs ? shortWhen(chat.lastTs) : undefined;
        const isUnread = chat.unread > 0;
        const name = [title, isOnline && 'online', isUnread && `${chat.unread} unread`, preview, when].filter(Boolean).join(', ');
        return h('li', {}, h('button.conversation', {
            onclick: () => this.go(chat.id), 'aria-current': String(chat.id === model.open), 'data-chat': chat.id,
            'aria-label': name,
        },
        avatar(chat.peer ?? chat.id, title, { online: isOnline, group: chat.kind === 'group' }),
        h('span.grow', {},
            h('span.line', {}, h('span.name', {}, title), when ? h('time', {}, when) : null),
            h('span.line', {}, h(typing ? 'span.preview.typing' : 'span.preview', {}, preview), isUnread ? h('span.badge', {}, chat.unread > 99 ? '99+' : String(chat.unread)) : null))));
    }

    #walk(event) {
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (!step || event.altKey) return;
        event.preventDefault();
        const buttons = [...this.element.querySelectorAll('button')];
        const at = buttons.indexOf(document.activeElement) + step;
        if (at < 0) $('search').focus();
        else buttons[at]?.focus();
    }
}
