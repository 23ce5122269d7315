import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.serialization.*;

/**
 * The broker as Apache Kafka's own clients see it: producer, consumer and admin of kafka-clients.
 *
 * Run by JavaInteropTests.swift, in source form, as  java -cp 'LIBS/*' JavaClients.java BOOTSTRAP [CHECK]…; works as well against
 * Apache Kafka. A check fails by throwing. Nothing here knows which broker it talks to, but for what the environment says:
 * EXPECT_LEFT_OUT=1 expects the errors of what the embedded broker leaves out.
 */
public class JavaClients {
    static String bootstrap;
    static Admin admin;

    interface Check { void run() throws Exception; }

    static final Map<String, Check> checks = new LinkedHashMap<>();

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        checks.put("every codec, plain and idempotent", JavaClients::codecs);
        checks.put("keys, headers, tombstones and times", JavaClients::contents);
        checks.put("acks and partitioners", JavaClients::acknowledgements);
        checks.put("topics", JavaClients::topics);
        checks.put("configurations", JavaClients::configurations);
        checks.put("offsets of a log", JavaClients::offsets);
        checks.put("a deleted range", JavaClients::deletedRange);
        checks.put("groups are shared: range", () -> shared("org.apache.kafka.clients.consumer.RangeAssignor"));
        checks.put("groups are shared: roundrobin", () -> shared("org.apache.kafka.clients.consumer.RoundRobinAssignor"));
        checks.put("groups are shared: sticky", () -> shared("org.apache.kafka.clients.consumer.StickyAssignor"));
        checks.put("groups are shared: cooperative", () -> shared("org.apache.kafka.clients.consumer.CooperativeStickyAssignor"));
        checks.put("a static member comes back", JavaClients::staticMember);
        checks.put("offsets of a group", JavaClients::groupOffsets);
        checks.put("members removed by an admin", JavaClients::removedMembers);
        checks.put("a position with its leader's epoch", JavaClients::leaderEpochs);
        checks.put("the cluster", JavaClients::cluster);
        if (System.getenv("EXPECT_LEFT_OUT") != null) checks.put("what is left out", JavaClients::leftOut);
        var wanted = arguments.length > 1 ? List.of(arguments).subList(1, arguments.length) : List.copyOf(checks.keySet());
        try (Admin shared = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin = shared;
            for (String name : wanted) {
                checks.get(name).run();
                System.out.println("passed: " + name);
            }
        }
        System.out.println(wanted.size() + " checks passed");
    }

    // Pieces

    static String unique(String name) { return name + "-" + UUID.randomUUID().toString().substring(0, 13); }

    static void expect(boolean holds, Object... evidence) {
        if (!holds) throw new AssertionError(Arrays.deepToString(evidence));
    }

    static <T> void expectEqual(T found, T wanted) { expect(Objects.equals(found, wanted), "found", found, "wanted", wanted); }

    /** What a future fails with. */
    static Throwable failure(Future<?> future) throws Exception {
        try {
            Object value = future.get(20, TimeUnit.SECONDS);
            throw new AssertionError("nothing failed: " + value);
        } catch (ExecutionException error) {
            return error.getCause();
        }
    }

    static void expectFailure(Future<?> future, Class<?> wanted) throws Exception {
        Throwable found = failure(future);
        expect(wanted.isInstance(found), found);
    }

    /** Again and again until it holds. */
    static void eventually(Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + 60_000_000_000L;
        while (!condition.call()) expect(System.nanoTime() < end, "not within a minute");
    }

    static String topic(int partitions, String... settings) throws Exception {
        String name = unique("java");
        Map<String, String> configs = new HashMap<>();
        for (int index = 0; index < settings.length; index += 2) configs.put(settings[index], settings[index + 1]);
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(configs))).all().get();
        return name;
    }

    /** A time of the past that retention does not reach. */
    static long anHourAgo() { return System.currentTimeMillis() - 3_600_000; }

    static KafkaProducer<String, String> producer(Object... settings) {
        Map<String, Object> configs = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", 2));
        for (int index = 0; index < settings.length; index += 2) configs.put((String) settings[index], settings[index + 1]);
        return new KafkaProducer<>(configs, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(String group, Object... settings) {
        Map<String, Object> configs = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap, "group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", false,
            "session.timeout.ms", 10_000, "heartbeat.interval.ms", 300));
        for (int index = 0; index < settings.length; index += 2) configs.put((String) settings[index], settings[index + 1]);
        configs.values().removeIf(Objects::isNull);
        return new KafkaConsumer<>(configs, new StringDeserializer(), new StringDeserializer());
    }

    static void fill(String topic, int count, Object... settings) throws Exception {
        try (var producer = producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int index = 0; index < count; index++) sent.add(producer.send(new ProducerRecord<>(topic, "k" + index, "v" + index)));
            for (var future : sent) future.get();
        }
    }

    static List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> consumer, int count) throws Exception {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        eventually(() -> {
            for (var record : consumer.poll(Duration.ofMillis(200))) found.add(record);
            return found.size() >= count;
        });
        expectEqual(found.size(), count);
        return found;
    }

    static List<ConsumerRecord<String, String>> readAll(String topic, int count) throws Exception {
        try (var consumer = consumer(unique("group"))) {
            consumer.subscribe(List.of(topic));
            return read(consumer, count);
        }
    }

    static List<TopicPartition> partitions(String topic, int count) {
        return IntStream.range(0, count).mapToObj(index -> new TopicPartition(topic, index)).toList();
    }

    // Producing and consuming

    static void codecs() throws Exception {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (boolean idempotent : List.of(false, true)) {
                String topic = topic(3);
                fill(topic, 500, "compression.type", codec, "enable.idempotence", idempotent);
                var values = readAll(topic, 500).stream().map(ConsumerRecord::value).collect(Collectors.toSet());
                expectEqual(values.size(), 500);
            }
        }
    }

    static void contents() throws Exception {
        String topic = topic(1);
        long time = anHourAgo();
        try (var producer = producer()) {
            var record = new ProducerRecord<>(topic, 0, time, "key", "value");
            record.headers().add("name", new byte[] {0, 1, (byte) 255}).add("name", new byte[0]).add("nothing", null);
            expectEqual(producer.send(record).get().timestamp(), time);
            producer.send(new ProducerRecord<>(topic, "key", null)).get();
            producer.send(new ProducerRecord<>(topic, null, "x".repeat(900_000))).get();
            expectFailure(producer.send(new ProducerRecord<>(topic, null, "x".repeat(2_000_000))), RecordTooLargeException.class);
        }
        try (var producer = producer("max.request.size", 8 << 20)) {
            expectFailure(producer.send(new ProducerRecord<>(topic, null, "x".repeat(2_000_000))), RecordTooLargeException.class);
        }
        var found = readAll(topic, 3);
        expectEqual(found.get(0).timestamp(), time);
        expectEqual(found.get(0).headers().toArray().length, 3);
        expect(found.get(0).headers().lastHeader("nothing").value() == null);
        expect(found.get(1).value() == null && found.get(1).key().equals("key"));
        expect(found.get(2).key() == null && found.get(2).value().length() == 900_000);
        String stamped = topic(1, "message.timestamp.type", "LogAppendTime");
        long before = System.currentTimeMillis() - 1000;
        try (var producer = producer()) {
            expect(producer.send(new ProducerRecord<>(stamped, 0, 5L, "k", "v")).get().timestamp() >= before);
        }
        var record = readAll(stamped, 1).get(0);
        expect(record.timestamp() >= before && record.timestampType().name.equals("LogAppendTime"), record);
    }

    static void acknowledgements() throws Exception {
        for (String acks : List.of("0", "1", "all")) {
            String topic = topic(4);
            fill(topic, 200, "acks", acks, "enable.idempotence", false);
            readAll(topic, 200);
        }
        String topic = topic(8);
        fill(topic, 400);
        // Each key where the client's own partitioner puts it, so that others can rely on it.
        for (var record : readAll(topic, 400)) {
            int hash = org.apache.kafka.common.utils.Utils.murmur2(record.key().getBytes());
            expectEqual(record.partition(), org.apache.kafka.common.utils.Utils.toPositive(hash) % 8);
        }
    }

    // Administration

    static void topics() throws Exception {
        String topic = topic(3);
        expect(admin.listTopics().names().get().contains(topic));
        expect(!admin.listTopics().names().get().contains("__consumer_offsets"));
        expectFailure(admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all(), TopicExistsException.class);
        expectFailure(admin.createTopics(List.of(new NewTopic("no such name!", 1, (short) 1))).all(), InvalidTopicException.class);
        expectFailure(admin.createTopics(List.of(new NewTopic(unique("t"), 0, (short) 1))).all(), InvalidPartitionsException.class);
        expectFailure(admin.createTopics(List.of(new NewTopic(unique("t"), 1, (short) 3))).all(), InvalidReplicationFactorException.class);
        expectFailure(
            admin.createTopics(List.of(new NewTopic(unique("t"), 1, (short) 1).configs(Map.of("retention.ms", "soon")))).all(),
            InvalidConfigurationException.class);
        String planned = unique("t");
        var made = admin.createTopics(List.of(new NewTopic(planned, 5, (short) 1)), new CreateTopicsOptions().validateOnly(true));
        made.all().get();
        expectEqual(made.numPartitions(planned).get(), 5);
        expectFailure(admin.describeTopics(List.of(planned)).allTopicNames(), UnknownTopicOrPartitionException.class);
        String standard = unique("t");
        admin.createTopics(List.of(new NewTopic(standard, Optional.empty(), Optional.empty()))).all().get();
        var description = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        expectEqual(description.partitions().size(), 3);
        expect(description.partitions().stream().allMatch(place -> place.leader() != null && place.isr().size() == 1), description);
        var byID = admin.describeTopics(TopicCollection.ofTopicIds(List.of(description.topicId()))).allTopicIds().get();
        expectEqual(byID.get(description.topicId()).name(), topic);
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
        eventually(() -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 5);
        expectFailure(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all(), InvalidPartitionsException.class);
        admin.deleteTopics(List.of(standard)).all().get();
        admin.deleteTopics(TopicCollection.ofTopicIds(List.of(description.topicId()))).all().get();
        eventually(() -> admin.listTopics().names().get().stream().noneMatch(List.of(topic, standard)::contains));
        expectFailure(admin.deleteTopics(List.of(topic)).all(), UnknownTopicOrPartitionException.class);
    }

    static void configurations() throws Exception {
        String topic = topic(1, "retention.ms", "3600000");
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Supplier<Config> now = () -> {
            try {
                return admin.describeConfigs(List.of(resource)).all().get().get(resource);
            } catch (Exception error) {
                throw new RuntimeException(error);
            }
        };
        expectEqual(now.get().get("retention.ms").value(), "3600000");
        expectEqual(now.get().get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        expect(now.get().get("segment.bytes").isDefault());
        admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all().get();
        eventually(() -> now.get().get("retention.ms").value().equals("7200000"));
        expectEqual(Set.of(now.get().get("cleanup.policy").value().split(",")), Set.of("delete", "compact"));
        admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SUBTRACT)))).all().get();
        eventually(() -> now.get().get("retention.ms").isDefault());
        expectEqual(now.get().get("cleanup.policy").value(), "delete");
        expectFailure(
            admin.incrementalAlterConfigs(Map.of(resource, List.of(
                new AlterConfigOp(new ConfigEntry("segment.bytes", "-3"), AlterConfigOp.OpType.SET)))).all(),
            InvalidConfigurationException.class);
        var unknown = new ConfigResource(ConfigResource.Type.TOPIC, unique("t"));
        expectFailure(admin.describeConfigs(List.of(unknown)).all(), UnknownTopicOrPartitionException.class);
        var node = admin.describeCluster().nodes().get().iterator().next();
        var broker = new ConfigResource(ConfigResource.Type.BROKER, node.idString());
        expect(!admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().isEmpty());
    }

    static ListOffsetsResult.ListOffsetsResultInfo offset(TopicPartition place, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(place, spec)).partitionResult(place).get();
    }

    static void offsets() throws Exception {
        String topic = topic(1);
        var place = new TopicPartition(topic, 0);
        expectEqual(offset(place, OffsetSpec.maxTimestamp()).offset(), -1L);
        long base = anHourAgo();
        try (var producer = producer()) {
            for (int index = 0; index < 100; index++) {
                // The newest time is not the last one.
                producer.send(new ProducerRecord<>(topic, 0, base + (index == 60 ? 5000 : index * 10), "k", "v" + index));
            }
        }
        expectEqual(offset(place, OffsetSpec.earliest()).offset(), 0L);
        expectEqual(offset(place, OffsetSpec.latest()).offset(), 100L);
        expectEqual(offset(place, OffsetSpec.forTimestamp(base + 361)).offset(), 37L);
        expectEqual(offset(place, OffsetSpec.forTimestamp(base + 1_000_000)).offset(), -1L);
        var newest = offset(place, OffsetSpec.maxTimestamp());
        expect(newest.offset() == 60 && newest.timestamp() == base + 5000, newest);
        expectFailure(
            admin.listOffsets(Map.of(new TopicPartition(topic, 7), OffsetSpec.latest()), new ListOffsetsOptions().timeoutMs(3000)).all(),
            Exception.class);
        try (var consumer = consumer(unique("group"))) {
            expectEqual(consumer.beginningOffsets(List.of(place)), Map.of(place, 0L));
            expectEqual(consumer.endOffsets(List.of(place)), Map.of(place, 100L));
            expectEqual(consumer.offsetsForTimes(Map.of(place, base + 361)).get(place).offset(), 37L);
            consumer.assign(List.of(place));
            consumer.seek(place, 95);
            expectEqual(read(consumer, 5).get(0).value(), "v95");
            expectEqual(consumer.currentLag(place).getAsLong(), 0L);
            consumer.seek(place, 1000);
            // Beyond the end: reset to the beginning, as it is told.
            expectEqual(read(consumer, 100).get(0).value(), "v0");
        }
        try (var consumer = consumer(unique("group"), "auto.offset.reset", "none")) {
            consumer.assign(List.of(place));
            consumer.seek(place, 1000);
            eventually(() -> {
                try {
                    consumer.poll(Duration.ofMillis(200));
                    return false;
                } catch (org.apache.kafka.clients.consumer.OffsetOutOfRangeException expected) {
                    return true;
                }
            });
        }
    }

    static void deletedRange() throws Exception {
        String topic = topic(1);
        var place = new TopicPartition(topic, 0);
        fill(topic, 50);
        var deleted = admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(20)));
        expectEqual(deleted.lowWatermarks().get(place).get().lowWatermark(), 20L);
        expectEqual(offset(place, OffsetSpec.earliest()).offset(), 20L);
        expectEqual(readAll(topic, 30).get(0).offset(), 20L);
        expectFailure(admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(51))).all(), OffsetOutOfRangeException.class);
        admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(-1))).all().get();
        expectEqual(offset(place, OffsetSpec.earliest()).offset(), 50L);
    }

    // Groups

    /** Members that come and go: at each moment every partition has one owner, and each record arrives. */
    static void shared(String assignor) throws Exception {
        String topic = topic(6);
        String group = unique("group");
        fill(topic, 300);
        List<KafkaConsumer<String, String>> members = new ArrayList<>();
        Set<String> seen = new HashSet<>();
        Callable<Boolean> isSettled = () -> {
            for (var member : members) {
                for (var record : member.poll(Duration.ofMillis(50))) seen.add(record.value());
            }
            var owned = members.stream().flatMap(member -> member.assignment().stream()).toList();
            return owned.size() == 6 && Set.copyOf(owned).size() == 6 && members.stream().noneMatch(member -> member.assignment().isEmpty());
        };
        for (int count = 1; count <= 3; count++) {
            var member = consumer(group, "partition.assignment.strategy", assignor);
            member.subscribe(List.of(topic));
            members.add(member);
            eventually(isSettled);
        }
        for (var member : members) {
            if (!member.assignment().isEmpty()) member.commitSync();
        }
        var description = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        expectEqual(description.groupState(), GroupState.STABLE);
        expectEqual(description.members().size(), 3);
        expectEqual(description.members().stream().flatMap(member -> member.assignment().topicPartitions().stream()).collect(Collectors.toSet()), Set.copyOf(partitions(topic, 6)));
        expect(assignor.toLowerCase().contains(description.partitionAssignor().split("-")[0]), description.partitionAssignor());
        members.remove(0).close();
        eventually(isSettled);
        fill(topic, 300);
        // More partitions are found and shared out as well.
        eventually(() -> { isSettled.call(); return seen.size() == 300; });
        while (!members.isEmpty()) members.remove(0).close();
        eventually(() -> admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState() == GroupState.EMPTY);
        admin.deleteConsumerGroups(List.of(group)).all().get();
        expectFailure(admin.deleteConsumerGroups(List.of(group)).all(), GroupIdNotFoundException.class);
    }

    static void staticMember() throws Exception {
        String topic = topic(2);
        String group = unique("group");
        List<Integer> revocations = new ArrayList<>();
        var other = consumer(group, "group.instance.id", "other");
        other.subscribe(List.of(topic), new ConsumerRebalanceListener() {
            public void onPartitionsRevoked(Collection<TopicPartition> places) { revocations.add(places.size()); }
            public void onPartitionsAssigned(Collection<TopicPartition> places) {}
        });
        Function<KafkaConsumer<String, String>, Callable<Boolean>> hasOne = member -> () -> {
            other.poll(Duration.ofMillis(50));
            member.poll(Duration.ofMillis(50));
            return member.assignment().size() == 1 && other.assignment().size() == 1;
        };
        var first = consumer(group, "group.instance.id", "one");
        first.subscribe(List.of(topic));
        eventually(hasOne.apply(first));
        var owned = first.assignment();
        int before = revocations.size();
        // A static member that closes does not leave: the next with its name has its place, and nobody else notices.
        first.close();
        var second = consumer(group, "group.instance.id", "one");
        second.subscribe(List.of(topic));
        eventually(hasOne.apply(second));
        expectEqual(second.assignment(), owned);
        expectEqual(revocations.size(), before);
        // Two with one name: the older is fenced.
        var third = consumer(group, "group.instance.id", "one");
        third.subscribe(List.of(topic));
        eventually(() -> {
            third.poll(Duration.ofMillis(50));
            other.poll(Duration.ofMillis(50));
            try {
                second.poll(Duration.ofMillis(50));
                return false;
            } catch (FencedInstanceIdException expected) {
                return true;
            }
        });
        for (var member : List.of(second, third, other)) member.close();
        var ids = Stream.of("one", "other").map(MemberToRemove::new).toList();
        admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(ids)).all().get();
        expectEqual(admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState(), GroupState.EMPTY);
    }

    static void groupOffsets() throws Exception {
        String topic = topic(3);
        String group = unique("group");
        fill(topic, 90);
        try (var consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            read(consumer, 90);
            consumer.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(7, Optional.of(0), "a note")));
            consumer.commitSync(Map.of(new TopicPartition(topic, 1), new OffsetAndMetadata(8)));
            var listed = admin.listGroups().all().get().stream().filter(entry -> entry.groupId().equals(group)).findFirst().get();
            expectEqual(listed.protocol(), "consumer");
            var stable = new ListConsumerGroupsOptions().inGroupStates(Set.of(GroupState.STABLE));
            expect(admin.listConsumerGroups(stable).all().get().stream().anyMatch(entry -> entry.groupId().equals(group)));
            // While somebody subscribes, neither offsets nor the group can be taken away.
            var place = new TopicPartition(topic, 0);
            expectFailure(admin.deleteConsumerGroupOffsets(group, Set.of(place)).partitionResult(place), GroupSubscribedToTopicException.class);
            expectFailure(admin.alterConsumerGroupOffsets(group, Map.of(place, new OffsetAndMetadata(1))).all(), UnknownMemberIdException.class);
            expectFailure(admin.deleteConsumerGroups(List.of(group)).all(), GroupNotEmptyException.class);
        }
        Callable<Map<TopicPartition, OffsetAndMetadata>> now =
            () -> admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        expectEqual(now.call().get(new TopicPartition(topic, 0)), new OffsetAndMetadata(7, Optional.of(0), "a note"));
        expectEqual(now.call().get(new TopicPartition(topic, 1)).offset(), 8L);
        admin.alterConsumerGroupOffsets(group, Map.of(new TopicPartition(topic, 2), new OffsetAndMetadata(5, "reset"))).all().get();
        expectEqual(now.call().get(new TopicPartition(topic, 2)).metadata(), "reset");
        var gone = new TopicPartition(topic, 0);
        var nowhere = new TopicPartition(unique("t"), 0);
        var deleted = admin.deleteConsumerGroupOffsets(group, Set.of(gone, nowhere));
        deleted.partitionResult(gone).get();
        expectFailure(deleted.partitionResult(nowhere), UnknownTopicOrPartitionException.class);
        expectEqual(now.call().keySet(), Set.of(new TopicPartition(topic, 1), new TopicPartition(topic, 2)));
        var spec = new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(gone));
        expectEqual(admin.listConsumerGroupOffsets(Map.of(group, spec)).partitionsToOffsetAndMetadata(group).get().get(gone), null);
        String none = unique("group");
        expectFailure(admin.deleteConsumerGroupOffsets(none, Set.of(gone)).all(), GroupIdNotFoundException.class);
        expectFailure(admin.describeConsumerGroups(List.of(none)).all(), GroupIdNotFoundException.class);
        expectEqual(admin.listConsumerGroupOffsets(none).partitionsToOffsetAndMetadata().get(), Map.of());
        try (var consumer = consumer(group)) {
            expectEqual(consumer.committed(Set.copyOf(partitions(topic, 3))).get(new TopicPartition(topic, 1)).offset(), 8L);
        }
        admin.deleteConsumerGroups(List.of(group)).all().get();
    }

    static void removedMembers() throws Exception {
        String topic = topic(2);
        String group = unique("group");
        try (var consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            eventually(() -> { consumer.poll(Duration.ofMillis(50)); return consumer.assignment().size() == 2; });
            admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all().get();
            expectEqual(admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size(), 0);
            // It joins again by itself.
            eventually(() -> {
                consumer.poll(Duration.ofMillis(50));
                return admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size() == 1;
            });
        }
    }

    static void leaderEpochs() throws Exception {
        String topic = topic(1);
        var place = new TopicPartition(topic, 0);
        fill(topic, 20);
        int epoch;
        try (var consumer = consumer(unique("group"))) {
            consumer.assign(List.of(place));
            consumer.seek(place, 0);
            epoch = read(consumer, 20).get(0).leaderEpoch().get();
            // A position that names an epoch is held against the log before the first fetch from there.
            consumer.seek(place, new OffsetAndMetadata(10, Optional.of(epoch), ""));
            var found = read(consumer, 10);
            expectEqual(found.get(0).value(), "v10");
            expectEqual(found.get(0).leaderEpoch().get(), epoch);
        }
        // One beyond the end of the epoch is a log that was cut off.
        try (var consumer = consumer(unique("group"), "auto.offset.reset", "none")) {
            consumer.assign(List.of(place));
            consumer.seek(place, new OffsetAndMetadata(25, Optional.of(epoch), ""));
            eventually(() -> {
                try {
                    consumer.poll(Duration.ofMillis(200));
                    return false;
                } catch (LogTruncationException cut) {
                    expectEqual(cut.divergentOffsets().get(place).offset(), 20L);
                    return true;
                }
            });
        }
    }

    static void cluster() throws Exception {
        var description = admin.describeCluster();
        expectEqual(description.nodes().get().size(), 1);
        expect(!description.clusterId().get().isEmpty());
        expect(description.controller().get() != null);
        expect(description.authorizedOperations().get() == null);
        var with = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
        with.authorizedOperations().get();
    }

    /** What the broker does not do is refused at once, with an error that says so. */
    static void leftOut() throws Exception {
        String topic = topic(1);
        var place = new TopicPartition(topic, 0);
        try (var producer = producer("transactional.id", unique("tx"), "max.block.ms", 10_000)) {
            try {
                producer.initTransactions();
                throw new AssertionError("transactions begin");
            } catch (KafkaException expected) {
                expect(expected instanceof TransactionalIdAuthorizationException, expected);
            }
        }
        expectFailure(admin.describeLogDirs(List.of(1)).allDescriptions(), UnsupportedVersionException.class);
        expectFailure(admin.describeProducers(List.of(place)).all(), UnsupportedVersionException.class);
        expectFailure(admin.listTransactions().all(), UnsupportedVersionException.class);
        expectFailure(admin.electLeaders(ElectionType.PREFERRED, Set.of(place)).all(), UnsupportedVersionException.class);
        expectFailure(admin.listPartitionReassignments().reassignments(), UnsupportedVersionException.class);
        expectFailure(admin.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values(), UnsupportedVersionException.class);
        expectFailure(admin.describeUserScramCredentials().all(), UnsupportedVersionException.class);
        expectFailure(admin.describeClientQuotas(org.apache.kafka.common.quota.ClientQuotaFilter.all()).entities(), UnsupportedVersionException.class);
        try (var consumer = consumer(unique("group"), "group.protocol", "consumer", "session.timeout.ms", null, "heartbeat.interval.ms", null)) {
            consumer.subscribe(List.of(topic));
            eventually(() -> {
                try {
                    consumer.poll(Duration.ofMillis(200));
                    return false;
                } catch (UnsupportedVersionException expected) {
                    return true;
                }
            });
        }
    }
}
