"""Holds every record that a cluster has to its topic's schema: check_records.py SCHEMA_DIRECTORY.

A field that no schema names is as wrong as one that is missing. Each schema's own examples are held to it as well. Records with a
header written-by were put there by a test to be refused.
"""

import collections
import json
import os
import pathlib
import sys

import confluent_kafka
import jsonschema

kafka = os.environ["FANOUT_KAFKA"]
problems = []


def strict(schema):
    """The same schema, to which a value with a field that it does not name is not valid."""
    closed = dict(schema, unevaluatedProperties=False)
    jsonschema.Draft202012Validator.check_schema(closed)
    return jsonschema.Draft202012Validator(closed)


def check(validator, where, value):
    for error in validator.iter_errors(value):
        problems.append(f"{where}: {error.message} at {error.json_path}: {json.dumps(value)[:300]}")


def records(topic):
    """What the topic has now; more may come meanwhile."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": "check", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    ends = {p: consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, p), timeout=20)[1] for p in partitions}
    unread = {p for p in partitions if ends[p] > 0}
    consumer.assign([confluent_kafka.TopicPartition(topic, p, confluent_kafka.OFFSET_BEGINNING) for p in unread])
    while unread:
        record = consumer.poll(20)
        assert record is not None, f"{topic}: nothing comes, not even the end"
        if record.error():
            # The last records may have been compacted away.
            assert record.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, record.error()
            unread.discard(record.partition())
        elif record.offset() < ends[record.partition()]:
            if record.offset() + 1 == ends[record.partition()]:
                unread.discard(record.partition())
            yield record
    consumer.close()


for path in sorted(pathlib.Path(sys.argv[1]).glob("*.schema.json")):
    topic = path.name.removesuffix(".schema.json")
    schema = json.loads(path.read_text())
    validator = strict(schema)
    for number, example in enumerate(schema["examples"]):
        check(validator, f"{topic}, example {number}", example)
    seen = collections.Counter()
    for record in records(topic):
        where = f"{topic}/{record.partition()}/{record.offset()}"
        if dict(record.headers() or []).get("written-by"):
            seen["garbage"] += 1
        elif record.value() is None:
            seen["deleted"] += 1
        else:
            seen["records"] += 1
            try:
                check(validator, where, json.loads(record.value()))
            except ValueError as error:
                problems.append(f"{where}: {error}: {record.value()[:300]}")
    print(topic, ", ".join(f"{count} {what}" for what, count in seen.items()))
    if not seen["records"]:
        problems.append(f"{topic}: there is no record to check")

# The first of each topic tell the rest.
for problem in problems[:20]:
    print("PROBLEM", problem)
print(f"{len(problems)} problems")
sys.exit(1 if problems else 0)
