/** Starting conversations, and who is in a group. */

import { $, avatar, h, icon, lastSeen, toast } from './dom.js';

function show(...content) {
    const dialog = $('dialog');
    dialog.replaceChildren(...content);
    dialog.onclick = (event) => {
        if (event.target === dialog) dialog.close();
    };
    if (!dialog.open) dialog.showModal();
    return dialog;
}

const close = () => $('dialog').close();

/** Tells what went wrong where one is looking. */
async function attempt(run) {
    try {
        return await run();
    } catch (error) {
        toast(error.message);
        return undefined;
    }
}

/** A field for whoever is not in the list: finds the person of an id and gives it to `take`. */
function byID(model, take) {
    const field = h('input.grow', { placeholder: 'Add by user id', 'aria-label': 'User id', autocomplete: 'off', spellcheck: 'false' });
    const add = async () => {
        const found = await attempt(() => model.api.user(field.value.trim()));
        if (!found) return;
        model.names.set(found.user, found.name);
        field.value = '';
        take(found);
    };
    field.onkeydown = (event) => {
        if (event.key !== 'Enter') return;
        // Not the dialog's own button, which Enter would press.
        event.preventDefault();
        add();
    };
    return h('div.row', {}, field, h('button.small', { type: 'button', 'data-add-id': '', onclick: add }, 'Add'));
}

/** One person chosen: a direct chat. Several, or a title: a group. */
export function newChatDialog(model, go) {
    const chosen = new Set();
    const title = h('input', { name: 'title', placeholder: 'Group name', 'aria-label': 'Group name', maxlength: 100, autocomplete: 'off' });
    const button = h('button.primary', { disabled: true }, 'Start');
    const row = ({ user, name }) => h('li', {}, h('button.person', {
        type: 'button', role: 'checkbox', 'aria-checked': 'false', 'data-user': user,
        onclick: (event) => {
            const item = event.currentTarget;
            const isChosen = !chosen.delete(user);
            if (isChosen) chosen.add(user);
            item.setAttribute('aria-checked', String(isChosen));
            update();
        },
    }, avatar(user, name), h('span.grow.name', {}, name), h('span.checkmark', {}, icon('sent'))));
    const update = () => {
        const isGroup = chosen.size > 1 || title.value.trim() !== '';
        button.disabled = chosen.size === 0;
        button.textContent = isGroup ? `Create group of ${chosen.size + 1}` : 'Start';
    };
    title.oninput = update;
    const people = h('ul.people', {}, model.people.map(row));
    const add = (found) => {
        let entry = people.querySelector(`[data-user="${found.user}"]`);
        if (!entry) {
            people.prepend(row(found));
            entry = people.querySelector('button');
        }
        if (!chosen.has(found.user)) entry.click();
    };
    const form = h('form', {
        method: 'dialog', onsubmit: async (event) => {
            event.preventDefault();
            const users = [...chosen];
            const isGroup = users.length > 1 || title.value.trim() !== '';
            const names = users.map((user) => model.name(user).split(' ')[0]);
            const made = await attempt(() => isGroup
                ? model.api.createGroup(title.value.trim() || [...names, model.me.name.split(' ')[0]].join(', '), users)
                : model.api.direct(users[0]));
            if (!made) return;
            model.client.sawMetaVersion(made.chat, made.meta_version ?? 0);
            close();
            await model.refresh(made.chat);
            go(made.chat);
        },
    },
    h('h2', { id: 'dialog-title' }, 'New conversation'),
    people,
    byID(model, add),
    title,
    h('div.row.end', {}, h('button.small', { type: 'button', onclick: close }, 'Cancel'), button));
    show(form);
}

export function groupDialog(model, id, go) {
    const chat = model.chats.get(id);
    if (!chat) return;
    if (chat.kind === 'direct') return personDialog(model, chat);
    const isAdmin = chat.role === 'admin';
    const redraw = async (change) => {
        const answer = await attempt(change);
        if (!answer) return;
        // What is sent from here on is joined against the members as they are now.
        if (answer.meta_version) model.client.sawMetaVersion(id, answer.meta_version);
        await model.refresh(id);
        groupDialog(model, id, go);
    };
    const members = [...chat.members].map(([user, { role }]) => h('li.person', {},
        avatar(user, model.name(user)),
        h('span.grow.name', {}, user === model.me.user ? `${model.name(user)} (you)` : model.name(user)),
        role === 'admin' ? h('span.tag', {}, 'admin') : null,
        isAdmin && user !== model.me.user && !chat.isGone
            ? h('button.small.danger', { 'aria-label': `Remove ${model.name(user)}`, 'data-remove': user, onclick: () => redraw(() => model.api.removeMember(id, user)) }, 'Remove') : null));
    const absent = model.people.filter(({ user }) => !chat.members.has(user));
    const add = (user) => chat.members.has(user) ? toast(`${model.name(user)} is a member already`)
        : redraw(() => model.api.addMember(id, user));
    const adding = !isAdmin || chat.isGone ? null : [
        absent.length ? h('div.row', {},
            h('select.grow', { 'aria-label': 'Person to add' }, absent.map(({ user, name }) => h('option', { value: user }, name))),
            h('button.small', { 'data-add': '', onclick: (event) => add(event.target.previousSibling.value) }, 'Add')) : null,
        byID(model, ({ user }) => add(user))];
    const leave = async () => {
        if (!await attempt(() => model.api.removeMember(id, model.me.user))) return;
        close();
        chat.isGone = true;
        model.emit('change', { what: 'chat', chat: id });
    };
    const remove = async () => {
        if (!await attempt(() => model.api.deleteChat(id))) return;
        close();
        model.chats.delete(id);
        go(undefined);
    };
    show(h('div.body', {},
        h('h2', { id: 'dialog-title' }, model.title(chat)),
        h('p.muted', {}, `${chat.members.size || chat.membersCount} members`),
        h('ul.people', {}, members), adding,
        h('div.row.end', {},
            isAdmin && !chat.isGone ? h('button.small.danger', { onclick: remove }, 'Delete group') : null,
            chat.isGone ? null : h('button.small.danger', { onclick: leave }, 'Leave'),
            h('button.primary', { onclick: close }, 'Done'))));
}

function personDialog(model, chat) {
    const presence = model.presence.get(chat.peer);
    const name = model.title(chat);
    show(h('div.body', {},
        h('div.person', {}, avatar(chat.peer, name, { online: presence?.status === 'online' }),
            h('span.grow', {}, h('h2', { id: 'dialog-title' }, name),
                h('span.muted', {}, presence?.status === 'online' ? 'online' : lastSeen(presence?.last_seen)))),
        h('p.muted.mono', {}, chat.peer ?? ''),
        h('div.row.end', {}, h('button.primary', { onclick: close }, 'Done'))));
}
