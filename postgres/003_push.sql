-- Whom to notify, and how: what `fanout push` asks before it tells somebody who is offline.

-- Between these minutes of the person's day nobody is told; the end may be before the beginning (22:00 to 07:00).
ALTER TABLE users
    ADD COLUMN quiet_from smallint CHECK (quiet_from BETWEEN 0 AND 1439),
    ADD COLUMN quiet_to smallint CHECK (quiet_to BETWEEN 0 AND 1439),
    -- Minutes east of UTC.
    ADD COLUMN utc_offset smallint NOT NULL DEFAULT 0 CHECK (utc_offset BETWEEN -840 AND 840),
    ADD CHECK ((quiet_from IS NULL) = (quiet_to IS NULL));
