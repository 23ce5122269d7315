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
