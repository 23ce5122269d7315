"""The broker as foreign clients see it: kcat, confluent-kafka (librdkafka) and kafka-python.

Run by InteropTests.swift as  python interop.py BOOTSTRAP TEST, one process a test; works as well against Apache Kafka.
A test fails by raising. Nothing here knows which broker it talks to.
"""

import json
import subprocess
import sys
import threading
import time
import uuid

import confluent_kafka as ck
import kafka
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic)
from kafka.admin import KafkaAdminClient

BOOTSTRAP = ""


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:12]}"


def admin():
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def make_topic(partitions=1, **config):
    topic = unique("interop")
    settings = {name.replace("_", "."): str(value) for name, value in config.items()}
    client = admin()
    for future in client.create_topics([NewTopic(topic, partitions, 1, config=settings)]).values():
        future.result(20)
    return topic


def deadline(seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
    raise TimeoutError(f"not within {seconds} s")


def produce(topic, values, keys=None, **config):
    producer = ck.Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 2, **config})
    failures = []
    offsets = []

    def delivered(error, message):
        failures.append(error) if error else offsets.append((message.partition(), message.offset()))

    for index, value in enumerate(values):
        producer.produce(topic, value, key=keys[index] if keys else None, on_delivery=delivered)
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not failures, failures[:3]
    assert len(offsets) == len(values)
    return offsets


def consumer(group=None, **config):
    return ck.Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": group or unique("group"), "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": 30_000,
        "heartbeat.interval.ms": 300, **config})


def consume(client, count, seconds=30):
    messages = []
    for _ in deadline(seconds):
        for message in client.consume(500, 0.2):
            assert not message.error(), message.error()
            messages.append(message)
        if len(messages) >= count:
            return messages


def read_all(topic, count, **config):
    client = consumer(**config)
    client.subscribe([topic])
    messages = consume(client, count)
    client.close()
    return messages


# kcat


def kcat(*arguments, stdin=None):
    done = subprocess.run(["kcat", "-b", BOOTSTRAP, *arguments], input=stdin, capture_output=True, timeout=40)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def kcat_produces_and_consumes():
    topic = make_topic(3)
    lines = [f"k{n}:v{n}" for n in range(500)]
    kcat("-P", "-t", topic, "-K:", stdin="\n".join(lines).encode())
    found = kcat("-C", "-t", topic, "-K:", "-e", "-q", "-o", "beginning").split()
    assert sorted(found) == sorted(lines)


def kcat_lists_topics_and_partitions():
    topic = make_topic(5)
    listing = json.loads(kcat("-L", "-J"))
    entry = next(entry for entry in listing["topics"] if entry["topic"] == topic)
    assert len(entry["partitions"]) == 5
    assert all(partition["leader"] == listing["brokers"][0]["id"] for partition in entry["partitions"])


def kcat_queries_offsets_by_time():
    topic = make_topic(message_timestamp_type="CreateTime")
    producer = ck.Producer({"bootstrap.servers": BOOTSTRAP})
    base = int(time.time() * 1000) - 100_000
    for n in range(100):
        producer.produce(topic, f"v{n}", timestamp=base + n * 10)
    assert producer.flush(20) == 0
    # To the record, although all of them are in one batch.
    answer = kcat("-Q", "-t", f"{topic}:0:{base + 361}")
    assert answer.split() == [topic, "[0]", "offset", "37"], answer


def kcat_consumes_in_a_group():
    topic = make_topic(2)
    produce(topic, [f"v{n}" for n in range(100)])
    output = kcat("-G", unique("group"), topic, "-c", "100", "-q", "-X", "auto.offset.reset=earliest")
    assert len(output.split()) == 100


# confluent-kafka


def every_codec_survives():
    topic = make_topic()
    expected = []
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        values = [f"{codec} {n} {'x' * 100}".encode() for n in range(300)]
        produce(topic, values, **{"compression.type": codec})
        expected += values
    assert [message.value() for message in read_all(topic, len(expected), **{"check.crcs": True})] == expected


