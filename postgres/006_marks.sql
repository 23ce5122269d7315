-- Marks of readers that name messages which never were: they would hide whatever comes from their readers. What is read
-- from now on is held to what there is when it is stored; this is what was stored before.
UPDATE read_state r SET read_seq = least(r.read_seq, newest.seq), delivered_seq = least(r.delivered_seq, newest.seq)
FROM read_state o
    CROSS JOIN (SELECT max(last_seq) AS seq FROM sink_progress) stored
    CROSS JOIN LATERAL (SELECT coalesce((SELECT last_seq FROM chat_activity a WHERE a.chat_id = o.chat_id), -1) AS seq) newest
WHERE r.user_id = o.user_id AND r.chat_id = o.chat_id
  -- A mark may be a little ahead of what is stored of its own partition; ahead of all of them none is.
  AND greatest(o.read_seq, o.delivered_seq) > stored.seq;
