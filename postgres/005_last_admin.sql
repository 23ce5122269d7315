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