def keys_headers_and_tombstones_survive():
    topic = make_topic()
    producer = ck.Producer({"bootstrap.servers": BOOTSTRAP})
    producer.produce(topic, b"value", key=b"key", headers=[("a", b"1"), ("b", None), ("a", b"2")])
    producer.produce(topic, None, key=b"key")
    assert producer.flush(20) == 0
    first, second = read_all(topic, 2)
    assert first.headers() == [("a", b"1"), ("b", None), ("a", b"2")]
    assert (second.key(), second.value()) == (b"key", None)


def large_messages_pass_and_larger_are_refused():
    topic = make_topic()
    produce(topic, [b"x" * 900_000])
    assert len(read_all(topic, 1)[0].value()) == 900_000
    producer = ck.Producer({"bootstrap.servers": BOOTSTRAP, "message.max.bytes": 3_000_000})
    errors = []
    producer.produce(topic, b"x" * 2_000_000, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(20) == 0
    assert errors[0].code() == ck.KafkaError.MSG_SIZE_TOO_LARGE, errors


def all_acknowledgement_levels_work():
    for acks in ["all", "1", "0"]:
        topic = make_topic()
        producer = ck.Producer({"bootstrap.servers": BOOTSTRAP, "acks": acks})
        for n in range(1000):
            producer.produce(topic, f"{n}")
        assert producer.flush(20) == 0
        assert [int(message.value()) for message in read_all(topic, 1000)] == list(range(1000))


def an_idempotent_producer_keeps_order_and_count():
    topic = make_topic()
    produce(topic, [str(n) for n in range(20_000)], **{
        "enable.idempotence": True, "batch.num.messages": 50, "linger.ms": 0})
    assert [int(message.value()) for message in read_all(topic, 20_000)] == list(range(20_000))


def a_group_shares_partitions_and_rebalances():
    for strategy in ["range", "roundrobin", "cooperative-sticky"]:
        topic, group = make_topic(6), unique("group")
        clients = [consumer(group, **{"partition.assignment.strategy": strategy}) for _ in range(3)]

        def settle(members):
            for _ in deadline():
                for client in members:
                    client.poll(0.05)
                owned = [partition.partition for client in members for partition in client.assignment()]
                if sorted(owned) == list(range(6)) and all(client.assignment() for client in members):
                    return

        for count in range(1, 4):
            clients[count - 1].subscribe([topic])
            settle(clients[:count])
        assert all(len(client.assignment()) == 2 for client in clients), strategy
        clients.pop().close()
        settle(clients)
        assert all(len(client.assignment()) == 3 for client in clients), strategy
        for client in clients:
            client.close()


def a_static_member_returns_without_a_rebalance():
    topic, group = make_topic(4), unique("group")
    rebalances = []

    def member(name):
        client = consumer(group, **{"group.instance.id": name})
        client.subscribe([topic], on_assign=lambda _, partitions: rebalances.append((name, len(partitions))))
        return client

    first, second = member("a"), member("b")
    for _ in deadline():
        first.poll(0.05)
        second.poll(0.05)
        if len(first.assignment()) == 2 and len(second.assignment()) == 2:
            break
    held = sorted(partition.partition for partition in second.assignment())
    first_rebalances = sum(name == "a" for name, _ in rebalances)
    second.close()
    second = member("b")
    for _ in deadline():
        first.poll(0.05)
        second.poll(0.05)
        if second.assignment():
            break
    assert sorted(partition.partition for partition in second.assignment()) == held
    assert sum(name == "a" for name, _ in rebalances) == first_rebalances
    first.close()
    second.close()


def a_lone_member_joins_fast():
    topic = make_topic()
    produce(topic, ["x"])
    times = []
    for _ in range(5):
        client = consumer()
        # The connection and the metadata are not what is measured.
        client.list_topics(timeout=10)
        assigned = []
        start = time.monotonic()
        client.subscribe([topic], on_assign=lambda *_: assigned.append(time.monotonic() - start))
        for _ in deadline():
            client.poll(0.01)
            if assigned:
                break
        times += assigned
        client.close()
    # The fastest of some: a busy machine delays any of them, the broker would delay all.
    assert min(times) < 0.1, times


def committed_offsets_are_found_again():
    topic, group = make_topic(2), unique("group")
    produce(topic, [f"{n}" for n in range(100)])
    client = consumer(group)
    client.subscribe([topic])
    consume(client, 100)
    # A partition that nothing went to has no position.
    committed = {entry.partition: entry.offset for entry in client.commit(asynchronous=False) if entry.offset >= 0}
    client.close()
    client = consumer(group)
    found = client.committed([ck.TopicPartition(topic, n) for n in range(2)], timeout=10)
    assert {entry.partition: entry.offset for entry in found if entry.offset >= 0} == committed
    client.subscribe([topic])
    produce(topic, ["new"])
    assert consume(client, 1)[0].value() == b"new"
    client.close()


def a_zombie_cannot_commit():
    topic, group = make_topic(), unique("group")
    produce(topic, ["x"])
    zombie = consumer(group, **{"session.timeout.ms": 6000, "max.poll.interval.ms": 6000})
    zombie.subscribe([topic])
    message = consume(zombie, 1)[0]
    time.sleep(7)  # The other side's clock is what is waited for: its session ends.
    heir = consumer(group)
    heir.subscribe([topic])
    consume(heir, 1)
    try:
        zombie.commit(message, asynchronous=False)
        raise AssertionError("a member that was dropped has committed")
    except ck.KafkaException:
        pass
    heir.close()


def offsets_by_time_and_watermarks():
    topic = make_topic(message_timestamp_type="CreateTime")
    base = int(time.time() * 1000) - 1_000_000
    for codec in ["none", "zstd"]:
        producer = ck.Producer({"bootstrap.servers": BOOTSTRAP, "compression.type": codec})
        for n in range(100):
            producer.produce(topic, f"v{n}", timestamp=base + n * 10)
        assert producer.flush(20) == 0
        base += 1000
    base -= 2000
    client = consumer()
    assert client.get_watermark_offsets(ck.TopicPartition(topic, 0), timeout=10) == (0, 200)
    for wanted, expected in [(0, 0), (base + 11, 2), (base + 990, 99), (base + 995, 100), (base + 1371, 138)]:
        found = client.offsets_for_times([ck.TopicPartition(topic, 0, wanted)], timeout=10)[0]
        assert found.offset == expected, (wanted - base, found)
    client.close()


def a_fetch_waits_and_is_woken():
    topic = make_topic()
    client = consumer(**{"fetch.wait.max.ms": 20_000})
    client.assign([ck.TopicPartition(topic, 0, 0)])
    client.poll(1)
    producer = ck.Producer({"bootstrap.servers": BOOTSTRAP})
    producer.produce(topic, "warm")
    producer.flush(10)
    consume(client, 1)
    delays = []
    for n in range(20):
        threading.Timer(0.05, lambda: (producer.produce(topic, str(time.monotonic())), producer.flush(10))).start()
        message = consume(client, 1)[0]
        delays.append(time.monotonic() - float(message.value()))
    assert sorted(delays)[10] < 0.25, delays
    client.close()


def topics_are_administered():
    client, topic = admin(), make_topic(2, retention_ms=60_000, cleanup_policy="compact")
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    described = client.describe_configs([resource])[resource].result(10)
    assert described["retention.ms"].value == "60000"
    assert described["cleanup.policy"].value == "compact"
    client.create_partitions([NewPartitions(topic, 5)])[topic].result(10)
    for _ in deadline():
        if len(client.list_topics(topic, timeout=10).topics[topic].partitions) == 5:
            break
    change = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "90000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.APPEND)])
    client.incremental_alter_configs([change])[change].result(10)
    described = client.describe_configs([resource])[resource].result(10)
    assert described["retention.ms"].value == "90000"
    assert set(described["cleanup.policy"].value.split(",")) == {"compact", "delete"}
    for name, error in [("bad name!", ck.KafkaError.TOPIC_EXCEPTION), (topic, ck.KafkaError.TOPIC_ALREADY_EXISTS)]:
        try:
            client.create_topics([NewTopic(name, 1, 1)])[name].result(10)
            raise AssertionError(name)
        except ck.KafkaException as failure:
            assert failure.args[0].code() == error, failure
    client.delete_topics([topic])[topic].result(10)
    for _ in deadline():
        if topic not in client.list_topics(timeout=10).topics:
            break


def groups_are_administered():
    client, topic, group = admin(), make_topic(), unique("group")
    produce(topic, ["x"])
    member = consumer(group)
    member.subscribe([topic])
    consume(member, 1)
    member.commit(asynchronous=False)
    listed = client.list_consumer_groups().result(10).valid
    assert any(entry.group_id == group for entry in listed)
    described = client.describe_consumer_groups([group])[group].result(10)
    assert described.state == ck.ConsumerGroupState.STABLE
    assert described.members[0].assignment.topic_partitions[0].topic == topic
    try:
        client.delete_consumer_groups([group])[group].result(10)
        raise AssertionError("a group with members was deleted")
    except ck.KafkaException as failure:
        assert failure.args[0].code() == ck.KafkaError.NON_EMPTY_GROUP
    member.close()
    offsets = client.list_consumer_group_offsets([ck.ConsumerGroupTopicPartitions(group)])[group].result(10)
    assert offsets.topic_partitions[0].offset == 1
    client.delete_consumer_groups([group])[group].result(10)
    assert not any(entry.group_id == group for entry in client.list_consumer_groups().result(10).valid)


def the_cluster_is_described():
    client = admin()
    described = client.describe_cluster(include_authorized_operations=True).result(10)
    listed = client.list_topics(timeout=10)
    assert described.cluster_id == listed.cluster_id
    assert [node.id for node in described.nodes] == sorted(listed.brokers)
    assert described.controller.id in listed.brokers


def a_compacted_topic_keeps_the_newest_of_each_key():
    topic = make_topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01,
                       max_compaction_lag_ms=100)
    newest = {}
    for round in range(20):
        keys = [f"k{n}".encode() for n in range(10)]
        produce(topic, [f"{round} {n}".encode() for n in range(10)], keys=keys)
        time.sleep(0.02)  # Segments close by time.
    for n in range(10):
        newest[f"k{n}".encode()] = f"19 {n}".encode()
    # The newest segment is left alone, so something has to follow.
    for _ in deadline(120):
        produce(topic, [b"end"], keys=[b"end"])
        messages = [message for message in read_to_end(topic) if message.key() != b"end"]
        if len(messages) == 10:
            break
        time.sleep(0.5)
    assert {message.key(): message.value() for message in messages} == newest
    assert [message.offset() for message in messages] == list(range(190, 200))


