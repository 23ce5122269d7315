import Foundation
import TestSupport
import Testing

/// Clients that nobody here wrote, against the broker: kcat, confluent-kafka and kafka-python. `interop.py` holds what they
/// do; `scripts/setup` makes the environment that it runs in. With `FANOUT_TEST_KAFKA` the same tests run against that.
@Suite(.serialized) struct InteropTests {
    private static let kafka = Result { try TestKafka.start() }

    @Test(arguments: [
        "kcat_produces_and_consumes", "kcat_lists_topics_and_partitions", "kcat_queries_offsets_by_time",
        "kcat_consumes_in_a_group", "every_codec_survives", "keys_headers_and_tombstones_survive",
        "large_messages_pass_and_larger_are_refused", "all_acknowledgement_levels_work",
        "an_idempotent_producer_keeps_order_and_count", "idempotent_producers_survive_disconnects",
        "a_group_shares_partitions_and_rebalances", "a_static_member_returns_without_a_rebalance",
        "a_lone_member_joins_fast", "committed_offsets_are_found_again", "a_zombie_cannot_commit",
        "offsets_by_time_and_watermarks", "a_fetch_waits_and_is_woken", "topics_are_administered",
        "groups_are_administered", "records_are_deleted", "transactions_fail_at_once",
        "the_cluster_is_described", "a_compacted_topic_keeps_the_newest_of_each_key",
        "kafka_python_produces_and_consumes", "kafka_python_rebalances", "kafka_python_administers",
    ])
    func `a foreign client finds what it expects`(_ name: String) throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let process = Process()
        process.executableURL = root.appending(path: ".venv/bin/python")
        process.arguments = [
            root.appending(path: "Tests/BrokerTests/Interop/interop.py").path, try Self.kafka.get().address, name,
        ]
        let output = FileManager.default.temporaryDirectory.appending(path: TestKafka.unique("interop") + ".txt")
        try Data().write(to: output)
        defer { try? FileManager.default.removeItem(at: output) }
        let handle = try FileHandle(forWritingTo: output)
        process.standardOutput = handle
        process.standardError = handle
        try process.run()
        let isDone = eventually(seconds: 150) { !process.isRunning }
        if !isDone { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
        let text = String(decoding: try Data(contentsOf: output), as: UTF8.self)
        #expect(isDone, "\(name) does not end: \(text)")
        #expect(process.terminationStatus == 0, "\(text)")
    }
}
