import Foundation
import System

@testable import Broker

/// A directory for one partition's log, removed with this object.
final class LogDirectory {
    let path: String
    let files = OpenFiles(limit: 3)

    init() {
        path = NSTemporaryDirectory() + "fanout-log-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func makeLog(_ settings: [String: String] = [:], leaderEpoch: Int32 = 0) throws -> PartitionLog {
        PartitionLog(
            topic: 1, partition: 0, leaderEpoch: leaderEpoch, directory: path, files: files,
            config: try TopicConfig(overrides: settings))
    }

    /// The log as a start of the broker would find it.
    func reopen(
        _ settings: [String: String] = [:], known: PartitionLog.Recovered = .init(), leaderEpoch: Int32 = 0
    ) throws -> (log: PartitionLog, report: PartitionLog.RecoveryReport) {
        let log = try makeLog(settings, leaderEpoch: leaderEpoch)
        let report = try log.recover(segments(), known, nowMs: 0)
        return (log, report)
    }

    func segments() throws -> [(baseOffset: Int64, size: Int)] {
        try Directory.list(path).compactMap { name in
            guard let parsed = Segment.parse(name), parsed.isLog else { return nil }
            return (parsed.baseOffset, Int(try File("\(path)/\(name)").size))
        }.sorted { $0.baseOffset < $1.baseOffset }
    }
}

extension PartitionLog {
    /// Appends one batch at the end, as the commit queue does.
    @discardableResult
    func add(_ batch: [UInt8], commits: Bool = true, nowMs: Int64 = 0) throws -> Int64 {
        let offset = endOffset
        let placed = Batches.placed(batch, at: offset)
        try append(placed.span, try RecordBatch(verifying: placed.span), nowMs: nowMs)
        if commits { commit(end) }
        return offset
    }

    /// Everything from `offset` on, by fetches of at most `maxBytes`.
    func readAll(from offset: Int64 = 0, maxBytes: Int = 1 << 20) throws -> [(
        offset: Int64, key: String?, value: String?
    )] {
        var found: [(offset: Int64, key: String?, value: String?)] = []
        var next = offset
        while true {
            var bytes: [UInt8] = []
            let count = try read(from: next, maxBytes: maxBytes, atLeastOne: true, into: &bytes).bytes
            precondition(count == bytes.count)
            if count == 0 { return found }
            let values = try Batches.values(bytes)
            found += values.filter { $0.offset >= next }
            var start = 0
            while start < bytes.count {
                let batch = try RecordBatch(header: bytes.span.extracting(start..<bytes.count))
                start += batch.size
                next = batch.nextOffset
            }
        }
    }
}