def read_to_end(topic):
    client = consumer(**{"enable.partition.eof": True})
    client.assign([ck.TopicPartition(topic, 0, 0)])
    messages = []
    for _ in deadline():
        message = client.poll(1)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == ck.KafkaError._PARTITION_EOF, message.error()
            break
        messages.append(message)
    client.close()
    return messages


def records_are_deleted():
    client, topic = admin(), make_topic()
    produce(topic, [f"{n}" for n in range(100)])
    client.delete_records([ck.TopicPartition(topic, 0, 40)])
    reader = consumer()
    for _ in deadline():
        if reader.get_watermark_offsets(ck.TopicPartition(topic, 0), timeout=10) == (40, 100):
            break
    reader.assign([ck.TopicPartition(topic, 0, 0)])
    assert consume(reader, 60)[0].value() == b"40"
    reader.close()


def transactions_fail_at_once():
    producer = ck.Producer({"bootstrap.servers": BOOTSTRAP, "transactional.id": unique("tx")})
    start = time.monotonic()
    try:
        producer.init_transactions(20)
        # Apache Kafka has them.
    except ck.KafkaException as failure:
        assert failure.args[0].code() == ck.KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, failure
    assert time.monotonic() - start < 15


def idempotent_producers_survive_disconnects():
    # A proxy that cuts every connection now and then, in the middle of whatever it carries.
    import random
    import socket
    host, port = BOOTSTRAP.split(",")[0].rsplit(":", 1)
    listener = socket.create_server(("127.0.0.1", 0))
    chance = random.Random(7)
    stop, cuts = threading.Event(), []

    def pipe(source, target, budget):
        try:
            while not stop.is_set():
                data = source.recv(65536)
                if not data:
                    break
                budget -= len(data)
                if budget < 0:
                    cuts.append(len(data))
                    data = data[:chance.randrange(len(data) + 1)]
                    target.sendall(data)
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve():
        while not stop.is_set():
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection((host, int(port)))
            # Requests and answers are cut alike: a lost answer is what idempotence is for.
            threading.Thread(target=pipe, args=(near, far, chance.randrange(20_000, 400_000)), daemon=True).start()
            threading.Thread(target=pipe, args=(far, near, chance.randrange(300, 2_000)), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    topic = make_topic()
    proxy = listener.getsockname()[1]

    # librdkafka connects to the address that metadata names, so the names are redirected instead.
    def resolve(*_):
        return socket.create_connection(("127.0.0.1", proxy))

    producer = kafka.KafkaProducer(
        bootstrap_servers=BOOTSTRAP, enable_idempotence=True, acks="all", linger_ms=0, batch_size=600,
        retry_backoff_ms=20, reconnect_backoff_ms=10, reconnect_backoff_max_ms=50, max_block_ms=60_000,
        delivery_timeout_ms=90_000, request_timeout_ms=2000)
    redirect(producer, int(port), proxy)
    futures = [producer.send(topic, f"{n}".encode(), partition=0) for n in range(6000)]
    for future in futures:
        future.get(90)
    producer.close(10)
    stop.set()
    listener.close()
    assert len(cuts) >= 3, cuts
    assert [int(message.value()) for message in read_all(topic, 6000)] == list(range(6000))


def redirect(producer, port, proxy):
    """Makes kafka-python's sockets go to the proxy instead of the broker."""
    import kafka.conn
    import socket
    original = socket.socket.connect_ex

    class Redirected(socket.socket):
        def connect_ex(self, address):
            if address[1] == port:
                address = ("127.0.0.1", proxy)
            return original(self, address)

    kafka.conn.socket.socket = Redirected
    for connection in list(producer._sender._client._conns.values()):
        connection.close()


# kafka-python


def kafka_python_produces_and_consumes():
    topic = make_topic(3)
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        producer = kafka.KafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", compression_type=codec)
        for n in range(200):
            producer.send(topic, key=b"%d" % n, value=b"value %d" % n, headers=[("h", b"1")])
        producer.flush(20)
        producer.close()
    reader = kafka.KafkaConsumer(
        topic, bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", group_id=unique("group"),
        consumer_timeout_ms=20_000, check_crcs=True)
    seen = []
    for message in reader:
        seen.append(message.value)
        if len(seen) == 1000:
            break
    assert sorted(seen) == sorted(b"value %d" % n for n in range(200) for _ in range(5))
    reader.commit()
    reader.close()


def kafka_python_rebalances():
    topic, group = make_topic(4), unique("group")
    stop, counts = threading.Event(), {}

    def member(name):
        reader = kafka.KafkaConsumer(
            topic, bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest",
            session_timeout_ms=6000, heartbeat_interval_ms=300)
        while not stop.is_set():
            reader.poll(timeout_ms=100)
            counts[name] = len(reader.assignment())
        reader.close()

    threads = [threading.Thread(target=member, args=(name,), daemon=True) for name in "ab"]
    threads[0].start()
    for _ in deadline():
        if counts.get("a") == 4:
            break
        time.sleep(0.05)
    threads[1].start()
    for _ in deadline():
        if counts.get("a") == 2 and counts.get("b") == 2:
            break
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(20)


def kafka_python_administers():
    client, topic = KafkaAdminClient(bootstrap_servers=BOOTSTRAP), unique("interop")
    client.create_topics([kafka.admin.NewTopic(topic, 3, 1)])
    assert topic in client.list_topics()
    described = client.describe_topics([topic])[0]
    assert len(described["partitions"]) == 3
    client.delete_topics([topic])
    client.close()


if __name__ == "__main__":
    BOOTSTRAP = sys.argv[1]
    globals()[sys.argv[2]]()
