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
