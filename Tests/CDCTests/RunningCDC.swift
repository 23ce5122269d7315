import CDC
import Foundation
import KafkaClient
import PostgresClient
import Runtime
import System
import TestSupport
import Testing
import Wire

/// What something in this process has logged.
private final class LogLines: Sendable {
    let all = Guarded<[String]>([])
}

/// CDC on a thread of this process, with its log and its metrics at hand.
final class RunningCDC {
    private let cdc: CDC
    private let metrics: Metrics
    private let lines = LogLines()
    private let failure = Handover<CDCError?>()
    private let thread: System.Thread
    private var hasEnded = false

    init(_ configuration: CDCConfiguration) {
        let lines = lines
        let log = Log(component: "cdc", clock: SystemClock()) { line in
            lines.all.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
        }
        let metrics = Metrics()
        let cdc = CDC(configuration, log: log, clock: SystemClock(), metrics: metrics)
        let failure = failure
        (self.cdc, self.metrics) = (cdc, metrics)
        thread = System.Thread.start(name: "cdc") {
            do throws(CDCError) {
                try cdc.run()
                failure.put(nil)
            } catch {
                failure.put(error)
            }
        }
    }

    deinit { stop() }

    var isReady: Bool { cdc.isReady }

    var text: String { lines.all.withLock { $0.joined() } }

    func waitFor(_ wanted: String, seconds: Double = 30) -> Bool {
        eventually(seconds: seconds) { self.text.contains(wanted) }
    }

    /// What a metric says now.
    func value(_ metric: String) -> Double? {
        let text = String(decoding: metrics.render(), as: UTF8.self)
        let line = text.split(separator: "\n").first { $0.hasPrefix(metric + " ") || $0.hasPrefix(metric + "{") }
        return line?.split(separator: " ").last.flatMap { Double($0) }
    }

    /// Ends it; answers why it had ended by itself, if it had.
    @discardableResult
    func stop() -> CDCError? {
        guard !hasEnded else { return nil }
        hasEnded = true
        cdc.stop()
        thread.join()
        return failure.take()
    }
}

extension Setup {
    /// As the command would be configured, and impatient.
    var configuration: CDCConfiguration {
        var configuration = CDCConfiguration(
            postgres: database, kafka: KafkaConfiguration(bootstrapServers: kafka),
            routes: [
                TableRoute(table: "whole", topic: topic, key: ["a", "b"], partition: "b"),
                TableRoute(table: "keyed", topic: topic, key: ["id"]),
            ])
        configuration.publication = "p"
        configuration.slot = slot
        configuration.confirmIntervalMs = 50
        configuration.statusIntervalMs = 100
        configuration.heartbeatMs = 100
        return configuration
    }

    /// What CDC says of itself in Kafka.
    func note() throws -> SlotNote? {
        let admin = try Admin(KafkaConfiguration(bootstrapServers: kafka))
        defer { admin.close(deadlineMs: 500) }
        let group = "\(configuration.group).\(slot)"
        let metadata = try admin.groupOffsets(group, [TopicPartition(topic, 0)]).first?.metadata
        return try metadata.flatMap { $0.isEmpty ? nil : try SlotNote(decoding: $0.utf8.span) }
    }

    func confirmed() throws -> LSN {
        let row = try postgres.query(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", [.text(slot)])
        return (row.isEmpty ? nil : row.text(0, 0).flatMap { LSN($0) }) ?? .zero
    }
}
