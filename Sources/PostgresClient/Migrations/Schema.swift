// swift-format-ignore-file
// Written by postgres/embed from postgres/*.sql: edit those.

/// The schema of Fanout, step by step.
public enum Schema {
    public static let migrations: [Migration] = [
        Migration(
            number: 1, name: "users_chats_members",
            sql: #"""
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

                """#),
        Migration(
            number: 2, name: "history",
            sql: #"""
                -- What was said: the messages, and how far readers and the sink have come.
                --
                -- Times are integer milliseconds, as everywhere in Fanout. `seq` is a message's offset in its partition of
                -- chat.incoming, and the log's clock never runs backwards there, so (ts, seq) and seq order a chat's messages alike:
                -- the primary key serves pages, syncs and unread counts, newest day first, and only days that are needed are touched.

                -- One row a record of chat.messages: messages, and the edits and deletes of others, whose effect is also applied to
                -- their target's row. Partitions of a day each are made ahead and dropped by `fanout history`.
                CREATE TABLE messages (
                    chat_id uuid NOT NULL,
                    ts bigint NOT NULL,
                    seq bigint NOT NULL,
                    message_id uuid NOT NULL,
                    sender uuid NOT NULL,
                    -- 'text', 'edit', 'delete', and 'deleted' for a message that was taken back.
                    kind text NOT NULL,
                    -- What the sender wrote, as it was written: text, attachments, reply_to, target, client_ts.
                    body json NOT NULL,
                    -- The seq of the last edit or delete that was applied.
                    changed_seq bigint,
                    PRIMARY KEY (chat_id, ts, seq)
                ) PARTITION BY RANGE (ts);

                -- How far the sink has come. It moves in the transaction that stores the records before it, so a record is stored
                -- exactly once whatever dies.
                CREATE TABLE sink_progress (
                    topic text NOT NULL,
                    partition integer NOT NULL,
                    next_offset bigint NOT NULL,
                    -- The highest seq stored from this partition: the join may write its last records twice after a crash.
                    last_seq bigint NOT NULL DEFAULT -1,
                    -- Everything that the log took before this time is stored.
                    reached_ms bigint NOT NULL DEFAULT 0,
                    PRIMARY KEY (topic, partition)
                ) WITH (fillfactor = 50);

                -- About once a minute and partition: the record that was written to chat.messages at `at_ms` had this seq and ts. So
                -- a seq alone finds the hour of its message, and a time of delivery finds the oldest message delivered after it.
                CREATE TABLE sink_marks (
                    partition integer NOT NULL,
                    seq bigint NOT NULL,
                    ts bigint NOT NULL,
                    at_ms bigint NOT NULL,
                    PRIMARY KEY (partition, seq)
                );
                CREATE INDEX sink_marks_by_time ON sink_marks (partition, at_ms);

                -- How far each member has read and been delivered to; both only move forward.
                CREATE TABLE read_state (
                    user_id uuid NOT NULL,
                    chat_id uuid NOT NULL,
                    read_seq bigint NOT NULL DEFAULT -1,
                    -- No message after read_seq is older than this, so that counting the unread starts there.
                    read_ts bigint NOT NULL DEFAULT 0,
                    delivered_seq bigint NOT NULL DEFAULT -1,
                    PRIMARY KEY (user_id, chat_id)
                ) WITH (fillfactor = 80);

                -- The last cursor that each device has acknowledged.
                CREATE TABLE devices (
                    user_id uuid NOT NULL,
                    device_id uuid NOT NULL,
                    cursor text NOT NULL,
                    updated_at timestamptz NOT NULL DEFAULT now(),
                    PRIMARY KEY (user_id, device_id)
                ) WITH (fillfactor = 80);

                -- A direct chat of two is one chat, whoever asks for it and how often.
                CREATE TABLE direct_chats (
                    lower_user uuid NOT NULL,
                    upper_user uuid NOT NULL,
                    chat_id uuid NOT NULL REFERENCES chats ON DELETE CASCADE,
                    PRIMARY KEY (lower_user, upper_user),
                    CHECK (lower_user < upper_user)
                );

                ALTER TABLE chat_activity
                    -- The conversation list shows who spoke last.
                    ADD COLUMN last_sender uuid,
                    -- The time of the chat's last record: an edit or a delete does not make a chat active, but a sync must find it.
                    ADD COLUMN changed_ts bigint NOT NULL DEFAULT 0;

                """#),
        Migration(
            number: 3, name: "push",
            sql: #"""
                -- Whom to notify, and how: what `fanout push` asks before it tells somebody who is offline.

                -- Between these minutes of the person's day nobody is told; the end may be before the beginning (22:00 to 07:00).
                ALTER TABLE users
                    ADD COLUMN quiet_from smallint CHECK (quiet_from BETWEEN 0 AND 1439),
                    ADD COLUMN quiet_to smallint CHECK (quiet_to BETWEEN 0 AND 1439),
                    -- Minutes east of UTC.
                    ADD COLUMN utc_offset smallint NOT NULL DEFAULT 0 CHECK (utc_offset BETWEEN -840 AND 840),
                    ADD CHECK ((quiet_from IS NULL) = (quiet_to IS NULL));

                """#),
        Migration(
            number: 4, name: "push_devices",
            sql: #"""
                -- How each device wants to be told while it has no session. Both tables are written by the API and read by `fanout
                -- push`, which also removes what the receiver says is gone.

                -- Web Push (RFC 8030): where the browser's push service takes messages for this device, and the keys that encrypt them.
                CREATE TABLE push_subscriptions (
                    user_id uuid NOT NULL,
                    device_id uuid NOT NULL,
                    endpoint text NOT NULL CHECK (length(endpoint) <= 2048),
                    -- The browser's public key, an uncompressed point of P-256, and its secret of 16 bytes.
                    p256dh bytea NOT NULL CHECK (length(p256dh) = 65),
                    auth bytea NOT NULL CHECK (length(auth) = 16),
                    updated_at timestamptz NOT NULL DEFAULT now(),
                    PRIMARY KEY (user_id, device_id)
                );

                -- A browser in which somebody else has signed in keeps its endpoint: it must not show the first one's messages.
                CREATE INDEX push_subscriptions_by_endpoint ON push_subscriptions USING hash (endpoint);

                -- Tokens by which a bridge behind the webhook (FCM, APNs, …) knows the device.
                CREATE TABLE push_tokens (
                    user_id uuid NOT NULL,
                    device_id uuid NOT NULL,
                    provider text NOT NULL CHECK (length(provider) <= 64),
                    token text NOT NULL CHECK (length(token) <= 4096),
                    updated_at timestamptz NOT NULL DEFAULT now(),
                    PRIMARY KEY (user_id, device_id, provider)
                );

                CREATE INDEX push_tokens_by_token ON push_tokens USING hash (token);

                """#),
        Migration(
            number: 5, name: "last_admin",
            sql: #"""
                -- A group never stays without an admin: nobody could add, remove or promote anybody in it any more.
                --
                -- When the last admin of a group leaves, is removed, is made a plain member, or is disabled, the member who has been there
                -- longest becomes admin, in the same transaction; among those who came at the same time the one with the lowest id. Who is
                -- disabled is nobody's admin and is not made one. It is a change of role like any other: it raises the version, and members
                -- see it as an event. Done here and not by the API, so that plain SQL cannot forget it.

                -- Finds out at once whether a group has an admin, however many members it has.
                CREATE INDEX members_admins ON members (chat_id, user_id) WHERE role = 'admin';

                -- `leaving`: who has just been made a plain member, or deleted. They are admins again only when there is nobody else.
                --
                -- The chats are locked first, and looked at then, by a statement of its own: of two admins who leave at the same time, the
                -- second transaction waits here, and sees that the first one is gone.
                CREATE FUNCTION keep_an_admin(touched uuid[], leaving uuid[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
                BEGIN
                    PERFORM 1 FROM chats WHERE chat_id = ANY (touched) AND kind = 'group' ORDER BY chat_id FOR NO KEY UPDATE;
                    UPDATE members m SET role = 'admin'
                    FROM chats c, LATERAL (
                        SELECT o.user_id FROM members o LEFT JOIN users u USING (user_id)
                        WHERE o.chat_id = c.chat_id AND u.disabled IS NOT TRUE
                        ORDER BY o.user_id = ANY (leaving), o.joined_at, o.user_id LIMIT 1
                    ) heir
                    WHERE c.chat_id = ANY (touched) AND c.kind = 'group'
                      AND NOT EXISTS (
                          SELECT FROM members a LEFT JOIN users u USING (user_id)
                          WHERE a.chat_id = c.chat_id AND a.role = 'admin' AND u.disabled IS NOT TRUE AND a.user_id <> ALL (leaving))
                      AND m.chat_id = c.chat_id AND m.user_id = heir.user_id;
                END $$;

                CREATE FUNCTION admins_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
                DECLARE
                    touched uuid[] := ARRAY(SELECT DISTINCT chat_id FROM gone WHERE role = 'admin');
                BEGIN
                    IF touched <> '{}' THEN PERFORM keep_an_admin(touched); END IF;
                    RETURN NULL;
                END $$;

                CREATE FUNCTION admins_updated() RETURNS trigger LANGUAGE plpgsql AS $$
                DECLARE
                    touched uuid[];
                    leaving uuid[];
                BEGIN
                    SELECT array_agg(DISTINCT chat_id), array_agg(DISTINCT user_id) INTO touched, leaving FROM (
                        SELECT chat_id, user_id FROM old_rows WHERE role = 'admin'
                        EXCEPT SELECT chat_id, user_id FROM new_rows WHERE role = 'admin') lost;
                    IF touched IS NOT NULL THEN PERFORM keep_an_admin(touched, leaving); END IF;
                    RETURN NULL;
                END $$;

                -- Who is disabled: any of their groups may have lost its last admin. Who is enabled again: they may be all that a group has.
                -- Users first and their chats by index then, or changing a name could cost a look at all members.
                CREATE FUNCTION users_updated() RETURNS trigger LANGUAGE plpgsql AS $$
                DECLARE
                    changed uuid[] := ARRAY(SELECT user_id FROM old_rows o JOIN new_rows n USING (user_id) WHERE o.disabled <> n.disabled);
                BEGIN
                    IF changed <> '{}' THEN
                        PERFORM keep_an_admin(ARRAY(SELECT DISTINCT chat_id FROM members WHERE user_id = ANY (changed)));
                    END IF;
                    RETURN NULL;
                END $$;

                CREATE FUNCTION users_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
                DECLARE
                    deleted uuid[] := ARRAY(SELECT user_id FROM gone);
                BEGIN
                    IF deleted <> '{}' THEN
                        PERFORM keep_an_admin(ARRAY(SELECT DISTINCT chat_id FROM members WHERE user_id = ANY (deleted)), deleted);
                    END IF;
                    RETURN NULL;
                END $$;

                -- Behind those that raise the version (triggers run in the order of their names).
                CREATE TRIGGER members_deleted_admins AFTER DELETE ON members
                    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION admins_deleted();
                CREATE TRIGGER members_updated_admins AFTER UPDATE ON members
                    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION admins_updated();
                CREATE TRIGGER users_updated AFTER UPDATE ON users
                    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION users_updated();
                CREATE TRIGGER users_deleted AFTER DELETE ON users
                    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION users_deleted();

                -- Groups that have lost theirs before.
                SELECT keep_an_admin(ARRAY(SELECT chat_id FROM chats WHERE kind = 'group'));

                """#),
        Migration(
            number: 6, name: "marks",
            sql: #"""
                -- Marks of readers that name messages which never were: they would hide whatever comes from their readers. What is read
                -- from now on is held to what there is when it is stored; this is what was stored before.
                UPDATE read_state r SET read_seq = least(r.read_seq, newest.seq), delivered_seq = least(r.delivered_seq, newest.seq)
                FROM read_state o
                    CROSS JOIN (SELECT max(last_seq) AS seq FROM sink_progress) stored
                    CROSS JOIN LATERAL (SELECT coalesce((SELECT last_seq FROM chat_activity a WHERE a.chat_id = o.chat_id), -1) AS seq) newest
                WHERE r.user_id = o.user_id AND r.chat_id = o.chat_id
                  -- A mark may be a little ahead of what is stored of its own partition; ahead of all of them none is.
                  AND greatest(o.read_seq, o.delivered_seq) > stored.seq;

                """#),
        Migration(
            number: 7, name: "logs",
            sql: #"""
                -- Which logs there have been, so that what is numbered by a log goes on where the log begins again.

                -- The runs of each partition of chat.incoming: the log (the topic's id) and the generation, which stands in the high bits
                -- of seq. A topic made again gets a row of its own with the next generation; a partition that lost its end goes on
                -- with a higher one. So seq never goes back within a chat.
                CREATE TABLE log_runs (
                    topic text NOT NULL,
                    partition integer NOT NULL,
                    log uuid NOT NULL,
                    generation integer NOT NULL CHECK (generation BETWEEN 0 AND 8191),
                    since timestamptz NOT NULL DEFAULT now(),
                    PRIMARY KEY (topic, partition, log)
                );

                -- Of which log a position is.
                ALTER TABLE sink_progress ADD COLUMN log uuid;

                -- This database, made once: a copy of it that went on by itself has the same, and another timeline or system.
                CREATE TABLE database_identity (
                    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
                    id uuid NOT NULL DEFAULT gen_random_uuid(),
                    made_at timestamptz NOT NULL DEFAULT now()
                );
                INSERT INTO database_identity DEFAULT VALUES;

                """#),
    ]
}
