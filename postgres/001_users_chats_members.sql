-- Who may talk where: the tables that CDC publishes to the log.
--
-- Each change of a row here becomes a record in chat.members or chat.users, so what changes with every message
-- (chat_activity) is a table of its own and not published. Every table can be distributed by its first key column.

CREATE TABLE users (
    user_id uuid PRIMARY KEY,
    name text NOT NULL CHECK (length(name) <= 200),
    disabled boolean NOT NULL DEFAULT false,
    -- Tokens issued before this are revoked; 'infinity' revokes all that will ever be issued.
    tokens_valid_after timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE chats (
    chat_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('direct', 'group')),
    title text CHECK (length(title) <= 200),
    -- Counts the changes of this chat's membership. Kept by the triggers below and by nothing else.
    meta_version bigint NOT NULL DEFAULT 0,
    -- Whether a member may read what was written before they joined.
    open_history boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE members (
    chat_id uuid NOT NULL REFERENCES chats ON DELETE CASCADE,
    user_id uuid NOT NULL,
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    -- No push notifications until then; 'infinity' mutes for good. Messages arrive all the same.
    muted_until timestamptz,
    PRIMARY KEY (chat_id, user_id)
);

CREATE INDEX members_by_user ON members (user_id, chat_id);

CREATE TABLE chat_activity (
    chat_id uuid PRIMARY KEY REFERENCES chats ON DELETE CASCADE,
    last_seq bigint NOT NULL,
    last_ts bigint NOT NULL,
    last_preview text
);

-- Causal membership: a statement that changes members raises meta_version of each chat that it touches, after its
-- rows and in the same transaction. So in the log a chat's new version follows the rows that made it, and whoever has
-- seen the version knows that the rows are there. Once a statement and chat, not once a row: a group of 1,000 made by
-- one INSERT is one update. The chats are locked in the order of their ids, so that two such statements cannot
-- deadlock.

CREATE FUNCTION raise_meta_version(touched uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM chats WHERE chat_id = ANY (touched) ORDER BY chat_id FOR NO KEY UPDATE;
    UPDATE chats SET meta_version = meta_version + 1 WHERE chat_id = ANY (touched);
END $$;

CREATE FUNCTION members_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_meta_version(ARRAY(SELECT DISTINCT chat_id FROM changed));
    RETURN NULL;
END $$;

-- Only who is in and with which role counts as membership: muting a chat does not raise its version.
CREATE FUNCTION members_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_meta_version(ARRAY(
        SELECT chat_id FROM (SELECT chat_id, user_id, role FROM old_rows EXCEPT SELECT chat_id, user_id, role FROM new_rows) gone
        UNION
        SELECT chat_id FROM (SELECT chat_id, user_id, role FROM new_rows EXCEPT SELECT chat_id, user_id, role FROM old_rows) came));
    RETURN NULL;
END $$;

CREATE FUNCTION members_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE chats SET meta_version = meta_version + 1;
    RETURN NULL;
END $$;

CREATE TRIGGER members_inserted AFTER INSERT ON members
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION members_changed();
CREATE TRIGGER members_deleted AFTER DELETE ON members
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION members_changed();
CREATE TRIGGER members_updated AFTER UPDATE ON members
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION members_updated();
CREATE TRIGGER members_truncated AFTER TRUNCATE ON members
    FOR EACH STATEMENT EXECUTE FUNCTION members_truncated();

CREATE PUBLICATION fanout FOR TABLE users, chats, members;
